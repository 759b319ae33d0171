"""Attention's kernels over tensors: what comes before it, and itself."""

from __future__ import annotations

import triton
import triton.language as tl

import torch
from influence.engines.paging import BLOCK_SIZE
from influence.engines.torch.matrices import Heads, Linear, Norm
from influence.engines.torch.triton import attention, gemv, launch, operands, rope
from influence.models.spec import Rope
from torch import Tensor

# Programs of attention for each multiprocessor: each has two tiles of keys and values in flight.
PROGRAMS_PER_MULTIPROCESSOR = 2
MAX_SPLITS = 64  # of one sequence alone, so that four kv heads fill the GPU
# Even where sequences fill it, so that a long one among short ones keeps to a quarter of its time; parts
# without work cost the start of a program each.
LEAST_SPLITS = 4

_LEAST_ROWS = 16  # that a tensor core takes
_CHUNK_ROWS = 64


def rope_and_store(
    qkv: Tensor,  # (n, q_dim + 2 * kv_dim)
    cos: Tensor | None,  # (n, rotary_dim / 2) float32
    sin: Tensor | None,
    turn: Rope | None,
    kv: Tensor,  # (2, n_blocks, BLOCK_SIZE, n_kv_heads, head_dim): written to
    slots: Tensor,  # (n,) int64
    heads: Heads,
    q_norm: Norm | None = None,
    k_norm: Norm | None = None,
) -> Tensor:
    """q, (n, n_heads, head_dim), normed and turned; k and v are in the cache."""
    q = torch.empty((len(qkv), heads.n_heads, heads.head_dim), dtype=qkv.dtype, device=qkv.device)
    rope.rope_and_store_kernel[(len(qkv), heads.n_heads + 2 * heads.n_kv_heads)](
        qkv,
        cos,
        sin,
        operands.norm(q_norm),
        operands.norm(k_norm),
        q,
        kv,
        slots,
        kv.shape[1] * BLOCK_SIZE,
        head_sizes(heads, cos, turn),
        triton.next_power_of_2(heads.head_dim),
        heads.qk_norm == "full",
        *(norm is not None and norm.weight.numel() > heads.head_dim for norm in (q_norm, k_norm)),
        launch.overlaps(qkv.device),
        **launch.options(qkv.device, n_warps=1),
    )
    return q


def project_row(
    x: Tensor,  # (1, in)
    norm: Norm | None,
    weights: Linear,  # q, k, v stacked
    cos: Tensor | None,  # (1, rotary_dim / 2) float32
    sin: Tensor | None,
    turn: Rope | None,
    kv: Tensor,  # written to
    slots: Tensor,  # (1,) int64
    heads: Heads,  # without a norm of q and k
) -> Tensor:
    """q, (1, n_heads, head_dim), turned; k and v are in the cache: norm, projection and rope as one kernel."""
    matrix = operands.weights(weights.weight)
    grid, work = operands.work(matrix, x.device)
    q = torch.empty((1, heads.n_heads, heads.head_dim), dtype=weights.weight.dtype, device=x.device)
    gemv.heads_kernel[grid](
        x, operands.norm(norm), matrix, weights.bias, cos, sin, q, kv, slots, kv.shape[1] * BLOCK_SIZE,
        head_sizes(heads, cos, turn), work, **launch.options(x.device),
    )  # fmt: skip
    return q


def head_sizes(heads: Heads, cos: Tensor | None, turn: Rope | None) -> rope.HeadSizes:
    """As kernels take them."""
    half = 0 if cos is None or turn is None else cos.shape[-1]
    interleaved = turn is not None and turn.interleaved
    sizes = heads.n_heads, heads.n_kv_heads, heads.head_dim, half, interleaved
    return rope.HeadSizes(*map(tl.constexpr, sizes))


def paged_attention(
    q: Tensor,  # (n, n_heads, head_dim)
    kv: Tensor,  # (2, n_blocks, BLOCK_SIZE, n_kv_heads, head_dim)
    block_tables: Tensor,  # (n_sequences, max_blocks) int32
    query_starts: Tensor,  # (n_sequences + 1,) int32
    context_lengths: Tensor,  # (n_sequences,) int32
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Causal attention of each sequence's newest positions over its cache, as q."""
    n, n_heads, head_dim = q.shape
    n_sequences = len(block_tables)
    shape, grid = _shape(q, kv, n_sequences, window)
    n_splits = grid[2]
    parts = logsums = None
    if n_splits > 1:
        parts = torch.empty((n_splits, n, n_heads, head_dim), dtype=torch.float32, device=q.device)
        logsums = torch.empty((n_splits, n, n_heads), dtype=torch.float32, device=q.device)
    o = torch.empty_like(q)
    sequences = attention.Sequences(
        block_tables, query_starts, context_lengths, n_sequences, block_tables.shape[1],
        tl.constexpr(n == n_sequences),
    )  # fmt: skip
    attention.attention_kernel[grid](
        q, kv, sequences, o, parts, logsums, launch.arrivals(q.device), n, kv.shape[1] * BLOCK_SIZE,
        scale, softcap, shape, **launch.options(q.device),
    )  # fmt: skip
    return o


def _shape(
    q: Tensor, kv: Tensor, n_sequences: int, window: int | None
) -> tuple[attention.Shape, tuple[int, int, int]]:
    """What the kernel is compiled for, and its grid: by shapes alone, for lengths are the device's."""
    n, n_heads, head_dim = q.shape
    n_kv_heads = kv.shape[3]
    group = triton.next_power_of_2(n_heads // n_kv_heads)
    rows = max(group, _LEAST_ROWS if n == n_sequences else _CHUNK_ROWS)
    n_tiles = n if n == n_sequences else n // (rows // group) + n_sequences
    wanted = PROGRAMS_PER_MULTIPROCESSOR * launch.multiprocessors(q.device)
    least = LEAST_SPLITS if n == n_sequences else 1
    n_splits = max(least, min(wanted // (n_tiles * n_kv_heads), MAX_SPLITS))
    sizes = (
        n_heads, n_kv_heads, head_dim, max(16, triton.next_power_of_2(head_dim)), group, BLOCK_SIZE, rows,
        n_splits, window or 0, launch.overlaps(q.device),
    )  # fmt: skip
    return attention.Shape(*map(tl.constexpr, sizes)), (n_tiles, n_kv_heads, n_splits)
