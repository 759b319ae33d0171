"""The instructions that make numbers of few bits, which the interpreter can't run, by an emulation of those few."""

from __future__ import annotations

import re
import struct

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")
pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")

from influence.engines.torch.matrices import Q4_VALUES
from influence.engines.torch.triton.formats import LOOK_UP, LOOK_UP_PAIRS, Q4_WORDS, UNPACK


def byte_permute(a: int, b: int, selector: int) -> int:
    """PTX `prmt.b32`: each of the four low half bytes of the selector picks one of eight bytes, or its sign eight times."""
    source = (b << 32 | a).to_bytes(8, "little")
    picks = [selector >> 4 * i & 15 for i in range(4)]
    found = [source[pick & 7] if pick < 8 else 0xFF * (source[pick & 7] >> 7) for pick in picks]
    return int.from_bytes(bytes(found), "little")


def three_inputs(a: int, b: int, c: int, table: int) -> int:
    """PTX `lop3.b32`: bit by bit what the table says of a, b and c."""
    bits = [table >> (4 * (a >> i & 1) + 2 * (b >> i & 1) + (c >> i & 1)) & 1 for i in range(32)]
    return sum(bit << i for i, bit in enumerate(bits))


OPERATIONS = {
    "add.u32": lambda a, b: a + b,
    "lop3.b32": three_inputs,
    "shl.b32": lambda a, b: a << b,
    "shr.u32": lambda a, b: a >> b,
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "mov.b32": lambda a: a,
    "prmt.b32": byte_permute,
}


def run(program: str, **inputs: int) -> list[int]:
    """What the program leaves in $0, $1 and so on, given other registers."""
    registers = {f"${name[1:]}": value for name, value in inputs.items()}
    for name, target, *sources in (
        re.split(r"[\s,]+", line) for line in re.findall(r"\w+\.[bu]32 \$?\w+, [^;]+", program)
    ):
        numbers = [registers[s] if s in registers else int(s, 0) for s in sources]
        registers[target] = OPERATIONS[name](*numbers) & 0xFFFFFFFF
    n_results = min(int(name[1:]) for name in inputs)  # whose registers come first
    return [registers[f"${i}"] for i in range(n_results)]


def looked_up(program: str, packed: bytes) -> list[list[int]]:
    """The bytes of both results."""
    table = {f"r{3 + i}": word for i, word in enumerate(Q4_WORDS)}
    words = run(program, r2=int.from_bytes(packed, "little"), **table)
    return [list(struct.pack("<I", word)) for word in words]


def as_bytes(codes: list[int]) -> list[int]:
    return [Q4_VALUES[code] & 0xFF for code in codes]


PACKED = [bytes(range(first, first + 4)) for first in range(0, 256, 4)] + [bytes([7, 250, 129, 64])]


@pytest.mark.parametrize("packed", PACKED, ids=bytes.hex)
def test_every_byte_of_two_codes_becomes_their_two_values(packed: bytes) -> None:
    low, high = looked_up(LOOK_UP.value, packed)
    assert low == as_bytes([byte & 15 for byte in packed])
    assert high == as_bytes([byte >> 4 for byte in packed])


@pytest.mark.parametrize("packed", PACKED, ids=bytes.hex)
def test_pairs_come_low_half_before_high_half(packed: bytes) -> None:
    halves = as_bytes([half for byte in packed for half in (byte & 15, byte >> 4)])
    assert looked_up(LOOK_UP_PAIRS.value, packed) == [halves[:4], halves[4:]]


@pytest.mark.parametrize("base", [1, 110, 241])
def test_packed_words_become_their_weights(base: int) -> None:
    """All low bytes with all codes: sign, exponent and mantissa as bfloat16 has them, and code 0 gives 0."""
    for code in range(16):
        codes = [code, (code + 1) % 16, (code + 5) % 16, 15 - code]
        for first in range(0, 256, 4):
            low = [first, first + 1, first + 2, first + 3]
            words = [int.from_bytes(bytes(numbers), "little") for numbers in (low, codes, [base - 1] * 4)]
            expected = [
                (byte >> 7 << 15 | base - 1 + one << 7 | byte & 0x7F) << 16 if one else 0
                for byte, one in zip(low, codes, strict=True)
            ]
            assert run(UNPACK.value, r4=words[0], r5=words[1], r6=words[2]) == expected
