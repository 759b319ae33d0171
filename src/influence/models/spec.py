"""What a decoder-only transformer computes, as numbers: the one description every engine runs.

A field means arithmetic, never origin. What the checkpoint itself shows is no
field: a bias, a post-norm, a separate second norm of a parallel block, or an
untied head exists if its tensor was bound (`models/binding.py`).

One block, for x of shape (n_tokens, hidden_size):

    a = norm(x, attn_norm)                       if slot attn_norm exists, else x
    q, k, v = a @ q.T, a @ k.T, a @ v.T          plus biases that exist
    q, k = qk_norm(q), qk_norm(k)                by `qk_norm`
    q, k = rope(q), rope(k)                      by `layer_rope` and `ropes`
    s = softcap(q @ k.T * attention_scale, attention_softcap)   causal, within the layer's window
    o = (softmax(s) @ v) @ o.T                   plus bias
    o = norm(o, attn_post_norm)                  if the slot exists
    sequential: x = x + residual_scale * o
                f = norm(x, ffn_norm)            if the slot exists, else x
    parallel:   f = norm(x, ffn_norm)            if the slot exists, else a
    m = down(act(gate(f)) * up(f))               or down(act(up(f))) where slot gate is absent
    m = norm(m, ffn_post_norm)                   if the slot exists
    sequential: x = x + residual_scale * m
    parallel:   x = x + residual_scale * (o + m)

Before the first block x = embed[token] * embedding_scale; after the last,
logits = softcap((norm(x, final_norm) @ lm_head.T + bias) * logit_scale, logit_softcap).
"""

from __future__ import annotations

from typing import Literal

from influence.dataclass import dataclass

NormKind = Literal["rms", "layer"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"]
# "head": each head's vector alone, weight (head_dim,) or (heads, head_dim);
# "full": the whole projection before it is cut into heads, weight (q_dim,) / (kv_dim,).
QkNorm = Literal["none", "head", "full"]
RopeScalingKind = Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"]


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched; `models/rope.py` turns it into numbers.

    Fields that a kind does not use keep their defaults. Follows
    transformers' modeling_rope_utils.py.
    """

    kind: RopeScalingKind = "default"
    factor: float = 1.0
    original_max_context: int = 0  # positions trained on, before stretching
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    mscale: float = 0.0  # yarn
    mscale_all_dim: float = 0.0  # yarn
    truncate: bool = True  # yarn
    attention_factor: float | None = None  # yarn, longrope; None: by the paper's formula
    short_factor: tuple[float, ...] = ()  # longrope, (rotary_dim / 2,)
    long_factor: tuple[float, ...] = ()  # longrope, (rotary_dim / 2,)


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al., arXiv 2104.09864)."""

    theta: float
    rotary_dim: int  # leading dimensions of a head that turn; even, at most head_dim
    interleaved: bool = False  # pairs are (2i, 2i + 1); else (i, i + rotary_dim / 2)
    scaling: RopeScaling = RopeScaling()

    @property
    def depends_on_context(self) -> bool:
        """Whether the frequencies differ between sessions of different context."""
        return self.scaling.kind in ("dynamic", "longrope")


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer. Immutable; knows no files, names or dtypes."""

    vocab_size: int  # rows of the embedding
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int  # divides n_heads
    head_dim: int
    max_context: int  # positions the model was made for

    norm: NormKind
    norm_eps: float
    activation: Activation
    gated_mlp: bool
    attention_scale: float

    ropes: tuple[Rope, ...]  # the distinct ones
    layer_rope: tuple[int | None, ...]  # per layer: index into `ropes`, None: no rope
    layer_window: tuple[
        int | None, ...
    ]  # per layer: a query sees this many positions, itself included; None: all

    norm_offset: float = 0.0  # norms multiply by (weight + norm_offset)
    parallel_block: bool = False
    qk_norm: QkNorm = "none"
    attention_softcap: float | None = None  # c * tanh(s / c)
    logit_softcap: float | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0

    @property
    def q_dim(self) -> int:
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        return self.n_kv_heads * self.head_dim

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that one position keeps in the KV cache, over all layers."""
        return 2 * self.n_layers * self.kv_dim

    @property
    def rope_depends_on_context(self) -> bool:
        return any(rope.depends_on_context for rope in self.ropes)
