"""Some rows of activations through a matrix: decoding many streams, and prompts where weights are packed.

    y = residual + residual_scale * (x @ W.T + bias)

Shapes: x (n_tokens, n_cols) of the matrix's dtype, W (n_rows, n_cols), y (n_tokens, n_rows).

Bytes moved: the matrix once for each tile of BLOCK_TOKENS rows of x. Up to some
300 tokens in bf16 (and half as many for q8) memory bounds it on a Hopper GPU:
each byte of bf16 weight allows 206 operations. From there on dense matrices are
cuBLAS's, who keeps the tensor cores busier; packed ones stay here, for making
them dense would move the bytes that packing saved.

The tile: 16 tokens are the least that a tensor core takes. 64 rows x 128 bytes
are 8 kB, and loads run `num_stages` tiles ahead through shared memory, so that
two programs keep 64 kB in flight on a multiprocessor. Weights in few bits become
the matrix's dtype between load and product: the very numbers of `dense()`. The
first tiles are on their way to the L2 cache before the kernel before this one
has ended: weights depend on nobody.
Grid: (tiles of rows, tiles of tokens, splits).
"""

from __future__ import annotations

import triton
import triton.language as tl

from influence.engines.torch.triton.formats import (
    has_far,
    prefetch,
    product,
    q4_values,
    signed_to_float,
    unpacked,
)
from influence.engines.torch.triton.splits import part_of_row, sum_of_splits

PREFETCHED = tl.constexpr(4)  # cache lines of each row: 32 kB of a program


@triton.jit(do_not_specialize=["n_tokens"])  # one kernel for every number of them
def matmul_kernel(
    x_ptr,  # (n_tokens, n_cols)
    matrix,  # Weights
    bias_ptr,  # (n_rows,) or None
    residual_ptr,  # (n_tokens, n_rows) or None
    residual_scale,
    y_ptr,  # (n_tokens, n_rows)
    n_tokens,
    work,  # Work
    BLOCK_TOKENS: tl.constexpr,
):
    """y = residual + residual_scale * (x @ W.T + bias)."""
    rows = tl.program_id(0) * work.BLOCK_ROWS + tl.arange(0, work.BLOCK_ROWS)
    tokens = tl.program_id(1) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    split = tl.program_id(2)
    if work.OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        _prefetch(matrix, rows, split, work)
        tl.extra.cuda.gdc_wait()
    y = _product(x_ptr, matrix, rows, tokens, n_tokens, split, work)
    mask = (tokens < n_tokens)[:, None] & (rows < matrix.n_rows)[None, :]
    offsets = tokens.to(tl.int64)[:, None] * matrix.n_rows + rows[None, :]
    tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    y, is_last = sum_of_splits(y, offsets, mask, n_tokens.to(tl.int64) * matrix.n_rows, split, tile, work)
    if is_last:
        if bias_ptr is not None:
            y += tl.load(bias_ptr + rows, rows < matrix.n_rows, other=0).to(tl.float32)[None, :]
        if residual_ptr is not None:
            y = tl.load(residual_ptr + offsets, mask, other=0).to(tl.float32) + residual_scale * y
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask)


@triton.jit
def _product(x_ptr, matrix, rows, tokens, n_tokens, split, work):
    """This split's part of x @ W.T, (BLOCK_TOKENS, BLOCK_ROWS) float32."""
    sums = tl.zeros([tokens.shape[0], rows.shape[0]], tl.float32)
    if matrix.FORMAT == "packed":  # noqa: SIM102 - decided when the kernel is compiled; the next line when it runs
        if split == 0:
            sums += _rare_products(x_ptr, matrix, rows, tokens, n_tokens)
    begin, end = part_of_row(matrix, split, work)
    for first in range(begin, end, work.CHUNKS):
        near, far = _dense_tile(matrix, rows, first, end, work)
        column = _columns(first, matrix, work)
        x = _x_tile(x_ptr, tokens, column, n_tokens, matrix)
        sums = product(x, tl.trans(near), sums)
        if has_far(matrix.FORMAT):
            x = _x_tile(x_ptr, tokens, column + matrix.WIDTH, n_tokens, matrix)
            sums = product(x, tl.trans(far), sums)
    return sums


