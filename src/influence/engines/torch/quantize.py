"""Dense weights into the formats of few bits, on the device where they lie, at load.

q8 chooses scales and values by the rules of csrc/kernels/pack_rows.h, so that a
model in 8 bits is the same model on every engine; only the layout differs
(`matrices.py`). q4 has a scale for each group, as there, but no zero: its products
are bound by instructions on a GPU (docs/gpu.md), and a zero is one more a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from influence.engines.torch.matrices import (
    GROUP_COLUMNS,
    Q4_VALUES,
    GroupedMatrix,
    Matrix,
    PackedMatrix,
    join_halves,
)
from torch import Tensor
from torch.nn import functional

MatrixFormat = Literal["stored", "q8", "q4", "packed"]

_LARGEST = 127  # of a byte's values, on both sides
_N_EXPONENTS = 15  # that a code can name; code 0 is for all others
# The values that the weight of the largest size becomes at the scales that q4 tries.
_Q4_REACHES = (-127, 112, -120, -134, -142, 104, 120, 128)
# Weights that are worked on at once: q4's search holds some forty float32 numbers for each.
_WEIGHTS_AT_ONCE = 1 << 22


def converted(weight: Tensor, form: MatrixFormat) -> Matrix:
    """A dense (rows, columns) matrix in that format; packed keeps what is not bfloat16 as it is."""
    if form == "stored" or (form == "packed" and weight.dtype != torch.bfloat16):
        return weight
    return pack(weight) if form == "packed" else quantize(weight, form)


def quantize(weight: Tensor, form: Literal["q8", "q4"]) -> GroupedMatrix:
    """The nearest q8 or q4 matrix, group by group. (rows, columns), any float dtype."""
    rows_at_once = max(1, _WEIGHTS_AT_ONCE // weight.shape[1])
    parts = [_quantized_rows(rows, form) for rows in weight.split(rows_at_once)]
    values, scales = (torch.cat(part) for part in zip(*parts, strict=True))
    return GroupedMatrix(form, values, scales, weight.shape[1], weight.dtype)


def _quantized_rows(rows: Tensor, form: Literal["q8", "q4"]) -> tuple[Tensor, Tensor]:
    group = GROUP_COLUMNS[form]
    groups = _padded(rows, group).float().view(len(rows), -1, group)
    choose: Callable[[Tensor], tuple[Tensor, Tensor]] = _q8_groups if form == "q8" else _q4_groups
    values, scales = choose(groups)
    values = values.view(len(rows), -1)
    return (values if form == "q8" else join_halves(values)), scales.view(len(rows), -1)


def _padded(rows: Tensor, group: int) -> Tensor:
    """Zeros after the last column, up to a whole group."""
    return functional.pad(rows, (0, -rows.shape[1] % group))


def _q8_groups(groups: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, groups, 64) -> int8 values as these, bfloat16 scales (rows, groups, 1)."""
    scales = (groups.abs().amax(dim=-1, keepdim=True) / _LARGEST).bfloat16()
    values = (groups * _inverse(scales)).clamp(-_LARGEST, _LARGEST).round()
    return values.nan_to_num(0).to(torch.int8), scales


def _inverse(scales: Tensor) -> Tensor:
    """1 / scale in float32; 0 where that is no number, so that all values become 0."""
    size, info = scales.float().abs(), torch.finfo(torch.float32)
    usable = (size >= info.tiny) & (size <= info.max)
    return torch.where(usable, scales.float(), 1).reciprocal() * usable


def _q4_groups(groups: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, groups, 32) -> uint8 codes as these, bfloat16 scales (rows, groups, 1): those that lose least.

    An error counts by the weight's own size, for large weights stand where
    activations matter, and by the root of the group's mean square.
    """
    largest = groups.abs().amax(dim=-1, keepdim=True)
    unit = torch.where(largest >= torch.finfo(torch.float32).tiny, largest, torch.inf)
    weights = groups / unit
    importance = weights.abs() + weights.square().mean(dim=-1, keepdim=True).sqrt()
    scales = (_q4_scales(weights, importance) * largest).bfloat16()
    return _q4_codes(groups * _inverse(scales)).to(torch.uint8), scales


def _q4_scales(weights: Tensor, importance: Tensor) -> Tensor:
    """Of the scales that the largest weight's reaches give, the best, refined by least squares."""
    table = torch.tensor(Q4_VALUES, dtype=torch.float32, device=weights.device)
    extreme = weights.gather(-1, weights.abs().argmax(dim=-1, keepdim=True))
    best = torch.zeros_like(extreme)
    least = torch.full_like(extreme, torch.inf)
    for reach in _Q4_REACHES:
        values = table[_q4_codes(weights * _inverse((extreme / reach).bfloat16()))]
        weighted = importance * values
        squares = (weighted * values).sum(dim=-1, keepdim=True)
        scale = (weighted * weights).sum(dim=-1, keepdim=True) / squares.where(squares > 0, torch.inf)
        lost = (importance * (weights - scale * values).square()).sum(dim=-1, keepdim=True)
        best, least = torch.where(lost < least, scale, best), torch.minimum(lost, least)
    return best


def _q4_codes(scaled: Tensor) -> Tensor:
    """The code whose value is nearest; int64, as `scaled`."""
    table = torch.tensor(Q4_VALUES, dtype=torch.float32, device=scaled.device)
    return torch.bucketize(scaled.nan_to_num(0), (table[1:] + table[:-1]) / 2)


def pack(weight: Tensor) -> PackedMatrix:
    """The same weights in 12 bits each, and a list of the rare ones. (rows, columns) bfloat16."""
    bits = _padded(weight, GROUP_COLUMNS["packed"]).view(torch.int16).int() & 0xFFFF
    exponents = bits >> 7 & 0xFF
    base = _commonest_exponents(exponents[:, : weight.shape[1]])
    code = exponents - base + 1
    is_common = (code >= 1) & (code <= _N_EXPONENTS)
    low = ((bits >> 8 & 0x80) | (bits & 0x7F)).to(torch.uint8)
    codes = join_halves((code * is_common).to(torch.uint8))
    # A positive zero is what code 0 gives by itself; a negative one is listed, so that the bits are the same.
    rare = ~is_common & (bits != 0)
    rows, columns = rare.nonzero(as_tuple=True)
    starts = functional.pad(torch.bincount(rows, minlength=len(weight)).cumsum(0), (1, 0))
    return PackedMatrix(low, codes, base, starts.int(), columns.int(), weight[rows, columns], weight.shape[1])


def _commonest_exponents(exponents: Tensor) -> int:
    """Where the run of `_N_EXPONENTS` begins that covers the most weights; at least 1, for 0 is no exponent."""
    counts = torch.bincount(exponents.flatten(), minlength=256)[1:]
    return 1 + int(counts.unfold(0, _N_EXPONENTS, 1).sum(dim=1).argmax())
