"""What a layer is made of on a device: norms, and matrices in each of their formats.

    dense    (out, in) bfloat16, float16 or float32: a plain tensor
    q8       groups of 64 columns: whole numbers from -127 to 127, times the group's scale
    q4       groups of 32 columns: codes of Q4_VALUES, times the group's scale
    packed   bfloat16 in 12 bits, the very same weights

Columns are filled up with zeros to whole groups. Two half bytes of one byte
stand 16 columns apart: byte i of a group of 32 holds column i in its low half
and column i + 16 in its high half, so that a kernel takes two straight runs of
activations and never interleaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from influence.models.spec import NormKind, QkNorm
from torch import Tensor

GROUP_COLUMNS = {"q8": 64, "q4": 32, "packed": 32}
HALF_GROUP = 16  # columns between the two halves of a byte

# What a q4 code stands for, before its scale: where normally distributed weights lie whose largest in
# 32 is -127, one value at 0. (csrc/packed.h has others, for groups that have a zero, too.)
Q4_VALUES = (-127, -102, -83, -66, -51, -38, -25, -12, 0, 13, 26, 40, 54, 71, 89, 112)


@dataclass(frozen=True, slots=True)
class Norm:
    """y = x / rms(x) * (weight + offset) + bias; "layer" takes the mean off x first."""

    kind: NormKind
    eps: float
    offset: float
    weight: Tensor  # (size,), or (heads, head_dim): float32
    bias: Tensor | None = None  # as weight


@dataclass(frozen=True, slots=True)
class GroupedMatrix:
    """A q8 or q4 matrix (rows, columns)."""

    format: Literal["q8", "q4"]
    values: Tensor  # q8: int8 (rows, padded columns); q4: uint8 (rows, padded columns / 2), two codes a byte
    scales: Tensor  # (rows, groups) bfloat16
    columns: int
    dtype: torch.dtype  # of the activations that it meets, and of `dense`

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.values), self.columns

    @property
    def size_bytes(self) -> int:
        return int(self.values.nbytes + self.scales.nbytes)

    def dense(self) -> Tensor:
        """(rows, columns) in `dtype`."""
        group = GROUP_COLUMNS[self.format]
        if self.format == "q8":
            values = self.values.float()
        else:
            table = torch.tensor(Q4_VALUES, dtype=torch.float32, device=self.values.device)
            values = table[split_halves(self.values).int()]
        grouped = values.view(len(values), -1, group) * self.scales.float().unsqueeze(-1)
        return grouped.view(len(values), -1)[:, : self.columns].to(self.dtype)


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A bfloat16 matrix (rows, columns) in 12 bits a weight, without loss.

    A weight whose exponent is one of 15 neighbouring ones has code
    1 + exponent - base; every other weight (a zero, a very small or large one)
    has code 0, which adds nothing to a product, and stands in the list of rare
    ones, sorted by row.
    """

    low: Tensor  # (rows, padded columns) uint8: sign in bit 7, mantissa below
    codes: Tensor  # (rows, padded columns / 2) uint8, two codes a byte
    base: int  # the exponent field of code 1
    rare_starts: Tensor  # (rows + 1,) int32: row r has the rare ones [starts[r], starts[r + 1])
    rare_columns: Tensor  # (n_rare,) int32
    rare_values: Tensor  # (n_rare,) bfloat16
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.low), self.columns

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16

    @property
    def size_bytes(self) -> int:
        parts = (self.low, self.codes, self.rare_starts, self.rare_columns, self.rare_values)
        return int(sum(part.nbytes for part in parts))

    def dense(self) -> Tensor:
        """(rows, columns) bfloat16, bit for bit what was packed."""
        low, code = self.low.int(), split_halves(self.codes).int()
        bits = ((low & 0x80) << 8) | ((code + self.base - 1) << 7) | (low & 0x7F)
        whole = torch.where(code > 0, bits, 0).to(torch.int16).view(torch.bfloat16)
        counts = self.rare_starts.diff().long()
        rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        whole[rows, self.rare_columns.long()] = self.rare_values
        return whole[:, : self.columns]


Matrix: TypeAlias = "Tensor | GroupedMatrix | PackedMatrix"


@dataclass(frozen=True, slots=True)
class Linear:
    """x @ weight.T + bias; several slots may be stacked along the rows."""

    weight: Matrix  # (out, in)
    bias: Tensor | None = None  # (out,)


@dataclass(frozen=True, slots=True)
class Heads:
    """How a stacked projection is cut: q, then k, then v."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    qk_norm: QkNorm = "none"


def dense(weight: Matrix) -> Tensor:
    """Any matrix as a plain tensor, (out, in)."""
    return weight.dense() if isinstance(weight, GroupedMatrix | PackedMatrix) else weight


def size_bytes(weight: Matrix) -> int:
    """Of any matrix on its device."""
    return weight.size_bytes if isinstance(weight, GroupedMatrix | PackedMatrix) else int(weight.nbytes)


def split_halves(packed: Tensor) -> Tensor:
    """(rows, n) bytes -> (rows, 2 n) half bytes, in the order of their columns."""
    runs = packed.view(len(packed), -1, HALF_GROUP)
    return torch.stack([runs & 15, runs >> 4], dim=2).view(len(packed), -1)


def join_halves(halves: Tensor) -> Tensor:
    """The inverse: (rows, 2 n) uint8 below 16, n a multiple of 16 -> (rows, n)."""
    runs = halves.view(len(halves), -1, 2, HALF_GROUP)
    return (runs[:, :, 0] | (runs[:, :, 1] << 4)).reshape(len(halves), -1)
