"""Models that no family makes: any ModelSpec, with random weights, straight from memory.

They reach every field of the spec, also in combinations that no released model
has, so that engines are compared on what the spec says and not on what the
families happen to use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from influence.models.binding import Weights
from influence.models.spec import ModelSpec, Rope, RopeScaling
from influence.weights.tensor import NUMPY_DTYPES, DType, Tensor
from support.bfloat16 import to_bfloat16
from support.tensors import tensor_of


@dataclass(frozen=True)
class Extras:
    """What the checkpoint decides, not the spec: which tensors exist."""

    attn_norm: bool = True
    ffn_norm: bool = True
    post_norms: bool = False
    biases: bool = False
    tied: bool = False
    grouped_qkv: bool = False  # q, k, v lie interleaved in one tensor, as in GPT-NeoX
    dtype: DType = "F32"


def rounded(values: np.ndarray, dtype: DType) -> np.ndarray:
    """float32 values as they would lie in a file of that dtype (bfloat16: its bits)."""
    if dtype == "BF16":
        return to_bfloat16(values)
    return values.astype(NUMPY_DTYPES[dtype])


class _Maker:
    def __init__(self, spec: ModelSpec, extras: Extras, seed: int) -> None:
        self.spec, self.extras = spec, extras
        self.random = np.random.default_rng(seed)

    def tensor(self, name: str, *shape: int, scale: float = 1.0, centre: float = 0.0) -> Tensor:
        values = centre + scale * self.random.standard_normal(shape, dtype=np.float32)
        return tensor_of(name, self.extras.dtype, rounded(values, self.extras.dtype))

    def matrix(self, name: str, rows: int, cols: int) -> Tensor:
        return self.tensor(name, rows, cols, scale=cols**-0.5)

    def norm(self, slots: dict[str, Tensor], slot: str, *shape: int) -> None:
        slots[slot] = self.tensor(slot, *shape, scale=0.2, centre=1.0 - self.spec.norm_offset)
        if self.spec.norm == "layer":
            slots[f"{slot}.bias"] = self.tensor(f"{slot}.bias", *shape, scale=0.2)

    def linear(self, slots: dict[str, Tensor], slot: str, rows: int, cols: int) -> None:
        slots[slot] = self.matrix(slot, rows, cols)
        if self.extras.biases:
            slots[f"{slot}.bias"] = self.tensor(f"{slot}.bias", rows, scale=0.2)

    def qkv(self, slots: dict[str, Tensor]) -> None:
        spec = self.spec
        if self.extras.grouped_qkv and spec.n_heads == spec.n_kv_heads:
            fused = self.matrix("qkv", 3 * spec.q_dim, spec.hidden_size)
            for i, slot in enumerate("qkv"):
                slots[slot] = fused.part(i, 3, spec.head_dim)
            return
        self.linear(slots, "q", spec.q_dim, spec.hidden_size)
        self.linear(slots, "k", spec.kv_dim, spec.hidden_size)
        self.linear(slots, "v", spec.kv_dim, spec.hidden_size)

    def layer(self) -> dict[str, Tensor]:
        spec, extras, slots = self.spec, self.extras, dict[str, Tensor]()
        if extras.attn_norm:
            self.norm(slots, "attn_norm", spec.hidden_size)
        if extras.ffn_norm:
            self.norm(slots, "ffn_norm", spec.hidden_size)
        if extras.post_norms:
            self.norm(slots, "attn_post_norm", spec.hidden_size)
            self.norm(slots, "ffn_post_norm", spec.hidden_size)
        if spec.qk_norm == "head":
            self.norm(slots, "q_norm", spec.head_dim)
            self.norm(slots, "k_norm", spec.n_kv_heads, spec.head_dim)
        elif spec.qk_norm == "full":
            self.norm(slots, "q_norm", spec.q_dim)
            self.norm(slots, "k_norm", spec.kv_dim)
        self.qkv(slots)
        self.linear(slots, "o", spec.hidden_size, spec.q_dim)
        if spec.gated_mlp:
            self.linear(slots, "gate", spec.intermediate_size, spec.hidden_size)
        self.linear(slots, "up", spec.intermediate_size, spec.hidden_size)
        self.linear(slots, "down", spec.hidden_size, spec.intermediate_size)
        return slots

    def weights(self) -> Weights:
        spec, outer = self.spec, dict[str, Tensor]()
        outer["embed"] = self.tensor("embed", spec.vocab_size, spec.hidden_size)
        self.norm(outer, "final_norm", spec.hidden_size)
        if not self.extras.tied:
            self.linear(outer, "lm_head", spec.vocab_size, spec.hidden_size)
        return Weights(outer=outer, layers=tuple(self.layer() for _ in range(spec.n_layers)))


def random_weights(spec: ModelSpec, extras: Extras = Extras(), seed: int = 0) -> Weights:
    """Weights of the spec's shapes whose activations stay of size one."""
    return _Maker(spec, extras, seed).weights()


