"""The instructions that look q4 codes up, which the interpreter can't run, by an emulation of those few."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")
pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")

from influence.engines.torch.matrices import Q4_VALUES
from influence.engines.torch.triton.tiles import LOOK_UP


def byte_permute(a: int, b: int, selector: int) -> int:
    """PTX `prmt.b32` without sign replication: each half byte of the selector picks one of eight bytes."""
    source = (b << 32 | a).to_bytes(8, "little")
    picks = [selector >> 4 * i & 15 for i in range(4)]
    assert max(picks) < 8, "a fourth bit would replicate a sign"
    return int.from_bytes(bytes(source[pick] for pick in picks), "little")


OPERATIONS = {
    "shr.u32": lambda a, b: a >> b,
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "prmt.b32": byte_permute,
}


def run(program: str, codes: int) -> tuple[int, int]:
    """What the program leaves in $0 and $1, given $2."""
    registers = {"$2": codes}
    for name, target, *sources in (
        re.split(r"[\s,]+", line) for line in re.findall(r"\w+\.[bu]32 \$?\w+, [^;]+", program)
    ):
        inputs = [registers[s] if s in registers else int(s, 0) for s in sources]
        registers[target] = OPERATIONS[name](*inputs) & 0xFFFFFFFF
    return registers["$0"], registers["$1"]


def test_every_byte_of_two_codes_becomes_their_two_values() -> None:
    for first in range(0, 256, 4):
        packed = bytes(range(first, first + 4))
        low, high = run(LOOK_UP.value, int.from_bytes(packed, "little"))
        assert list(low.to_bytes(4, "little")) == [Q4_VALUES[byte & 15] + 128 for byte in packed]
        assert list(high.to_bytes(4, "little")) == [Q4_VALUES[byte >> 4] + 128 for byte in packed]
