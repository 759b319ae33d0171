"""Whether a model fits a memory, and how fast it could decode: arithmetic, no model and no clock.

    total(context) = weights + KV cache(context) + activations
    tokens/s       = bandwidth / (weights read per token + KV cache read at half the context)

Decoding one sequence is bound by memory: each token reads every weight once
and the keys and values of all positions before it, which are half the context
on average. The estimate is what a perfect engine would reach with a model that
is larger than the processor's caches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from influence.dataclass import dataclass
from influence.models.spec import ModelSpec

if TYPE_CHECKING:
    from influence.engines.base import KvType
    from influence.models.survey import Survey

PackedFormat = Literal["packed", "q8", "q4"]

# Positions in a block of the KV cache, the step by which it grows (csrc/kv_cache.h).
KV_BLOCK = 64
# The native engine takes a long prompt in passes of at most this many tokens.
PASS_TOKENS = 512

_STORED_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
# A weight's, with its share of scales or exceptions (csrc/packed.h, packing.py); q4 has an output head of q8.
_PACKED_BITS: dict[PackedFormat, float] = {"packed": 12.2, "q8": 8.25, "q4": 4.6}

# What a model of unknown shape takes beside its weights at a context of 4096, on the safe side: keys and values are
# 4 % of the weights at 1.1 billion parameters with grouped queries, 16 % at 7 billion without; in a small model they
# can be 40 %, and activations count more.
_KV_SHARE = 0.2
_SMALLEST_REST_BYTES = 300_000_000


@dataclass(frozen=True)
class Footprint:
    """What running a model takes, in bytes, as a function of the context."""

    spec: ModelSpec
    bytes_by_dtype: Mapping[str, int]  # of the weights
    decoded_bytes: int  # weights that one decoded token reads
    kv_value_bytes: int  # of one number in the KV cache
    kv_scale_bytes: int = 0  # beside the keys of a head at a position, and beside its values

    @classmethod
    def of(cls, survey: Survey) -> Footprint:
        return cls(survey.spec, survey.bytes_by_dtype, survey.decoded_bytes, survey.kv_value_bytes)

    @property
    def weights_bytes(self) -> int:
        return sum(self.bytes_by_dtype.values())

    @property
    def kv_bytes_per_token(self) -> int:
        """One position, over all layers."""
        n_scales = 2 * self.spec.n_layers * self.spec.n_kv_heads
        return self.spec.kv_values_per_token * self.kv_value_bytes + n_scales * self.kv_scale_bytes

    @property
    def activation_bytes(self) -> int:
        return activation_bytes(self.spec)

    def kv_bytes(self, context: int) -> int:
        """The KV cache of one sequence; it grows by whole blocks."""
        return -(-context // KV_BLOCK) * KV_BLOCK * self.kv_bytes_per_token

    def total_bytes(self, context: int) -> int:
        return self.weights_bytes + self.kv_bytes(context) + self.activation_bytes

    def largest_context(self, available_bytes: int) -> int:
        """The most positions that fit, at most the model's own limit; 0 if not even one block does."""
        left = available_bytes - self.weights_bytes - self.activation_bytes
        n_blocks = max(0, left) // (KV_BLOCK * self.kv_bytes_per_token)
        return min(n_blocks * KV_BLOCK, self.spec.max_context)

    def packed(self, form: PackedFormat) -> Footprint:
        """With `--weights` packed, q8 or q4: what a token reads; the embedding is read from the file as needed."""
        if form == "packed":
            return self._without_loss()
        n_parameters = sum(n / _STORED_BYTES[dtype] for dtype, n in self.bytes_by_dtype.items())
        n_decoded = self.decoded_bytes * n_parameters / self.weights_bytes
        n_head = min(self.spec.vocab_size * self.spec.hidden_size, n_decoded)
        bits = (n_decoded - n_head) * _PACKED_BITS[form] + n_head * _PACKED_BITS["q8"]
        small = int(bits / 8)
        return replace(self, bytes_by_dtype={form: small}, decoded_bytes=small)

    def with_cache(self, kv_type: KvType) -> Footprint:
        """With `--kv-type`; what each takes says kv_bytes() in csrc/kernels/kernels.h."""
        value_bytes, scale_bytes = {"f32": (4, 0), "f16": (2, 0), "q8": (1, 4)}[kv_type]
        return replace(self, kv_value_bytes=value_bytes, kv_scale_bytes=scale_bytes)

    def _without_loss(self) -> Footprint:
        """Only bfloat16 is packed without loss; other weights stay as they are stored."""
        share = self.bytes_by_dtype.get("BF16", 0) / self.weights_bytes
        small = int(self.decoded_bytes * (1 - share * (1 - _PACKED_BITS["packed"] / 16)))
        return replace(self, bytes_by_dtype={"packed": small}, decoded_bytes=small) if share else self

    def read_bytes_per_token(self, context: int) -> int:
        """What decoding one token reads with half of the context filled; a window bounds its layer's part."""
        n_positions = sum(
            min(context // 2, window) if window is not None else context // 2
            for window in self.spec.layer_window
        )
        return self.decoded_bytes + n_positions * self.kv_bytes_per_token // self.spec.n_layers


@dataclass(frozen=True)
class Fit:
    """A footprint at one context against the memory that is there."""

    footprint: Footprint
    context: int
    available_bytes: int

    @property
    def needed_bytes(self) -> int:
        return self.footprint.total_bytes(self.context)

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.available_bytes

    @property
    def largest_context(self) -> int:
        return self.footprint.largest_context(self.available_bytes)

    @property
    def missing_bytes(self) -> int:
        """How much more memory the context needs; 0 if it fits."""
        return max(0, self.needed_bytes - self.available_bytes)

    @property
    def weights_that_fit(self) -> PackedFormat | None:
        """The `--weights` of the most bits that would fit where the stored ones don't."""
        formats: tuple[PackedFormat, ...] = ("packed", "q8", "q4")
        return next(
            (form for form in formats if replace(self, footprint=self.footprint.packed(form)).fits), None
        )

    @property
    def verdict(self) -> str:
        """ "fits", "fits with --weights packed" (or q8, q4), "fits with --context N at most" or "does not fit"."""
        if self.fits:
            return "fits"
        if self.weights_that_fit is not None:
            return f"fits with --weights {self.weights_that_fit}"
        if self.largest_context:
            return f"fits with --context {self.largest_context} at most"
        return "does not fit"


def guessed_bytes(weights_bytes: int) -> int:
    """What running a model takes, where the size of its weights is all that is known of it."""
    return weights_bytes + int(_KV_SHARE * weights_bytes) + _SMALLEST_REST_BYTES


def activation_bytes(spec: ModelSpec) -> int:
    """An upper bound of the activations and logits of one pass, in float32."""
    per_token = 6 * spec.hidden_size + 3 * spec.q_dim + 2 * spec.kv_dim + 3 * spec.intermediate_size
    return 4 * (PASS_TOKENS * per_token + spec.vocab_size)


def decode_tokens_per_s(footprint: Footprint, context: int, bytes_per_s: float) -> float:
    """The decoding speed of one sequence at a memory bandwidth, by an engine that wastes none of it."""
    return bytes_per_s / footprint.read_bytes_per_token(context)
