"""The steps of a block in plain PyTorch: what each fused kernel computes, its oracle and its fall-back.

The decoder takes an `Ops` and never asks which: PLAIN runs on any device, and
kernels written for one replace its entries. Sums, norms, rope and softmax are
float32 whatever the dtype of what comes in; the activations that meet a matrix
have the dtype of its weights. A residual keeps its own.

Shapes: n tokens of all sequences of a batch, one after another. The KV cache
of a layer is one tensor (2, n_blocks, BLOCK_SIZE, n_kv_heads, head_dim): keys,
then values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from influence.engines.paging import BLOCK_SIZE as BLOCK_SIZE
from influence.engines.torch.adjusting import adjusted
from influence.engines.torch.choosing import pick
from influence.engines.torch.matrices import Heads, Linear, Matrix, Norm, dense
from influence.models.spec import Activation, Rope
from torch import Tensor
from torch.nn import functional

# Rows of a matrix that are widened to float32 at a time, where no product gives float32 by itself.
_WIDE_ROWS = 4096


def mean(x: Tensor) -> Tensor:
    """Over the last axis, (..., size) -> (..., 1)."""
    return x.mean(dim=-1, keepdim=True)


def normed(x: Tensor, norm: Norm | None, mean: Callable[[Tensor], Tensor] = mean) -> Tensor:
    """The norm over the last axis, in float32; x itself where there is none. (..., size) -> (..., size)"""
    if norm is None:
        return x
    y = x.float()
    if norm.kind == "layer":
        y = y - mean(y)
    y = y * torch.rsqrt(mean(y.square()) + norm.eps) * (norm.weight + norm.offset)
    return y if norm.bias is None else y + norm.bias


def embedded(embed: Tensor, token_ids: Tensor, scale: float) -> Tensor:
    """The tokens' rows of (vocab_size, hidden_size), times a scale; (n, hidden_size) float32."""
    return embed[token_ids].float() * scale


