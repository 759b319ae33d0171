"""Tiles of a matrix in each of its formats, and of the row of activations that meets them.

A tile is (BLOCK_ROWS, CHUNKS, elements of the 16 bytes that a thread loads at
once), so that the sums of a chunk stay within a thread and a scale serves all of
it. A chunk holds

    format   elements        columns of a chunk
    dense    4 f32, 8 bf16   as many
    q8       4 words         16, of a group of 64
    q4       4 words         32, a group; low halves are columns 0 to 15, high ones 16 to 31
    packed   4 words         32; codes lie as in q4, the low bytes in the order of columns

A tile of q4 or packed meets two tiles of activations, `near` and `far`. q8 and
q4 meet whole numbers (`integers.py`). Weights are read once, so their lines are the first to leave the
caches. What lies beyond the last row or column is masked where it is loaded and
may be anything.
"""

from __future__ import annotations

import triton
import triton.language as tl

from influence.engines.torch.triton.activations import load_activations
from influence.engines.torch.triton.formats import WORDS, unpacked_words
from influence.engines.torch.triton.integers import dot4, integer_activations, q4_words


@triton.jit
def load_tile(
    matrix,  # Weights
    rows,  # (BLOCK_ROWS,)
    row_mask,  # (BLOCK_ROWS,)
    first,  # chunk
    end,  # chunk; from here on all is 0
    CHUNKS: tl.constexpr,
):
    """Three tensors, as `tile_sums` takes them; what a format does not need repeats another."""
    WIDTH: tl.constexpr = matrix.WIDTH
    chunk = first + tl.arange(0, CHUNKS)[None, :]
    mask = row_mask[:, None] & (chunk < end)
    index = rows.to(tl.int64)[:, None] * matrix.n_chunks + chunk  # of the chunk in the matrix
    place = tl.arange(0, WIDTH)[None, None, :]
    wide_mask = mask[:, :, None]
    if matrix.FORMAT == "dense":
        column = chunk[:, :, None] * WIDTH + place
        at = matrix.main + rows.to(tl.int64)[:, None, None] * matrix.n_cols + column
        w = tl.load(at, wide_mask & (column < matrix.n_cols), other=0, eviction_policy="evict_first")
        return w, w, w
    elif matrix.FORMAT == "packed":
        word = index[:, :, None] * WORDS + tl.arange(0, WORDS)[None, None, :]
        low = matrix.main.to(tl.pointer_type(tl.int32), bitcast=True) + index[:, :, None] * WORDS + word
        code = matrix.side.to(tl.pointer_type(tl.int32), bitcast=True) + word
        near = tl.load(low, wide_mask, other=0, eviction_policy="evict_first")
        far = tl.load(low + WORDS, wide_mask, other=0, eviction_policy="evict_first")
        return near, far, tl.load(code, wide_mask, other=0, eviction_policy="evict_first")
    else:
        word = matrix.main.to(tl.pointer_type(tl.int32), bitcast=True) + index[:, :, None] * WORDS
        word += tl.arange(0, WORDS)[None, None, :]
        values = tl.load(word, wide_mask, other=0, eviction_policy="evict_first")
        per_scale: tl.constexpr = 4 if matrix.FORMAT == "q8" else 1
        scale = tl.load(matrix.side + index // per_scale, mask, other=0, eviction_policy="evict_first")
        return values, scale, scale


@triton.jit
def tile_sums(
    a,
    b,
    c,
    near,  # as `met_by` gave them: dense (1, CHUNKS, WIDTH), packed (CHUNKS, WORDS, 4), else words
    far,
    scale,
    matrix,
):
    """Sums of weight times activation over each chunk, (BLOCK_ROWS, CHUNKS) float32."""
    if matrix.FORMAT == "dense":
        return tl.sum(a.to(tl.float32) * near, 2)
    elif matrix.FORMAT == "q8":
        return tl.sum(dot4(a, near, tl.zeros_like(a)), 2).to(tl.float32) * (b.to(tl.float32) * scale)
    elif matrix.FORMAT == "q4":
        first, second = q4_words(a, matrix.table)
        sums = dot4(second, far, dot4(first, near, tl.zeros_like(a)))
        return tl.sum(sums, 2).to(tl.float32) * (b.to(tl.float32) * scale)
    else:
        sums = word_sums(a, c & 0x0F0F0F0F, near, matrix.base, tl.zeros(a.shape, tl.float32))
        return tl.sum(word_sums(b, c >> 4 & 0x0F0F0F0F, far, matrix.base, sums), 2)


@triton.jit
def word_sums(low, codes, x, base, sums):
    """sums + four packed weights of each word times their activations, x (CHUNKS, WORDS, 4); float32."""
    x = tl.reshape(x, [x.shape[0], WORDS, 2, 2])
    even, odd = tl.split(x)
    x0, x2 = tl.split(even)
    x1, x3 = tl.split(odd)
    w0, w1, w2, w3 = unpacked_words(low, codes, base)
    sums += w0 * x0[None, :, :]
    sums += w1 * x1[None, :, :]
    sums += w2 * x2[None, :, :]
    return sums + w3 * x3[None, :, :]


@triton.jit
def met_by(x_ptr, norm, statistics, first, matrix, CHUNKS: tl.constexpr):
    """The activations that a tile meets: near and far ones, and their scale, as `tile_sums` takes them."""
    if matrix.FORMAT == "q8" or matrix.FORMAT == "q4":
        return integer_activations(x_ptr, norm, statistics, first, matrix, CHUNKS)
    elif matrix.FORMAT == "packed":
        column = first * 32 + tl.arange(0, CHUNKS * 32)
        x = load_activations(x_ptr, norm, statistics, column, column < matrix.n_cols, matrix.DTYPE)
        halves = tl.permute(tl.reshape(x, [CHUNKS, 2, 4 * WORDS]), [0, 2, 1])
        near, far = tl.split(halves)
        near = tl.reshape(near, [CHUNKS, WORDS, 4])
        far = tl.reshape(far, [CHUNKS, WORDS, 4])
        return near, far, near
    else:
        place = tl.arange(0, matrix.WIDTH)[None, None, :]
        column = (first + tl.arange(0, CHUNKS))[None, :, None] * matrix.WIDTH + place
        x = load_activations(x_ptr, norm, statistics, column, column < matrix.n_cols, matrix.DTYPE)
        return x, x, x