@triton.jit
def _prefetch(matrix, rows, split, work):
    """Ask the L2 cache for this program's first tiles of weights, which depend on nobody."""
    begin, end = part_of_row(matrix, split, work)
    row = tl.minimum(rows, matrix.n_rows - 1).to(tl.int64)[:, None]
    line = tl.arange(0, PREFETCHED)[None, :]
    if matrix.FORMAT == "dense":  # whose rows may end within a chunk
        chunk = tl.minimum(begin + line * work.CHUNKS, end - 1)
        prefetch(matrix.main + row * matrix.n_cols + chunk * matrix.WIDTH)
    elif matrix.FORMAT == "packed":  # with twice as many low bytes as codes
        chunk = tl.minimum(begin + line * (work.CHUNKS // 2), end - 1)
        prefetch(matrix.main + (row * matrix.n_chunks + chunk) * (2 * matrix.WIDTH))
        prefetch(matrix.side + (row * matrix.n_chunks + chunk) * matrix.WIDTH)
    else:
        chunk = tl.minimum(begin + line * work.CHUNKS, end - 1)
        prefetch(matrix.main + (row * matrix.n_chunks + chunk) * matrix.WIDTH)


@triton.jit
def _columns(first, matrix, work):
    """Of the bytes or elements of a tile, (CHUNKS * WIDTH,); in q4 and packed of the low halves."""
    place = first * matrix.WIDTH + tl.arange(0, work.CHUNKS * matrix.WIDTH)
    if has_far(matrix.FORMAT):
        place = place // matrix.WIDTH * (2 * matrix.WIDTH) + place % matrix.WIDTH
    return place


@triton.jit
def _x_tile(x_ptr, tokens, column, n_tokens, matrix):
    mask = (tokens < n_tokens)[:, None] & (column < matrix.n_cols)[None, :]
    return tl.load(x_ptr + tokens.to(tl.int64)[:, None] * matrix.n_cols + column[None, :], mask, other=0)


@triton.jit
def _dense_tile(matrix, rows, first, end, work):
    """Weights of the `near` and of the `far` columns, (BLOCK_ROWS, CHUNKS * WIDTH) of the matrix's dtype."""
    WIDTH: tl.constexpr = matrix.WIDTH
    place = first * WIDTH + tl.arange(0, work.CHUNKS * WIDTH)
    mask = (rows < matrix.n_rows)[:, None] & (place < end * WIDTH)[None, :]
    row = rows.to(tl.int64)[:, None]
    at = row * (matrix.n_chunks * WIDTH) + place[None, :]
    if matrix.FORMAT == "dense":
        mask = mask & (place < matrix.n_cols)[None, :]
        near = _load_once(matrix.main + row * matrix.n_cols + place[None, :], mask)
        far = near
    elif matrix.FORMAT == "packed":
        low = matrix.main + row * (matrix.n_chunks * 2 * WIDTH) + _columns(first, matrix, work)[None, :]
        code = _load_once(matrix.side + at, mask)
        near = unpacked(_load_once(low, mask), code & 15, matrix.base)
        far = unpacked(_load_once(low + WIDTH, mask), code >> 4, matrix.base)
    elif matrix.FORMAT == "q8":
        near = signed_to_float(_load_once(matrix.main + at, mask)) * _scales(matrix, rows, first, end, work)
        far = near
    else:
        near, far = q4_values(_load_once(matrix.main + at, mask), matrix.table)
        scale = _scales(matrix, rows, first, end, work)
        near *= scale
        far *= scale
    return near.to(matrix.DTYPE), far.to(matrix.DTYPE)


@triton.jit
def _load_once(at, mask):
    return tl.load(at, mask, other=0, eviction_policy="evict_first")


@triton.jit
def _scales(matrix, rows, first, end, work):
    """The scale of each byte of a tile, (BLOCK_ROWS, CHUNKS * WIDTH) float32."""
    per_scale: tl.constexpr = 4 if matrix.FORMAT == "q8" else 1
    chunk = first + tl.arange(0, work.CHUNKS)
    mask = (rows < matrix.n_rows)[:, None] & (chunk < end)[None, :]
    index = rows.to(tl.int64)[:, None] * matrix.n_chunks + chunk[None, :]
    scale = tl.load(matrix.side + index // per_scale, mask, other=0).to(tl.float32)
    shape: tl.constexpr = [rows.shape[0], work.CHUNKS, matrix.WIDTH]
    wide = tl.broadcast_to(scale[:, :, None], shape)
    return tl.reshape(wide, [rows.shape[0], work.CHUNKS * matrix.WIDTH])


@triton.jit
def _rare_products(x_ptr, matrix, rows, tokens, n_tokens):
    """What the weights outside the packed exponents add, (BLOCK_TOKENS, BLOCK_ROWS); mostly nothing."""
    in_matrix = rows < matrix.n_rows
    begin = tl.load(matrix.rare_starts + rows, in_matrix, other=0)
    count = tl.load(matrix.rare_starts + rows + 1, in_matrix, other=0) - begin
    sums = tl.zeros([tokens.shape[0], rows.shape[0]], tl.float32)
    for i in range(tl.max(count, 0)):
        present = i < count
        column = tl.load(matrix.rare_columns + begin + i, present, other=0)
        value = tl.load(matrix.rare_values + begin + i, present, other=0).to(tl.float32)
        mask = (tokens < n_tokens)[:, None] & present[None, :]
        at = x_ptr + tokens.to(tl.int64)[:, None] * matrix.n_cols + column[None, :]
        sums += value[None, :] * tl.load(at, mask, other=0).to(tl.float32)
    return sums