def turns(positions: Tensor, frequencies: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """cos and sin, each (n, rotary_dim / 2), times a factor; angles in float32, as transformers has them.

    `frequencies`: (rotary_dim / 2,), or (n, rotary_dim / 2).
    """
    angles = positions.float().unsqueeze(1) * frequencies
    return angles.cos() * factor, angles.sin() * factor


def places(tables: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Where one token of each sequence goes, (n,) int64 as `rope_and_store` takes it, and its length with it, (n,) int32."""
    blocks = tables.gather(1, (positions // BLOCK_SIZE).unsqueeze(1)).squeeze(1).long()
    return blocks * BLOCK_SIZE + positions % BLOCK_SIZE, (positions + 1).int()


def gemv(x: Tensor, weight: Matrix, out_dtype: torch.dtype | None = None) -> Tensor:
    """x @ weight.T for any format of the weight. (n, in) of the weight's dtype -> (n, out) of `out_dtype` or that."""
    plain = dense(weight)
    if out_dtype is None or out_dtype == plain.dtype:
        return x @ plain.T
    if x.is_cuda:
        return torch.mm(x, plain.T, out_dtype=out_dtype)
    wide = x.to(out_dtype)
    return torch.cat([wide @ rows.to(out_dtype).T for rows in plain.split(_WIDE_ROWS)], dim=1)


def norm_linear(
    x: Tensor,  # (n, in), any dtype
    norm: Norm | None,
    weights: Linear,  # (out, in): q, k, v or gate, up stacked
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """norm(x) @ weight.T + bias, (n, out) of the weight's dtype or `out_dtype`."""
    y = gemv(normed(x, norm).to(weights.weight.dtype), weights.weight, out_dtype)
    return y if weights.bias is None else y + weights.bias.to(y.dtype)


def rope_and_store(
    qkv: Tensor,  # (n, q_dim + 2 * kv_dim)
    cos: Tensor | None,  # (n, rotary_dim / 2) float32, the rope's factor in it; None: no rope
    sin: Tensor | None,
    rope: Rope | None,  # says how the pairs lie
    kv: Tensor,  # of this layer; written to
    slots: Tensor,  # (n,) int64: block * BLOCK_SIZE + offset of each token
    heads: Heads,
    q_norm: Norm | None = None,
    k_norm: Norm | None = None,
) -> Tensor:
    """Norm and turn q and k, store k and v in the cache; q, (n, n_heads, head_dim)."""
    q_dim, kv_dim = heads.n_heads * heads.head_dim, heads.n_kv_heads * heads.head_dim
    q, k, v = qkv.split([q_dim, kv_dim, kv_dim], dim=-1)
    q, k = _head_norm(q, q_norm, heads), _head_norm(k, k_norm, heads)
    if rope is not None and cos is not None and sin is not None:
        q, k = turned(q, cos, sin, rope.interleaved), turned(k, cos, sin, rope.interleaved)
    places = kv.view(2, -1, heads.n_kv_heads, heads.head_dim)
    places[0].index_copy_(0, slots, k.to(kv.dtype))
    places[1].index_copy_(0, slots, v.reshape(k.shape).to(kv.dtype))
    return q.to(qkv.dtype)


def _head_norm(x: Tensor, norm: Norm | None, heads: Heads) -> Tensor:
    """(n, heads * head_dim) -> (n, heads, head_dim) float32, each head normed alone or all together."""
    whole = normed(x, norm) if heads.qk_norm == "full" else x
    cut = whole.reshape(len(x), -1, heads.head_dim)
    return (normed(cut, norm) if heads.qk_norm == "head" else cut).float()


def turned(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Turn the leading dimensions of every head, (n, heads, head_dim), by (n, rotary_dim / 2) angles."""
    half = cos.shape[-1]
    first, second, rest = (
        (x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2], x[..., 2 * half :])
        if interleaved
        else (x[..., :half], x[..., half : 2 * half], x[..., 2 * half :])
    )
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    pair = first * cos - second * sin, second * cos + first * sin
    both = torch.stack(pair, dim=-1).flatten(-2) if interleaved else torch.cat(pair, dim=-1)
    return torch.cat([both, rest], dim=-1)


def project_heads(
    x: Tensor,  # (n, in), any dtype
    norm: Norm | None,
    weights: Linear,  # q, k, v stacked
    cos: Tensor | None,
    sin: Tensor | None,
    rope: Rope | None,
    kv: Tensor,
    slots: Tensor,
    heads: Heads,
    q_norm: Norm | None = None,
    k_norm: Norm | None = None,
) -> Tensor:
    """`norm_linear`, then `rope_and_store`: q, (n, n_heads, head_dim); k and v are in the cache."""
    qkv = norm_linear(x, norm, weights)
    return rope_and_store(qkv, cos, sin, rope, kv, slots, heads, q_norm, k_norm)


def paged_attention(
    q: Tensor,  # (n, n_heads, head_dim)
    kv: Tensor,  # of this layer
    block_tables: Tensor,  # (n_sequences, max_blocks) int32; beyond a sequence's blocks: anything valid
    query_starts: Tensor,  # (n_sequences + 1,) int32: sequence s has the rows [starts[s], starts[s + 1]) of q
    context_lengths: Tensor,  # (n_sequences,) int32: positions in the cache, those of q included
    scale: float,
    window: int | None = None,  # a query sees this many positions, itself included
    softcap: float | None = None,
) -> Tensor:
    """Causal attention of each sequence's newest positions over its cache, (n, n_heads, head_dim).

    Sequences have one query or more, in any mix. With one each, nothing is
    read back from the device.
    """
    if len(q) == len(block_tables):
        return _attend_one_each(q, kv, block_tables, context_lengths, scale, window, softcap)
    bounds, lengths = query_starts.tolist(), context_lengths.tolist()
    out = torch.empty_like(q)
    for table, begin, end, length in zip(block_tables, bounds, bounds[1:], lengths, strict=False):
        k, v = kv[:, table[: -(-length // BLOCK_SIZE)].long()].flatten(1, 2)[:, :length]
        positions = torch.arange(length - (end - begin), length, device=q.device)
        seen = visible(positions, length, window)
        out[begin:end] = attend(
            q[begin:end].unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), seen, scale, softcap
        )
    return out


def _attend_one_each(
    q: Tensor,
    kv: Tensor,
    block_tables: Tensor,
    context_lengths: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    held = kv[:, block_tables.long()].flatten(2, 3)  # (2, n_sequences, positions, n_kv_heads, head_dim)
    seen = visible(context_lengths.long() - 1, held.shape[2], window)  # (n_sequences, positions)
    # What others left in a block may be no number, which no weight of zero takes away.
    k, v = held.masked_fill(~seen[None, :, :, None, None], 0)
    return attend(q.unsqueeze(1), k, v, seen[:, None, None, :], scale, softcap).squeeze(1)


def visible(positions: Tensor, n_keys: int, window: int | None) -> Tensor:
    """Which keys a query at each position sees, (n, n_keys) bool."""
    distance = positions.unsqueeze(1) - torch.arange(n_keys, device=positions.device)
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def attend(
    q: Tensor,  # (batch, n, n_heads, head_dim)
    k: Tensor,  # (batch, positions, n_kv_heads, head_dim)
    v: Tensor,
    seen: Tensor,  # bool, broadcasts to (batch, heads, n, positions)
    scale: float,
    softcap: float | None,
) -> Tensor:
    """softmax(softcap(q k scale)) v over what is seen; query heads share k and v by groups. As q."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2).to(q.dtype), v.transpose(1, 2).to(q.dtype)
    if softcap is None:
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)
        return out.transpose(1, 2)
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1).float(), v.repeat_interleave(group, dim=1).float()
    scores = softcapped((q.float() @ k.mT) * scale, softcap)
    weights = scores.masked_fill(~seen, -math.inf).softmax(dim=-1)
    return (weights @ v).to(q.dtype).transpose(1, 2)


def softcapped(x: Tensor, cap: float | None) -> Tensor:
    return x if cap is None else cap * torch.tanh(x / cap)


def linear_residual(
    x: Tensor,  # (n, in)
    weight: Matrix,  # (out, in)
    bias: Tensor | None,  # (out,)
    residual: Tensor | None,  # (n, out)
    residual_scale: float = 1.0,
) -> Tensor:
    """residual + residual_scale * (x @ weight.T + bias), (n, out) of the residual's dtype; without one: the product."""
    y = norm_linear(x, None, Linear(weight, bias))
    return y if residual is None else torch.add(residual, y.to(residual.dtype), alpha=residual_scale)


def activate(gate_up: Tensor, activation: Activation, gated: bool) -> Tensor:
    """act(gate) * up of (n, 2 * intermediate), or act(up) of (n, intermediate); (n, intermediate)."""
    if not gated:
        return ACTIVATIONS[activation](gate_up.float()).to(gate_up.dtype)
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (ACTIVATIONS[activation](gate) * up).to(gate_up.dtype)


def gate_up(
    x: Tensor,  # (n, in), any dtype
    norm: Norm | None,
    weights: Linear,  # gate, up stacked; or up alone
    activation: Activation,
    gated: bool,
) -> Tensor:
    """`norm_linear`, then `activate`: (n, intermediate) of the weight's dtype."""
    return activate(norm_linear(x, norm, weights), activation, gated)


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "relu_squared": lambda x: functional.relu(x).square(),
}


@dataclass(frozen=True, slots=True)
class Ops:
    """One function for each step; `dataclasses.replace` puts kernels in the place of some."""

    name: str = "plain"  # for people
    # Whether attention costs by the blocks that sequences hold, and not by the tables' width.
    reads_used_blocks: bool = False
    norm_linear: Callable[..., Tensor] = norm_linear
    project_heads: Callable[..., Tensor] = project_heads
    rope_and_store: Callable[..., Tensor] = rope_and_store
    paged_attention: Callable[..., Tensor] = paged_attention
    linear_residual: Callable[..., Tensor] = linear_residual
    gate_up: Callable[..., Tensor] = gate_up
    normed: Callable[..., Tensor] = normed
    embedded: Callable[..., Tensor] = embedded
    turns: Callable[..., tuple[Tensor, Tensor]] = turns
    places: Callable[..., tuple[Tensor, Tensor]] = places
    pick: Callable[..., Tensor] = pick
    adjusted: Callable[..., Tensor] = adjusted


PLAIN = Ops()
