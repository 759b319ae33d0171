"""Matrices of few bits stand for the weights that their layout says."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from influence.engines.torch.matrices import GroupedMatrix, PackedMatrix, dense, join_halves, split_halves
from influence.engines.torch.ops import gemv


def test_half_bytes_stand_sixteen_columns_apart() -> None:
    halves = (torch.arange(64, dtype=torch.uint8) % 16).view(1, 64)
    halves[0, 16] = 5
    joined = join_halves(halves)
    assert joined[0, 0] == 0 | 5 << 4
    assert torch.equal(split_halves(joined), halves)


def test_a_q8_weight_is_a_whole_number_times_its_group_s_scale() -> None:
    values = torch.zeros(2, 128, dtype=torch.int8)
    values[0, 1], values[1, 64] = 5, -7
    matrix = GroupedMatrix("q8", values, torch.tensor([[0.5, 1], [2, 3]]).bfloat16(), 100, torch.float32)
    weights = dense(matrix)
    assert (tuple(weights.shape), matrix.shape) == ((2, 100), (2, 100))
    assert (weights[0, 1], weights[1, 64], torch.count_nonzero(weights)) == (2.5, -21, 2)


def test_a_q4_weight_is_a_code_s_value_times_its_group_s_scale() -> None:
    codes = torch.full((1, 32), 8, dtype=torch.uint8)  # 8 stands for zero
    codes[0, 3], codes[0, 20] = 0, 15
    matrix = GroupedMatrix("q4", join_halves(codes), torch.tensor([[2.0]]).bfloat16(), 32, torch.float32)
    weights = dense(matrix)
    assert (weights[0, 3], weights[0, 20], torch.count_nonzero(weights)) == (-254, 224, 2)
    assert gemv(torch.ones(1, 32), matrix).item() == -30


def test_a_packed_weight_is_its_bits_put_together_and_a_rare_one_is_listed() -> None:
    low, codes = torch.zeros(1, 32, dtype=torch.uint8), torch.zeros(1, 32, dtype=torch.uint8)
    low[0, 0], codes[0, 0] = 0x80 | 0x40, 1  # minus, mantissa 1.5, exponent 2^0
    starts, column = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([31], dtype=torch.int32)
    rare = torch.tensor([1e-30]).bfloat16()
    matrix = PackedMatrix(low, join_halves(codes), 127, starts, column, rare, 32)
    weights = dense(matrix)
    assert weights[0, 0] == -1.5 and weights[0, 31] == rare[0] and torch.count_nonzero(weights) == 2
