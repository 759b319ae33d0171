"""A matrix as kernels take it, and how weights in few bits become numbers.

A byte of q4 or packed holds two codes, 16 columns apart: the low half is the
nearer column, the high half the farther one.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import triton
import triton.language as tl

from influence.engines.torch.matrices import Q4_VALUES

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
WORDS = tl.constexpr(4)  # of the 16 bytes that a thread loads at once

# What the 16 codes of q4 stand for, four signed bytes to a word.
Q4_WORDS = tuple(
    int.from_bytes(struct.pack("4b", *Q4_VALUES[first : first + 4]), "little") for first in range(0, 16, 4)
)

# Four bytes of two codes each ({codes}) into what they stand for. A byte permute (prmt) looks four codes up
# in 8 bytes by their low three bits: one for each half of the table, then one that takes this or that by the
# fourth bit. A permute reads half a word of codes: the first and the last two bytes, in turns of low and
# high halves. Two more permutes part the halves.
_LOOK_UP = """{{ .reg .b32 places, halves, small, large, first, second;
and.b32 places, {codes}, 0x77777777;
shr.u32 halves, {codes}, 1;
and.b32 halves, halves, 0x44444444;
or.b32 halves, halves, 0x32103210;
prmt.b32 small, {0}, {1}, places;
prmt.b32 large, {2}, {3}, places;
prmt.b32 first, small, large, halves;
shr.u32 places, places, 16;
shr.u32 halves, halves, 16;
prmt.b32 small, {0}, {1}, places;
prmt.b32 large, {2}, {3}, places;
prmt.b32 second, small, large, halves;"""

LOOK_UP = tl.constexpr(
    _LOOK_UP.format(*map(hex, Q4_WORDS), codes="$2")
    + "prmt.b32 $0, first, second, 0x6420; prmt.b32 $1, first, second, 0x7531; }"
)
# Here the table comes in registers: of constants the compiler would copy two for each permute.
LOOK_UP_PAIRS = tl.constexpr(
    _LOOK_UP.format("$3", "$4", "$5", "$6", codes="$2") + "mov.b32 $0, first; mov.b32 $1, second; }"
)

# Four packed weights, whose low bytes are $4, whose codes the bytes of $5, and whose bases those of $6, into
# float32. Bytes of exponents are halved between the upper and the lower bytes of bfloat16, where the low
# bytes' signs and mantissas join them; both are kept where the code is above 0, whose byte plus 127 has its
# sign bit set, which prmt (selector 0xba98) makes a byte of ones.
UNPACK = tl.constexpr(
    """{ .reg .b32 exponent, kept, upper, lower, part, pair;
add.u32 exponent, $5, $6;
add.u32 kept, $5, 0x7f7f7f7f;
prmt.b32 kept, kept, 0, 0xba98;
shr.u32 upper, exponent, 1;
lop3.b32 upper, $4, upper, 0x80808080, 0xe4;
and.b32 upper, upper, kept;
shl.b32 lower, exponent, 7;
lop3.b32 lower, lower, $4, 0x80808080, 0xe4;
and.b32 lower, lower, kept;
prmt.b32 pair, lower, upper, 0x5140;
shl.b32 $0, pair, 16;
and.b32 $1, pair, 0xffff0000;
prmt.b32 pair, lower, upper, 0x7362;
shl.b32 $2, pair, 16;
and.b32 $3, pair, 0xffff0000; }"""
)


class Weights(NamedTuple):
    """A matrix (n_rows, n_cols) as kernels take it; `operands.weights` makes it."""

    main: Any  # dense: the weights; q8: values; q4: codes; packed: low bytes
    side: Any  # q8, q4: scales; packed: codes
    rare_starts: Any  # packed: (n_rows + 1,)
    rare_columns: Any  # packed: (n_rare,)
    rare_values: Any  # packed: (n_rare,)
    base: Any  # packed: the exponent field of code 1
    table: Any  # q4: (4,) int32, what its codes stand for: Q4_WORDS
    n_rows: Any
    n_cols: Any
    n_chunks: Any  # of a row
    FORMAT: Any
    DTYPE: Any  # of the activations that it meets
    WIDTH: Any


@triton.jit
def signed_to_float(value):
    """int8 -> float32: its sign bit turned, it is the value plus 128; 2^23 and that have it as lowest mantissa bits.

    A conversion instruction runs at a quarter of this one's rate.
    """
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
            dtype=(tl.int8, tl.int8),
            is_pure=True,
            pack=4,
        )
        return signed_to_float(low), signed_to_float(high)
    else:
        return q4_value(codes & 15, table_ptr).to(tl.float32), q4_value(codes >> 4, table_ptr).to(tl.float32)


@triton.jit
def q4_value(code, table_ptr):
    """One code looked up in the table, int32: as the interpreter does it."""
    code = code.to(tl.int32)
    return tl.load(table_ptr + (code >> 2)) << (24 - 8 * (code & 3)) >> 24


@triton.jit
def unpacked(low, code, base):
    """Sign and mantissa, exponent code -> float32; code 0 gives 0."""
    byte = low.to(tl.uint32)
    exponent = (code.to(tl.uint32) + base - 1) << 23
    bits = ((byte & 0x80) << 24) | exponent | ((byte & 0x7F) << 16)
    return tl.where(code > 0, bits, 0).to(tl.float32, bitcast=True)


@triton.jit
def unpacked_words(low, codes, base):
    """Words of four low bytes and of four codes, a byte each -> their four weights in order, float32."""
    if not INTERPRETED:
        bits = tl.inline_asm_elementwise(
            UNPACK,
            "=r,=r,=r,=r,r,r,r",
            [low, codes, (base - 1) * 0x01010101],
            dtype=(tl.int32, tl.int32, tl.int32, tl.int32),
            is_pure=True,
            pack=1,
        )
        return (
            bits[0].to(tl.float32, bitcast=True),
            bits[1].to(tl.float32, bitcast=True),
            bits[2].to(tl.float32, bitcast=True),
            bits[3].to(tl.float32, bitcast=True),
        )
    else:
        return (
            unpacked(low & 0xFF, codes & 15, base),
            unpacked(low >> 8 & 0xFF, codes >> 8 & 15, base),
            unpacked(low >> 16 & 0xFF, codes >> 16 & 15, base),
            unpacked(low >> 24 & 0xFF, codes >> 24 & 15, base),
        )


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
