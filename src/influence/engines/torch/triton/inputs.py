"""What a step begins with: embeddings, the angles of rope, and places in the cache.

    x = embed[token] * scale
    cos, sin = factor * cos(position * frequency), the same of sin
    slot = table[position / BLOCK] * BLOCK + position mod BLOCK, length = position + 1

Bytes moved: each number once. Launches are all that counts: some twenty small
kernels, a microsecond each, would be a twentieth of a small model's token.

These do not overlap with what follows: attention reads places and lengths before
it waits for anybody.
"""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK = tl.constexpr(1024)  # 8 numbers a thread


@triton.jit
def embed_kernel(
    embed_ptr,  # (vocab_size, n_cols)
    token_ptr,  # (n,) int64
    x_ptr,  # (n, n_cols) float32
    n_cols,
    scale,
):
    """Grid: (n, blocks of columns)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < n_cols
    x = tl.load(embed_ptr + tl.load(token_ptr + row) * n_cols + column, mask, other=0)
    tl.store(x_ptr + row * n_cols + column, x.to(tl.float32) * scale, mask)


@triton.jit
def turns_kernel(
    position_ptr,  # (n,) int64
    frequency_ptr,  # (half,), or (n, half) float32
    cos_ptr,  # (n, half) float32
    sin_ptr,
    half,
    frequency_stride,  # 0, or half
    factor,
    PADDED_HALF: tl.constexpr,  # the next power of two
):
    """Grid: (n,)."""
    row = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, PADDED_HALF)
    mask = pair < half
    frequency = tl.load(frequency_ptr + row * frequency_stride + pair, mask, other=0)
    angle = tl.load(position_ptr + row).to(tl.float32) * frequency
    tl.store(cos_ptr + row * half + pair, tl.cos(angle) * factor, mask)
    tl.store(sin_ptr + row * half + pair, tl.sin(angle) * factor, mask)


@triton.jit
def places_kernel(
    table_ptr,  # (n, width) int32
    position_ptr,  # (n,) int64
    slot_ptr,  # (n,) int64
    length_ptr,  # (n,) int32
    n,
    width,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Grid: (blocks of rows,)."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mask = row < n
    position = tl.load(position_ptr + row, mask, other=0)
    at = table_ptr + row.to(tl.int64) * width + position // BLOCK_SIZE
    slot = tl.load(at, mask, other=0).to(tl.int64) * BLOCK_SIZE + position % BLOCK_SIZE
    tl.store(slot_ptr + row, slot, mask)
    tl.store(length_ptr + row, (position + 1).to(tl.int32), mask)
