"""The whole model on a page of numpy: the executable definition of ModelSpec, and every engine's oracle.

`models/spec.py` states the equations; `_Decoder` below is the same, line by
line. Slow and plain, in float32 or float64; nothing here is tuned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from influence.engines.base import Blocks, Step
from influence.engines.choosing import sample_row
from influence.engines.paging import BLOCK_SIZE, BlockPool, PagedEngine, PagedSession
from influence.engines.sampling import Draw, Sample
from influence.models.binding import Weights
from influence.models.rope import rope_frequencies
from influence.models.spec import Activation, ModelSpec
from influence.weights.tensor import Tensor

Array = npt.NDArray[Any]  # of the engine's dtype, float32 or float64
Slots = Mapping[str, Array]

# --- the model


class _Decoder:
    """The arithmetic. Knows no sessions: keys and values of earlier positions come through `remember`."""

    def __init__(self, spec: ModelSpec, weights: Weights, dtype: npt.DTypeLike) -> None:
        self.spec = spec
        self.dtype = np.dtype(dtype)
        self._outer = {slot: self._load(tensor) for slot, tensor in weights.outer.items()}
        self._layers = [
            {slot: self._load(tensor) for slot, tensor in layer.items()} for layer in weights.layers
        ]

    def _load(self, tensor: Tensor) -> Array:
        array = tensor.to_float32()
        return (
            array.reshape(-1, array.shape[-1]).astype(self.dtype)
            if array.ndim == 3
            else array.astype(self.dtype)
        )

    def hidden(
        self,
        token_ids: npt.NDArray[np.int64],  # (n,)
        positions: npt.NDArray[np.int64],  # (n,)
        turns: Sequence[tuple[Array, Array]],  # cos and sin of every rope, each (n, rotary_dim / 2)
        remember: Callable[[int, Array, Array], tuple[Array, Array]],
    ) -> Array:
        """What the blocks make of the tokens, (n, hidden_size).

        `remember(layer, k, v)` stores the new keys and values, (n, kv heads,
        head_dim), and gives those of all positions so far.
        """
        spec = self.spec
        x = self._outer["embed"][token_ids] * spec.embedding_scale
        for layer, w in enumerate(self._layers):
            a = self._norm(x, w, "attn_norm")
            q, k, v = (linear(a, w, slot).reshape(len(a), -1, spec.head_dim) for slot in ("q", "k", "v"))
            q, k = self._qk_norm(q, w, "q_norm"), self._qk_norm(k, w, "k_norm")
            index = spec.layer_rope[layer]
            if index is not None:
                q, k = (rotate(heads, *turns[index], spec.ropes[index].interleaved) for heads in (q, k))
            keys, values = remember(layer, k, v)
            o = linear(self._attend(q, keys, values, positions, spec.layer_window[layer]), w, "o")
            o = self._norm(o, w, "attn_post_norm")
            if not spec.parallel_block:
                x = x + spec.residual_scale * o
            f = a if spec.parallel_block and "ffn_norm" not in w else self._norm(x, w, "ffn_norm")
            m = self._norm(self._mlp(f, w), w, "ffn_post_norm")
            x = x + spec.residual_scale * (o + m if spec.parallel_block else m)
        return x

    def logits(self, x: Array) -> Array:
        """(n, hidden_size) -> (n, vocab_size)"""
        x = self._norm(x, self._outer, "final_norm")
        head = self._outer.get("lm_head", self._outer["embed"])
        logits = x @ head.T
        if "lm_head.bias" in self._outer:
            logits = logits + self._outer["lm_head.bias"]
        return softcap(logits * self.spec.logit_scale, self.spec.logit_softcap)

    def _attend(
        self,
        q: Array,  # (n, heads, head_dim)
        keys: Array,  # (positions, kv heads, head_dim)
        values: Array,
        positions: npt.NDArray[np.int64],
        window: int | None,
    ) -> Array:
        """Causal attention within the window, (n, q_dim)."""
        group = self.spec.n_heads // self.spec.n_kv_heads
        keys, values = np.repeat(keys, group, axis=1), np.repeat(values, group, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, keys) * self.spec.attention_scale
        scores = softcap(scores, self.spec.attention_softcap)
        distance = positions[:, None] - np.arange(len(keys))
        visible = (distance >= 0) & (distance < (window or len(keys)))
        scores = np.where(visible, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        attended: Array = np.einsum("hqk,khd->qhd", weights, values)
        return attended.reshape(len(q), -1)

    def _mlp(self, f: Array, w: Slots) -> Array:
        activation = ACTIVATIONS[self.spec.activation]
        if "gate" in w:
            return linear(activation(linear(f, w, "gate")) * linear(f, w, "up"), w, "down")
        return linear(activation(linear(f, w, "up")), w, "down")

    def _norm(self, x: Array, w: Slots, slot: str) -> Array:
        """The norm over the last axis, or x itself if the model has none there."""
        if slot not in w:
            return x
        if self.spec.norm == "layer":
            x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.spec.norm_eps)
        x = x * (w[slot] + self.spec.norm_offset)
        return x + w[f"{slot}.bias"] if f"{slot}.bias" in w else x

    def _qk_norm(self, heads: Array, w: Slots, slot: str) -> Array:
        """(n, heads, head_dim), each head normed alone or all together."""
        if self.spec.qk_norm == "full":
            return self._norm(heads.reshape(len(heads), -1), w, slot).reshape(heads.shape)
        return self._norm(heads, w, slot) if self.spec.qk_norm == "head" else heads


def linear(x: Array, w: Slots, slot: str) -> Array:
    """x @ W.T, plus the bias if there is one."""
    y: Array = x @ w[slot].T
    return y + w[f"{slot}.bias"] if f"{slot}.bias" in w else y


def rotate(heads: Array, cos: Array, sin: Array, interleaved: bool) -> Array:
    """Turn the leading dimensions of every head, (n, heads, head_dim), by (n, rotary_dim / 2) angles."""
    half = cos.shape[-1]
    first = slice(0, 2 * half, 2) if interleaved else slice(0, half)
    second = slice(1, 2 * half, 2) if interleaved else slice(half, 2 * half)
    cos, sin = cos[:, None, :], sin[:, None, :]
    turned = heads.copy()
    turned[..., first] = heads[..., first] * cos - heads[..., second] * sin
    turned[..., second] = heads[..., second] * cos + heads[..., first] * sin
    return turned


def softcap(x: Array, cap: float | None) -> Array:
    if cap is None:
        return x
    bent: Array = cap * np.tanh(x / cap)
    return bent


def _gelu(x: Array) -> Array:
    erf: Array = np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))
    y: Array = 0.5 * x * (1 + erf)
    return y


def _gelu_tanh(x: Array) -> Array:
    tanh: Array = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    y: Array = 0.5 * x * (1 + tanh)
    return y


ACTIVATIONS: Mapping[Activation, Callable[[Array], Array]] = {
    "silu": lambda x: x * 0.5 * (1 + np.tanh(0.5 * x)),  # x / (1 + exp(-x)) without its overflow
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
    "relu_squared": lambda x: np.maximum(x, 0) ** 2,
}


# --- sessions, engine


class ReferenceSession(PagedSession):
    """A paged session with its ropes; `paging.py` keeps the books."""

    engine: ReferenceEngine

    def __init__(self, engine: ReferenceEngine, context: int) -> None:
        super().__init__(engine, context)
        self._frequencies = [rope_frequencies(rope, context) for rope in engine.spec.ropes]

    def turns(self, positions: npt.NDArray[np.int64]) -> list[tuple[Array, Array]]:
        """cos and sin of every rope, each (n, rotary_dim / 2); angles in float32, as transformers has them."""
        pairs = []
        for frequencies, factor in self._frequencies:
            angles = (positions[:, None].astype(np.float32) * np.asarray(frequencies)).astype(
                self.engine.dtype
            )
            pairs.append((np.cos(angles) * factor, np.sin(angles) * factor))
        return pairs

    def remember(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Write keys and values, (n, kv heads, head_dim), at the position; those of all positions so far."""
        end = self.position + len(k)
        held = [self.engine.block(index) for index in self.blocks]
        for row, position in enumerate(range(self.position, end)):
            block, slot = held[position // BLOCK_SIZE], position % BLOCK_SIZE
            block[layer, 0, slot], block[layer, 1, slot] = k[row], v[row]
        kv = np.concatenate([block[layer] for block in held], axis=1)
        return kv[0, :end], kv[1, :end]


class ReferenceEngine(PagedEngine):
    """Runs any ModelSpec, slowly. `dtype` is float32 or float64; weights are copied into it."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        *,
        dtype: npt.DTypeLike = np.float32,
        kv_blocks: int | None = None,
    ) -> None:
        self.spec = spec
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.description = self.kv_identity = f"reference numpy {self.dtype}"
        self._block_shape = (spec.n_layers, 2, BLOCK_SIZE, spec.n_kv_heads, spec.head_dim)
        n_blocks = kv_blocks if kv_blocks is not None else 16 * -(-spec.max_context // BLOCK_SIZE)
        self.pool = BlockPool(n_blocks, math.prod(self._block_shape) * self.dtype.itemsize)
        self._blocks: dict[int, Array] = {}  # made when first written
        self._decoder = _Decoder(spec, weights, self.dtype)
        self._rows = np.empty((0, spec.vocab_size), self.dtype)

    def make_session(self, context: int) -> ReferenceSession:
        return ReferenceSession(self, context)

    def block(self, index: int) -> Array:
        """Keys and values of BLOCK_SIZE positions in all layers, (layers, 2, BLOCK_SIZE, kv heads, head_dim)."""
        if index not in self._blocks:
            self._blocks[index] = np.zeros(self._block_shape, self.dtype)
        return self._blocks[index]

    def copy_block(self, source: int, target: int) -> None:
        self.block(target)[:] = self.block(source)

    def read_blocks(self, blocks: Sequence[int]) -> Blocks:
        rows = [self.block(index).reshape(-1).view(np.uint8) for index in blocks]
        return np.array(rows, np.uint8).reshape(len(blocks), self.pool.block_bytes)

    def write_blocks(self, blocks: Sequence[int], rows: Blocks) -> None:
        for index, row in zip(blocks, rows, strict=True):
            self.block(index).reshape(-1)[:] = row.view(self.dtype)

    def run(self, steps: Sequence[Step]) -> int:
        rows = [self._logit_rows(step) for step in steps]
        self._rows = np.concatenate([np.empty((0, self.spec.vocab_size), self.dtype), *rows])
        return len(self._rows)

    def logits(self) -> npt.NDArray[np.float32]:
        return self._rows.astype(np.float32)

    @property
    def exact_logits(self) -> Array:
        """The rows in the engine's own dtype."""
        return self._rows

    def sample(self, draws: Sequence[Draw]) -> list[Sample]:
        rows = self.logits()
        return [sample_row(rows[draw.row], draw) for draw in draws]

    def close(self) -> None:
        self._rows = self._rows[:0]

    def _logit_rows(self, step: Step) -> Array:
        """Of one step, (n_logits, vocab_size); the cache is written, the position not yet moved."""
        session, n_tokens = step.session, len(step.token_ids)
        if not isinstance(session, ReferenceSession):
            raise TypeError(session)  # `forward` has checked it
        positions = np.arange(session.position, session.position + n_tokens)
        x = self._decoder.hidden(
            np.array(step.token_ids, np.int64), positions, session.turns(positions), session.remember
        )
        return self._decoder.logits(x[n_tokens - step.n_logits :])
