"""A row of activations as whole numbers, for weights of few bits: products that take four weights in one instruction.

    x = scale * q      scale = max |x| / 127 over a chunk, q from -127 to 127
    w . x = w_scale * x_scale * (w . q)

The sum of a chunk is an exact integer (`dp4a`), which then meets both scales;
so the native engine does it too (csrc/kernels/packed_rows.h), with a scale for
each group. A GPU at its bandwidth has the time of 6.8 instructions for a weight
of q8 and of 4.0 for one of q4: widening bytes to floats alone takes that.

Four numbers of consecutive columns are a word, to meet a word of q8. A word of
q4 has four bytes of two codes, 16 columns apart; looked up they are two words,
of the first and of the last two bytes, each low half before its high half.
Activations are packed in that order, so that nothing is sorted for a weight.
"""

from __future__ import annotations

import triton
import triton.language as tl

from influence.engines.torch.triton.activations import load_activations
from influence.engines.torch.triton.formats import INTERPRETED, LOOK_UP_PAIRS, WORDS, q4_value


@triton.jit
def integer_activations(x_ptr, norm, statistics, first, matrix, CHUNKS: tl.constexpr):
    """Words that meet a tile's, (1, CHUNKS, WORDS) int32 twice (the same ones in q8), and scales, (1, CHUNKS) float32."""
    SPAN: tl.constexpr = 32 if matrix.FORMAT == "q4" else 16
    column = first * SPAN + tl.arange(0, CHUNKS * SPAN)
    x = load_activations(x_ptr, norm, statistics, column, column < matrix.n_cols, matrix.DTYPE)
    x = tl.reshape(x, [CHUNKS, SPAN])
    # Of positive floats the bits order as they do, and a NaN is the largest, so that it is not lost.
    peak = tl.max(x.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 1).to(tl.float32, bitcast=True)
    inverse = 127 / tl.where(peak == 0, 1.0, peak)
    # 1.5 * 2^23 has a whole number added to it in its lowest bits, two's complement, rounded to nearest.
    byte = (x * inverse[:, None] + 12582912.0).to(tl.int32, bitcast=True) & 0xFF
    scale = (peak / 127)[None, :]
    if matrix.FORMAT == "q8":
        shifts = tl.arange(0, 4) * 8
        words = tl.sum(tl.reshape(byte, [CHUNKS, WORDS, 4]) << shifts[None, None, :], 2)
        return words[None, :, :], words[None, :, :], scale
    else:
        # (far, word and pair, byte of a pair): far ones stand above near ones.
        shifts = tl.arange(0, 2)[:, None, None] * 8 + tl.arange(0, 2)[None, None, :] * 16
        pairs = tl.reshape(byte, [CHUNKS, 2, 2 * WORDS, 2]) << shifts[None, :, :, :]
        words = tl.sum(tl.sum(pairs, 3), 1)
        near, far = tl.split(tl.reshape(words, [CHUNKS, WORDS, 2]))
        return near[None, :, :], far[None, :, :], scale


@triton.jit
def dot4(a, b, sums):
    """sums + the products of the four signed bytes of each word; int32, all of one shape or broadcast to it."""
    a, b = tl.broadcast(a, b)
    if not INTERPRETED:
        return tl.inline_asm_elementwise(
            "dp4a.s32.s32 $0, $1, $2, $3;",
            "=r,r,r,r",
            [a, b, sums],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    else:
        for i in tl.static_range(4):
            sums += (a << (24 - 8 * i) >> 24) * (b << (24 - 8 * i) >> 24)
        return sums


@triton.jit
def q4_words(codes, table_ptr):
    """Words of eight codes -> what the first and the last two bytes stand for, low half before high; int32."""
    if not INTERPRETED:
        return tl.inline_asm_elementwise(
            LOOK_UP_PAIRS,
            "=r,=r,r,r,r,r,r",
            [
                codes,
                tl.load(table_ptr),
                tl.load(table_ptr + 1),
                tl.load(table_ptr + 2),
                tl.load(table_ptr + 3),
            ],
            dtype=(tl.int32, tl.int32),
            is_pure=True,
            pack=1,
        )
    else:
        first = codes * 0
        second = codes * 0
        for i in tl.static_range(4):
            first |= (q4_value(codes >> (4 * i) & 15, table_ptr) & 0xFF) << (8 * i)
            second |= (q4_value(codes >> (16 + 4 * i) & 15, table_ptr) & 0xFF) << (8 * i)
        return first, second
