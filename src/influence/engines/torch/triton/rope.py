"""Norm and turn q and k, and put k and v into the paged cache: what follows a stacked projection of several tokens.

    q, k = norm(q), norm(k)                             each head alone, or all together
    x[first] = x[first] cos - x[second] sin             pairs (i, i + rotary_dim / 2), or (2i, 2i + 1)
    x[second] = x[second] cos + x[first] sin            dimensions past rotary_dim stay

Shapes: qkv (n, q_dim + 2 kv_dim); q (n, n_heads, head_dim); cache (2, slots, n_kv_heads, head_dim).

Bytes moved: each number once in, the partner of a pair again out of L1, once
out. A program has one head of one token, some hundred numbers: launch and
latency are all it costs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from influence.engines.torch.triton.activations import load_activations, row_statistics


class HeadSizes(NamedTuple):
    """How a stacked projection is cut, and how heads turn."""

    N_HEADS: Any
    N_KV_HEADS: Any
    HEAD_DIM: Any
    HALF: Any  # rotary_dim / 2; 0: no rope
    INTERLEAVED: Any


@triton.jit
def rope_and_store_kernel(
    qkv_ptr,
    cos_ptr,  # (n, HALF) float32
    sin_ptr,
    q_norm,  # NormArguments
    k_norm,
    q_ptr,
    kv_ptr,
    slots_ptr,  # (n,) int64
    n_slots,
    sizes,  # HeadSizes
    PADDED_DIM: tl.constexpr,  # the next power of two
    NORMS_ALL: tl.constexpr,  # a norm takes all heads together
    Q_OWN_WEIGHTS: tl.constexpr,  # each head has norm weights of its own
    K_OWN_WEIGHTS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Grid: (n, heads of q, k and v)."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    width: tl.constexpr = (sizes.N_HEADS + 2 * sizes.N_KV_HEADS) * sizes.HEAD_DIM
    row_ptr = qkv_ptr + token * width
    d = tl.arange(0, PADDED_DIM)
    mask = d < sizes.HEAD_DIM
    if head < sizes.N_HEADS:
        x = _turned_head(
            row_ptr, head, sizes.N_HEADS, q_norm, cos_ptr, sin_ptr, token, sizes, PADDED_DIM, NORMS_ALL, Q_OWN_WEIGHTS
        )  # fmt: skip
        to_q = q_ptr + (token * sizes.N_HEADS + head) * sizes.HEAD_DIM + d
        tl.store(to_q, x.to(q_ptr.dtype.element_ty), mask)
    else:
        head -= sizes.N_HEADS
        at = kv_ptr + cache_offset(head, tl.load(slots_ptr + token), n_slots, sizes) + d
        k_ptr = row_ptr + sizes.N_HEADS * sizes.HEAD_DIM
        if head < sizes.N_KV_HEADS:
            x = _turned_head(
                k_ptr, head, sizes.N_KV_HEADS, k_norm, cos_ptr, sin_ptr, token, sizes, PADDED_DIM, NORMS_ALL, K_OWN_WEIGHTS
            )  # fmt: skip
            tl.store(at, x.to(kv_ptr.dtype.element_ty), mask)
        else:
            v = tl.load(k_ptr + head * sizes.HEAD_DIM + d, mask, other=0)
            tl.store(at, v.to(kv_ptr.dtype.element_ty), mask)


@triton.jit
def cache_offset(head, slot, n_slots, sizes):
    """Where a head's numbers begin in the cache of a layer; `head` counts k's, then v's."""
    which = head // sizes.N_KV_HEADS
    place = (which * n_slots.to(tl.int64) + slot) * sizes.N_KV_HEADS + head % sizes.N_KV_HEADS
    return place * sizes.HEAD_DIM


@triton.jit
def _turned_head(
    heads_ptr,  # (N, HEAD_DIM): all of q's, or of k's, of one token
    head,
    N: tl.constexpr,
    norm,
    cos_ptr,
    sin_ptr,
    token,
    sizes,
    PADDED_DIM: tl.constexpr,
    NORMS_ALL: tl.constexpr,
    OWN_WEIGHTS: tl.constexpr,
):
    """One head normed and turned, (PADDED_DIM,) float32."""
    shift = head * sizes.HEAD_DIM
    if NORMS_ALL:
        statistics = row_statistics(heads_ptr, N * sizes.HEAD_DIM, norm)
    else:
        statistics = row_statistics(heads_ptr + shift, sizes.HEAD_DIM, norm)
    if not OWN_WEIGHTS:  # the same column of x and of the weights
        heads_ptr += shift
        shift = 0
    d = tl.arange(0, PADDED_DIM)
    x = load_activations(heads_ptr, norm, statistics, shift + d, d < sizes.HEAD_DIM, tl.float32)
    if sizes.HALF > 0:
        angle, partner, sign = _pair_of(d, sizes)
        turns = d < 2 * sizes.HALF
        other = load_activations(heads_ptr, norm, statistics, shift + partner, turns, tl.float32)
        cos = tl.load(cos_ptr + token * sizes.HALF + angle, turns, other=1)
        sin = tl.load(sin_ptr + token * sizes.HALF + angle, turns, other=0)
        x = x * cos + sign * other * sin
    return x


@triton.jit
def _pair_of(d, sizes):
    """Of each dimension: which angle turns it, its partner, and the sign of the partner's sine."""
    if sizes.INTERLEAVED:
        return d // 2, d ^ 1, tl.where(d % 2 == 0, -1.0, 1.0)
    else:
        is_first = d < sizes.HALF
        angle = tl.where(is_first, d, d - sizes.HALF)
        partner = tl.where(is_first, d + sizes.HALF, d - sizes.HALF)
        return angle, partner, tl.where(is_first, -1.0, 1.0)


@triton.jit
def dimensions_of_pair(pair, sizes):
    """The two dimensions of its head that a pair joins; pairs that do not turn take those past rotary_dim."""
    p = pair % (sizes.HEAD_DIM // 2)
    if sizes.INTERLEAVED:
        return 2 * p, 2 * p + 1
    else:
        rest: tl.constexpr = sizes.HEAD_DIM // 2 - sizes.HALF
        past = p - sizes.HALF
        first = tl.where(past < 0, p, 2 * sizes.HALF + past)
        return first, first + tl.where(past < 0, sizes.HALF, rest)


@triton.jit
def turned_pair(a, b, p, head, cos_ptr, sin_ptr, sizes):
    """Pair `p` of a head turned by its angle, if the head is one of q's or k's."""
    if sizes.HALF > 0:
        turns = (p < sizes.HALF) & (head < sizes.N_HEADS + sizes.N_KV_HEADS)
        cos = tl.load(cos_ptr + p, turns, other=1)
        sin = tl.load(sin_ptr + p, turns, other=0)
        return a * cos - b * sin, b * cos + a * sin
    else:
        return a, b
