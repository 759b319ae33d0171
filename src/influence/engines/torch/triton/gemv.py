"""One row of activations through a matrix: the decode step of a single stream.

    linear    y = residual + residual_scale * (norm(x) @ W.T + bias)
    gate_up   y = act(norm(x) @ G.T) * (norm(x) @ U.T), G and U stacked in one matrix
    heads     q, k, v = norm(x) @ W.T + bias; q and k turned by rope; k and v into the KV cache

Shapes: x (n_cols,), W (n_rows, n_cols), y (n_rows,).

Bytes moved: the matrix once (n_rows * n_cols * 2 for bf16, 1.03 for q8, 0.56
for q4, 1.5 for packed), and x again for every program, out of L2. Memory bounds
it: one FMA a weight, where a GPU has the time of 14 (bf16) to 4 (q4)
instructions.

The tile: a thread loads 16 bytes at once and has four such loads in flight
while the four before are multiplied, 128 threads x 64 bytes = 8 kB a program
(`launch.py` says how many programs fill a GPU). More rows to a tile leave too
few programs, fewer share x less. What a thread multiplied in a chunk it sums by
itself; lanes are summed once, at the end. The first tile is asked for before the
kernel before this one has ended: weights depend on nobody.

Where rows are few the columns are split (`splits.py`). Grid: (tiles of rows, splits).
"""

from __future__ import annotations

import triton
import triton.language as tl

from influence.engines.torch.triton.activations import activated, load_activations, row_statistics
from influence.engines.torch.triton.rope import cache_offset, dimensions_of_pair, turned_pair
from influence.engines.torch.triton.splits import part_of_row, sum_of_splits
from influence.engines.torch.triton.tiles import load_tile, met_by, tile_sums


@triton.jit
def linear_kernel(
    x_ptr,  # (n_cols,)
    norm,  # NormArguments
    matrix,  # Weights
    bias_ptr,  # (n_rows,) or None
    residual_ptr,  # (n_rows,) or None
    residual_scale,
    y_ptr,  # (n_rows,)
    work,  # Work
):
    """y = residual + residual_scale * (norm(x) @ W.T + bias)."""
    rows = tl.program_id(0) * work.BLOCK_ROWS + tl.arange(0, work.BLOCK_ROWS)
    mask = rows < matrix.n_rows
    y, is_last = row_sums(x_ptr, norm, matrix, rows, mask, work)
    if is_last:
        if bias_ptr is not None:
            y += tl.load(bias_ptr + rows, mask, other=0).to(tl.float32)
        if residual_ptr is not None:
            y = tl.load(residual_ptr + rows, mask, other=0).to(tl.float32) + residual_scale * y
        tl.store(y_ptr + rows, y.to(y_ptr.dtype.element_ty), mask)


@triton.jit
def gate_up_kernel(
    x_ptr,  # (n_cols,)
    norm,  # NormArguments
    matrix,  # Weights: row i gates row n_rows / 2 + i
    bias_ptr,  # (n_rows,) or None
    y_ptr,  # (n_rows / 2,)
    work,  # Work
    ACTIVATION: tl.constexpr,
):
    """y = act(gate) * up. A tile holds rows of both, in turns."""
    half: tl.constexpr = work.BLOCK_ROWS // 2
    n_pairs = matrix.n_rows // 2
    place = tl.arange(0, work.BLOCK_ROWS)
    pairs = tl.program_id(0) * half + place // 2
    rows = pairs + (place % 2) * n_pairs
    mask = pairs < n_pairs
    y, is_last = row_sums(x_ptr, norm, matrix, rows, mask, work)
    if is_last:
        if bias_ptr is not None:
            y += tl.load(bias_ptr + rows, mask, other=0).to(tl.float32)
        gate, up = tl.split(tl.reshape(y, [half, 2]))
        pair = tl.program_id(0) * half + tl.arange(0, half)
        out = activated(gate, ACTIVATION) * up
        tl.store(y_ptr + pair, out.to(y_ptr.dtype.element_ty), pair < n_pairs)


