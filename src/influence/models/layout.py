"""How a family names its tensors: slots of the engine -> modules of the checkpoint.

    Layout(outer={"embed": "embed_tokens", ...}, layer={"q": "self_attn.q_proj", ...})

A module is a name without its ending; ".weight" and, where there is one,
".bias" are added by `binding.py`. Names of `layer` stand under
`<base><layers>.<number>.`, those of `outer` under `<base>`; the head's stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from influence.dataclass import dataclass
from influence.models.spec import ModelSpec


@dataclass(frozen=True)
class Part:
    """One of several matrices stacked by rows in one tensor.

    Stacked whole, (sum of rows, columns), or head by head, where the tensor is
    (heads, len(slots), head_dim, columns) with the first three dimensions merged.
    """

    module: str
    slots: tuple[str, ...]  # what is stacked, in order; one of them is this part's own
    by_head: bool = False


@dataclass(frozen=True)
class PerHead:
    """A norm with its own weights for each head: one tensor (heads, head_dim), or one a head if `{}` is in the name."""

    module: str


Place = str | Part | PerHead


@dataclass(frozen=True)
class Layout:
    """Where a family's checkpoint keeps each slot."""

    outer: Mapping[str, str]
    layer: Mapping[str, Place]
    tied: bool  # lm_head may be absent: it is the embedding then
    biases: frozenset[str] = frozenset()  # slots whose bias must exist; others may
    base: str = "model."  # what base-model checkpoints leave out
    layers: str = "layers"
    head: tuple[str, ...] = ("lm_head",)  # names that the head's module goes by
    # Endings of names that hold nothing to run: buffers that old transformers saved.
    ignored: tuple[str, ...] = (".rotary_emb.inv_freq",)


@dataclass(frozen=True)
class Architecture:
    """What a family makes of a config.json."""

    spec: ModelSpec
    layout: Layout


# The names of Llama, which most families share in whole or in part.
LLAMA_OUTER: Mapping[str, str] = {
    "embed": "embed_tokens",
    "final_norm": "norm",
}
LLAMA_ATTENTION: Mapping[str, Place] = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
}
LLAMA_MLP: Mapping[str, Place] = {
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
LLAMA_NORMS: Mapping[str, Place] = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
QK_NORMS: Mapping[str, Place] = {"q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm"}
POST_NORMS: Mapping[str, Place] = {
    "attn_norm": "input_layernorm",
    "attn_post_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_post_norm": "post_feedforward_layernorm",
}


def llama_layout(
    *,
    tied: bool,
    norms: Mapping[str, Place] = LLAMA_NORMS,
    qk_norms: Mapping[str, Place] | None = None,
    biases: frozenset[str] = frozenset(),
) -> Layout:
    """Llama's names, with other norms where a family has them."""
    layer = {**norms, **LLAMA_ATTENTION, **(qk_norms or {}), **LLAMA_MLP}
    return Layout(outer=LLAMA_OUTER, layer=layer, tied=tied, biases=biases)


def biases(
    *, attention: bool = False, qkv: bool = False, mlp: bool = False, plain_mlp: bool = False
) -> frozenset[str]:
    """The slots of the groups that are on."""
    groups = ((attention, "q k v o"), (qkv, "q k v"), (mlp, "gate up down"), (plain_mlp, "up down"))
    return frozenset(slot for is_on, slots in groups if is_on for slot in slots.split())
