"""The instructions that look q4 codes up, which the interpreter can't run, by an emulation of those few."""

from __future__ import annotations

import re
import struct

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")
pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")

from influence.engines.torch.matrices import Q4_VALUES
from influence.engines.torch.triton.formats import LOOK_UP, LOOK_UP_PAIRS, Q4_WORDS


def byte_permute(a: int, b: int, selector: int) -> int:
    """PTX `prmt.b32` without sign replication: each of the four low half bytes of the selector picks one of eight bytes."""
    source = (b << 32 | a).to_bytes(8, "little")
    picks = [selector >> 4 * i & 15 for i in range(4)]
    assert max(picks) < 8, "a fourth bit would replicate a sign"
    return int.from_bytes(bytes(source[pick] for pick in picks), "little")


OPERATIONS = {
    "shr.u32": lambda a, b: a >> b,
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "mov.b32": lambda a: a,
    "prmt.b32": byte_permute,
}


def run(program: str, codes: int) -> tuple[list[int], list[int]]:
    """What the program leaves in $0 and $1 as signed bytes, given $2, and the table in $3 to $6."""
    registers = {"$2": codes} | {f"${3 + i}": word for i, word in enumerate(Q4_WORDS)}
    for name, target, *sources in (
        re.split(r"[\s,]+", line) for line in re.findall(r"\w+\.[bu]32 \$?\w+, [^;]+", program)
    ):
        inputs = [registers[s] if s in registers else int(s, 0) for s in sources]
        registers[target] = OPERATIONS[name](*inputs) & 0xFFFFFFFF
    return tuple(list(struct.pack("<I", registers[name])) for name in ("$0", "$1"))  # type: ignore[return-value]


def as_bytes(codes: list[int]) -> list[int]:
    return [Q4_VALUES[code] & 0xFF for code in codes]


PACKED = [bytes(range(first, first + 4)) for first in range(0, 256, 4)] + [bytes([7, 250, 129, 64])]


@pytest.mark.parametrize("packed", PACKED, ids=bytes.hex)
def test_every_byte_of_two_codes_becomes_their_two_values(packed: bytes) -> None:
    low, high = run(LOOK_UP.value, int.from_bytes(packed, "little"))
    assert low == as_bytes([byte & 15 for byte in packed])
    assert high == as_bytes([byte >> 4 for byte in packed])


@pytest.mark.parametrize("packed", PACKED, ids=bytes.hex)
def test_pairs_come_low_half_before_high_half(packed: bytes) -> None:
    halves = as_bytes([half for byte in packed for half in (byte & 15, byte >> 4)])
    assert run(LOOK_UP_PAIRS.value, int.from_bytes(packed, "little")) == (halves[:4], halves[4:])