@triton.jit
def heads_kernel(
    x_ptr,  # (n_cols,)
    norm,  # NormArguments
    matrix,  # Weights: q, k and v stacked
    bias_ptr,  # (n_rows,) or None
    cos_ptr,  # (HALF,) float32
    sin_ptr,
    q_ptr,  # (N_HEADS, HEAD_DIM)
    kv_ptr,  # (2, n_slots, N_KV_HEADS, HEAD_DIM)
    slot_ptr,  # (1,) int64
    n_slots,
    sizes,  # HeadSizes
    work,  # Work
):
    """q turned, k turned and v into the cache. A tile holds both rows of each pair, in turns."""
    half: tl.constexpr = work.BLOCK_ROWS // 2
    heads: tl.constexpr = sizes.N_HEADS + 2 * sizes.N_KV_HEADS
    n_pairs: tl.constexpr = heads * (sizes.HEAD_DIM // 2)
    place = tl.arange(0, work.BLOCK_ROWS)
    pairs = tl.program_id(0) * half + place // 2
    first, second = dimensions_of_pair(pairs, sizes)
    rows = pairs // (sizes.HEAD_DIM // 2) * sizes.HEAD_DIM + tl.where(place % 2 == 0, first, second)
    mask = pairs < n_pairs
    y, is_last = row_sums(x_ptr, norm, matrix, rows, mask, work)
    if is_last:
        if bias_ptr is not None:
            y += tl.load(bias_ptr + rows, mask, other=0).to(tl.float32)
        a, b = tl.split(tl.reshape(y, [half, 2]))
        pair = tl.program_id(0) * half + tl.arange(0, half)
        head = pair // (sizes.HEAD_DIM // 2)
        a, b = turned_pair(a, b, pair % (sizes.HEAD_DIM // 2), head, cos_ptr, sin_ptr, sizes)
        of_a, of_b = dimensions_of_pair(pair, sizes)
        is_q = head < sizes.N_HEADS
        is_kv = (pair < n_pairs) & (head >= sizes.N_HEADS)
        to_q = q_ptr + head * sizes.HEAD_DIM
        to_kv = kv_ptr + cache_offset(head - sizes.N_HEADS, tl.load(slot_ptr), n_slots, sizes)
        tl.store(to_q + of_a, a.to(q_ptr.dtype.element_ty), is_q)
        tl.store(to_q + of_b, b.to(q_ptr.dtype.element_ty), is_q)
        tl.store(to_kv + of_a, a.to(kv_ptr.dtype.element_ty), is_kv)
        tl.store(to_kv + of_b, b.to(kv_ptr.dtype.element_ty), is_kv)


@triton.jit
def row_sums(x_ptr, norm, matrix, rows, mask, work):
    """norm(x) @ W[rows].T, (BLOCK_ROWS,) float32, and whether this program is the one that has it."""
    split = tl.program_id(1)
    begin, end = part_of_row(matrix, split, work)
    a, b, c = load_tile(matrix, rows, mask, begin, end, work.CHUNKS)
    if work.OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    statistics = row_statistics(x_ptr, matrix.n_cols, norm)
    rare = tl.zeros([work.BLOCK_ROWS], tl.float32)
    if matrix.FORMAT == "packed":  # noqa: SIM102 - decided when the kernel is compiled; the next line when it runs
        if split == 0:
            rare += rare_sums(x_ptr, norm, statistics, matrix, rows, mask)
    sums = tl.zeros([work.BLOCK_ROWS, work.CHUNKS], tl.float32)
    for first in range(begin, end, work.CHUNKS):
        near, far, scale = met_by(x_ptr, norm, statistics, first, matrix, work.CHUNKS)
        next_a, next_b, next_c = load_tile(matrix, rows, mask, first + work.CHUNKS, end, work.CHUNKS)
        sums += tile_sums(a, b, c, near, far, scale, matrix)
        a, b, c = next_a, next_b, next_c
    return sum_of_splits(tl.sum(sums, 1) + rare, rows, mask, matrix.n_rows, split, tl.program_id(0), work)


@triton.jit
def rare_sums(x_ptr, norm, statistics, matrix, rows, mask):
    """What the weights outside the packed exponents add to each row; mostly there are none."""
    begin = tl.load(matrix.rare_starts + rows, mask, other=0)
    count = tl.load(matrix.rare_starts + rows + 1, mask, other=0) - begin
    sums = begin.to(tl.float32) * 0
    for i in range(tl.max(count, 0)):
        present = i < count
        column = tl.load(matrix.rare_columns + begin + i, present, other=0)
        value = tl.load(matrix.rare_values + begin + i, present, other=0).to(tl.float32)
        sums += value * load_activations(x_ptr, norm, statistics, column, present, matrix.DTYPE)
    return sums
