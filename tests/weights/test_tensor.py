"""Tensors cut without numpy lie where numpy cuts them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from influence.weights.tensor import Tensor
from support.tensors import tensor_of

NUMBERS = np.arange(24 * 5, dtype=np.float32).reshape(24, 5)


def matrix() -> Tensor:
    return tensor_of("w", "F32", NUMBERS)


def test_a_tensor_shows_the_numbers_that_lie_there() -> None:
    np.testing.assert_array_equal(matrix().array, NUMBERS)
    assert np.shares_memory(matrix().array, NUMBERS)
    assert matrix().size_bytes == NUMBERS.nbytes


def test_rows_of_a_tensor_are_a_view() -> None:
    cut = matrix().rows(3, 7)
    np.testing.assert_array_equal(cut.array, NUMBERS[3:10])
    assert (cut.shape, len(cut.data)) == ((7, 5), 7 * 5 * 4)
    assert np.shares_memory(cut.array, NUMBERS)


def test_columns_of_a_tensor_are_a_view() -> None:
    cut = matrix().columns(1, 3)
    np.testing.assert_array_equal(cut.array, NUMBERS[:, 1:4])
    np.testing.assert_array_equal(cut.rows(20, 4).array, NUMBERS[20:, 1:4])
    assert np.shares_memory(cut.array, NUMBERS)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_part_holds_the_rows_whose_turn_it_is(index: int) -> None:
    cut = matrix().part(index, n_parts=3, n_rows=2)
    np.testing.assert_array_equal(cut.array, NUMBERS.reshape(4, 3, 2, 5)[:, index])
    assert np.shares_memory(cut.array, NUMBERS)


def test_a_part_of_a_vector_is_flattened_without_its_gaps() -> None:
    vector = np.arange(24, dtype=np.float16)
    flat = tensor_of("b", "F16", vector).part(1, n_parts=3, n_rows=2).flat()
    np.testing.assert_array_equal(flat.array, vector.reshape(4, 3, 2)[:, 1].reshape(-1))


def test_what_has_no_gaps_is_flattened_where_it_lies() -> None:
    flat = matrix().flat()
    np.testing.assert_array_equal(flat.array, NUMBERS.reshape(-1))
    assert np.shares_memory(flat.array, NUMBERS)


def test_a_scalar_and_an_empty_matrix_are_tensors_too() -> None:
    assert Tensor.whole("s", "BF16", (), b"\x80\x3f").to_float32() == 1.0
    assert Tensor.whole("e", "F32", (0, 4), b"").array.shape == (0, 4)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_widening_is_exact(dtype: str) -> None:
    values = np.array([0.0, -1.5, 2.0**-14, np.inf], np.float32)
    bits = {
        "F32": values,
        "F16": values.astype(np.float16),
        "BF16": (values.view(np.uint32) >> 16).astype("u2"),
    }
    np.testing.assert_array_equal(tensor_of("w", dtype, bits[dtype]).to_float32(), values)  # type: ignore[arg-type]


def test_a_tensor_reaches_another_process_with_its_numbers() -> None:
    part = matrix().part(1, n_parts=3, n_rows=2)
    copy = pickle.loads(pickle.dumps(part))
    assert (copy.name, copy.dtype, copy.shape) == (part.name, part.dtype, part.shape)
    np.testing.assert_array_equal(copy.array, part.array)