def small_spec(**changes: Any) -> ModelSpec:
    """A plain two-layer spec; keyword arguments replace its fields."""
    fields: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 24,
        "intermediate_size": 40,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 8,
        "max_context": 512,
        "norm": "rms",
        "norm_eps": 1e-5,
        "activation": "silu",
        "gated_mlp": True,
        "attention_scale": 8**-0.5,
        "ropes": (Rope(10000.0, 8),),
    }
    fields.update(changes)
    n_layers = fields["n_layers"]
    fields.setdefault("layer_rope", (0,) * n_layers)
    fields.setdefault("layer_window", (None,) * n_layers)
    return ModelSpec(**fields)


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """Any small ModelSpec, odd sizes included."""
    n_layers = draw(st.integers(1, 3))
    n_kv_heads = draw(st.sampled_from([1, 2, 3]))
    head_dim = draw(st.sampled_from([2, 6, 8, 16, 20]))
    rotary = st.sampled_from([d for d in (2, 4, head_dim) if d <= head_dim])
    ropes = tuple(
        Rope(draw(st.sampled_from([1e2, 1e4])), draw(rotary), draw(st.booleans()), scaling)
        for scaling in (RopeScaling(), RopeScaling("linear", factor=2.0))
    )
    per_layer = {"min_size": n_layers, "max_size": n_layers}
    return small_spec(
        vocab_size=draw(st.integers(2, 70)),
        hidden_size=draw(st.integers(1, 40)),
        intermediate_size=draw(st.integers(1, 50)),
        n_layers=n_layers,
        n_heads=n_kv_heads * draw(st.sampled_from([1, 2, 4, 17])),
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        norm=draw(st.sampled_from(["rms", "layer"])),
        norm_offset=draw(st.sampled_from([0.0, 1.0])),
        activation=draw(st.sampled_from(["silu", "gelu", "gelu_tanh", "relu", "relu_squared"])),
        gated_mlp=draw(st.booleans()),
        attention_scale=head_dim**-0.5,
        ropes=ropes,
        layer_rope=tuple(draw(st.lists(st.sampled_from([None, 0, 1]), **per_layer))),
        layer_window=tuple(draw(st.lists(st.sampled_from([None, 1, 3, 40]), **per_layer))),
        parallel_block=draw(st.booleans()),
        qk_norm=draw(st.sampled_from(["none", "head", "full"])),
        attention_softcap=draw(st.sampled_from([None, 5.0])),
        logit_softcap=draw(st.sampled_from([None, 3.0])),
        embedding_scale=draw(st.sampled_from([1.0, 3.0])),
        residual_scale=draw(st.sampled_from([1.0, 0.3])),
        logit_scale=draw(st.sampled_from([1.0, 0.25])),
    )


@st.composite
def extras(draw: st.DrawFn, dtypes: tuple[DType, ...] = ("F32",)) -> Extras:
    """Any choice of optional tensors."""
    flags = {
        name: draw(st.booleans())
        for name in ("attn_norm", "ffn_norm", "post_norms", "biases", "tied", "grouped_qkv")
    }
    return Extras(**flags, dtype=draw(st.sampled_from(dtypes)))
