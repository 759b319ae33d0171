"""Tiles of a matrix in each of its formats, and of the row of activations that meets them.

A tile is (BLOCK_ROWS, CHUNKS, WIDTH): WIDTH elements are the 16 bytes that a
thread loads at once, so that sums over WIDTH stay within a thread and a scale
serves a whole chunk. A chunk holds

    format   WIDTH           columns of a chunk
    dense    4 f32, 8 bf16   WIDTH
    q8       16 bytes        16, of a group of 64
    q4       16 bytes        32, a group; low halves are columns 0 to 15, high ones 16 to 31
    packed   16 bytes        32; codes lie as in q4, the low bytes in the order of columns

A tile of q4 or packed meets two tiles of activations, 16 columns apart: `near`
and `far`. Weights are read once, so their lines are the first to leave the
caches. What lies beyond the last row or column is masked where it is loaded and
may be anything.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))

# What the 16 codes of q4 stand for, plus 128: Q4_VALUES, four bytes to a word.
_Q4_WORDS = (0x3E2D1A01, 0x74675A4D, 0xA89A8D80, 0xF0D9C7B6)

# Four bytes of two codes each ($2) into what the low ($0) and the high halves ($1) stand for. A byte
# permute (prmt) looks four codes up in 8 bytes by their low three bits: one for each half of the table,
# then one that takes this or that by the fourth bit. So for either pair of bytes; two more sort the result.
_LOOK_UP_PAIR = """shr.u32 codes, $2, {shift};
and.b32 places, codes, 0x7777;
shr.u32 halves, codes, 1;
and.b32 halves, halves, 0x4444;
or.b32 halves, halves, 0x3210;
prmt.b32 small, {0:#x}, {1:#x}, places;
prmt.b32 large, {2:#x}, {3:#x}, places;
prmt.b32 {out}, small, large, halves;"""
LOOK_UP = tl.constexpr(
    "{ .reg .b32 codes, places, halves, small, large, first, second;"
    + _LOOK_UP_PAIR.format(*_Q4_WORDS, shift=0, out="first")
    + _LOOK_UP_PAIR.format(*_Q4_WORDS, shift=16, out="second")
    + "prmt.b32 $0, first, second, 0x6420; prmt.b32 $1, first, second, 0x7531; }"
)


class Weights(NamedTuple):
    """A matrix (n_rows, n_cols) as kernels take it; `operands.weights` makes it."""

    main: Any  # dense: the weights; q8: values; q4: codes; packed: low bytes
    side: Any  # q8, q4: scales; packed: codes
    rare_starts: Any  # packed: (n_rows + 1,)
    rare_columns: Any  # packed: (n_rare,)
    rare_values: Any  # packed: (n_rare,)
    base: Any  # packed: the exponent field of code 1
    table: Any  # q4: (16,) float32, what a code stands for
    n_rows: Any
    n_cols: Any
    n_chunks: Any  # of a row
    FORMAT: Any
    DTYPE: Any  # of the activations that it meets
    WIDTH: Any


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
        low = matrix.main + index[:, :, None] * (2 * WIDTH) + place
        code = matrix.side + index[:, :, None] * WIDTH + place
        near = tl.load(low, wide_mask, other=0, eviction_policy="evict_first")
        far = tl.load(low + WIDTH, wide_mask, other=0, eviction_policy="evict_first")
        return near, far, tl.load(code, wide_mask, other=0, eviction_policy="evict_first")
    else:
        value = matrix.main + index[:, :, None] * WIDTH + place
        values = tl.load(value, wide_mask, other=0, eviction_policy="evict_first")
        per_scale: tl.constexpr = 4 if matrix.FORMAT == "q8" else 1
        scale = tl.load(matrix.side + index // per_scale, mask, other=0, eviction_policy="evict_first")
        return values, scale, scale


@triton.jit
def tile_sums(
    a,
    b,
    c,
    near,  # (1, CHUNKS, WIDTH) float32 activations
    far,
    matrix,
):
    """Sums of weight times activation over each chunk, (BLOCK_ROWS, CHUNKS) float32."""
    if matrix.FORMAT == "dense":
        return tl.sum(a.to(tl.float32) * near, 2)
    elif matrix.FORMAT == "q8":
        return tl.sum(signed_to_float(a) * near, 2) * b.to(tl.float32)
    elif matrix.FORMAT == "q4":
        low, high = q4_values(a, matrix.table)
        return (tl.sum(low * near, 2) + tl.sum(high * far, 2)) * b.to(tl.float32)
    else:
        first = unpacked(a, c & 15, matrix.base)
        second = unpacked(b, c >> 4, matrix.base)
        return tl.sum(first * near, 2) + tl.sum(second * far, 2)


@triton.jit
def byte_to_float(byte):
    """uint8 -> 2^23 + byte, float32: the byte as the lowest bits of a mantissa.

    A conversion instruction runs at a quarter of this one's rate.
    """
    return (byte.to(tl.uint32) | 0x4B000000).to(tl.float32, bitcast=True)


@triton.jit
def signed_to_float(value):
    """int8 -> float32: its sign bit turned, it is the value plus 128."""
    biased = value.to(tl.uint8, bitcast=True).to(tl.uint32) ^ 0x4B000080
    return biased.to(tl.float32, bitcast=True) - 8388736.0


@triton.jit
def q4_values(codes, table_ptr):
    """Two codes a byte -> what the low and what the high halves stand for, float32."""
    if not INTERPRETED:
        low, high = tl.inline_asm_elementwise(
            LOOK_UP,
            "=r,=r,r",
            [codes],
            dtype=(tl.uint8, tl.uint8),
            is_pure=True,
            pack=4,
        )
        return byte_to_float(low) - 8388736.0, byte_to_float(high) - 8388736.0
    else:
        return tl.load(table_ptr + (codes & 15)), tl.load(table_ptr + (codes >> 4))


@triton.jit
def unpacked(low, code, base):
    """Sign and mantissa, exponent code -> float32; code 0 gives 0."""
    byte = low.to(tl.uint32)
    exponent = (code.to(tl.uint32) + base - 1) << 23
    bits = ((byte & 0x80) << 24) | exponent | ((byte & 0x7F) << 16)
    return tl.where(code > 0, bits, 0).to(tl.float32, bitcast=True)


@triton.jit
def columns_of(first, matrix, CHUNKS: tl.constexpr):
    """The columns that the `near` activations of a tile stand in, (1, CHUNKS, WIDTH); `far` is 16 on."""
    span: tl.constexpr = 2 * matrix.WIDTH if has_far(matrix.FORMAT) else matrix.WIDTH
    chunk = first + tl.arange(0, CHUNKS)
    return chunk[None, :, None] * span + tl.arange(0, matrix.WIDTH)[None, None, :]


@triton.jit
def product(a, b, sums):
    """a @ b + sums. The interpreter takes a bfloat16 for the whole number of its bits, so it gets floats."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="ieee")


@triton.jit
def prefetch(at):
    """Ask the L2 cache for the lines at these addresses; nothing waits for them. Not for the interpreter."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [at.to(tl.int64, bitcast=True)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.constexpr_function
def has_far(form):
    """Whether a byte of that format holds two columns."""
    return form in ("q4", "packed")
