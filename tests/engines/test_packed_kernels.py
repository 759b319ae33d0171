"""Weights of few bits: every table against float64 numpy, and the law that no split changes a bit."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence import _native
from influence._native import kernels
from support.kernel_cases import SIZES, Floats, as_weights, each_dtype, each_table, floats, widened
from support.packed import FORMATS, GROUP, PANEL, Q4_VALUES, Bytes, packed, seen, unpacked

each_format = pytest.mark.parametrize("form", FORMATS)


def matmul(table: str, form: str, x: Floats, data: Bytes, n_rows: int) -> Floats:
    chosen = kernels.Kernels(table)
    out = np.full((x.shape[0], n_rows), np.nan, np.float32)
    chosen.multiply_packed(chosen.prepare(form, x), data, out)
    return out


# packing


@each_table
@each_format
def test_a_weight_that_is_a_value_of_its_scale_is_kept_exactly(table: str, form: str) -> None:
    values = np.arange(-127, 128) if form == "q8" else Q4_VALUES
    cols = GROUP[form]
    rows = np.resize(values, (5, cols)).astype(np.float32) / 8
    rows[:, 0] = -127 / 8  # the largest, which makes the scale 1/8
    np.testing.assert_array_equal(unpacked(packed(rows, form, table), form, 5, cols), rows)


@each_table
@each_dtype
def test_q8_is_off_by_half_a_step_at_most(table: str, dtype: str) -> None:
    w = as_weights(floats(70, 200), dtype)
    off = np.abs(unpacked(packed(w, "q8", table), "q8", 70, 200) - widened(w))
    groups = np.pad(np.abs(widened(w)), ((0, 0), (0, 56))).reshape(70, 4, 64)
    step = np.repeat(groups.max(axis=2), 64, axis=1)[:, :200] / 127
    assert (off <= 0.5 * step * 1.01 + 127 * step * 2**-8).all()  # the scale is a bfloat16
    assert (off <= 0.51 * step).mean() > 0.9


@each_table
def test_q4_loses_less_than_fifteen_even_steps_would(table: str) -> None:
    w = floats(128, 1024)
    groups = w.reshape(128, -1, 32)
    step = np.abs(groups).max(axis=2, keepdims=True) / 7
    even = (np.rint(groups / step) * step - groups).std()
    assert (unpacked(packed(w, "q4", table), "q4", 128, 1024) - w).std() < 0.85 * even


@each_table
@each_format
def test_every_table_packs_the_same_bytes(table: str, form: str) -> None:
    w = np.concatenate([floats(70, 300, scale=scale, seed=3) for scale in (1e-20, 1.0, 3e4)])
    assert packed(w, form, table).tobytes() == packed(w, form, "generic").tobytes()


@each_format
def test_any_number_of_threads_packs_the_same_bytes(form: str) -> None:
    w = floats(200, 300)
    assert packed(w, form, threads=3).tobytes() == packed(w, form, threads=1).tobytes()


@each_format
def test_a_matrix_that_lies_in_groups_of_rows_is_packed_as_if_it_lay_in_one(form: str) -> None:
    fused = floats(10, 3, 32, 50)
    part = fused[:, 1]  # (10, 32, 50), with gaps
    out = np.zeros(_native.packed_bytes(form, 320, 50), np.uint8)
    _native.pack(part, form, out, "generic", 1)
    assert out.tobytes() == packed(np.ascontiguousarray(part).reshape(320, 50), form).tobytes()


@each_table
@each_format
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_number_makes_its_outputs_nan(table: str, form: str, bad: float) -> None:
    w = floats(3, 100)
    w[1, 70] = bad
    out = matmul(table, form, floats(2, 100, seed=1), packed(w, form, table), 3)
    assert np.isnan(out).tolist() == [[False, True, False]] * 2


@each_table
@each_format
def test_zeros_tiny_and_huge_weights_are_packed(table: str, form: str) -> None:
    w = np.zeros((4, 64), np.float32)
    w[1] = 1e-42
    w[2], w[3] = floats(64, scale=1e-30), floats(64, scale=1e36)
    whole = unpacked(packed(w, form, table), form, 4, 64)
    assert not whole[:2].any()
    tolerance = 0.01 if form == "q8" else 0.2
    np.testing.assert_allclose(whole[2:] / np.abs(w[2:]).max(), w[2:] / np.abs(w[2:]).max(), atol=tolerance)


# products


@each_table
@each_format
def test_weights_that_are_unit_vectors_pick_single_activations(table: str, form: str) -> None:
    x = np.array([[127, 20, 30, 40, 50], [1, 2, 127, 4, 5]], np.float32)
    picks = packed(np.eye(5, dtype=np.float32)[[4, 0, 2]], form)
    np.testing.assert_allclose(matmul(table, form, x, picks, 3), [[50, 127, 30], [5, 1, 127]], rtol=2**-8)


@each_table
@each_format
@pytest.mark.parametrize("cols", [*SIZES, 2600])
def test_a_product_agrees_with_float64(table: str, form: str, cols: int) -> None:
    for n_tokens, n_rows in [(1, 9), (2, 64), (7, 65), (13, 130)]:
        x = floats(n_tokens, cols, seed=cols)
        data = packed(floats(n_rows, cols, seed=cols + 1), form)
        w = unpacked(data, form, n_rows, cols)
        size = np.abs(seen(x, form)) @ np.abs(w).T
        error = np.abs(matmul(table, form, x, data, n_rows) - seen(x, form) @ w.T)
        assert (error <= 1e-6 * size).all()


@each_table
@each_format
@settings(derandomize=True, deadline=None, max_examples=25)
@given(data=st.data())
def test_no_split_of_tokens_or_panels_changes_a_bit(table: str, form: str, data: st.DataObject) -> None:
    n_tokens = data.draw(st.integers(1, 20) | st.integers(40, 70), "tokens")
    n_rows = data.draw(st.integers(1, 200), "rows")
    cols = data.draw(st.sampled_from([*SIZES, 2600]), "cols")
    token = data.draw(st.integers(0, n_tokens - 1), "a token")
    end = data.draw(st.integers(token + 1, n_tokens), "up to")
    row = PANEL * data.draw(st.integers(0, (n_rows - 1) // PANEL), "a panel's first row")
    x, whole_w = floats(n_tokens, cols), packed(floats(n_rows, cols, seed=1), form)
    panel = _native.packed_bytes(form, 1, cols)
    whole = matmul(table, form, x, whole_w, n_rows)
    part = matmul(table, form, x[token:end], whole_w[row // PANEL * panel :], n_rows - row)
    assert part.tobytes() == whole[token:end, row:].tobytes()


@each_table
@each_format
def test_more_tokens_than_a_kernel_has_room_for_are_each_as_alone(table: str, form: str) -> None:
    x, w = floats(531, 70), packed(floats(3, 70, seed=1), form)
    alone = np.concatenate([matmul(table, form, x[[t]], w, 3) for t in (0, 511, 512, 530)])
    assert matmul(table, form, x, w, 3)[[0, 511, 512, 530]].tobytes() == alone.tobytes()


@each_table
@each_format
def test_activations_that_are_no_numbers_reach_their_token_alone(table: str, form: str) -> None:
    x = floats(3, 100)
    x[1, 99] = math.inf
    out = matmul(table, form, x, packed(floats(2, 100, seed=1), form), 2)
    assert np.isnan(out).tolist() == [[False] * 2, [True] * 2, [False] * 2]


@each_format
def test_bytes_of_another_size_are_refused(form: str) -> None:
    chosen = kernels.Kernels("generic")
    x = chosen.prepare(form, floats(1, 64))
    with pytest.raises(ValueError, match="as many packed rows"):
        chosen.multiply_packed(x, packed(floats(65, 64), form), np.zeros((1, 64), np.float32))
    with pytest.raises(ValueError, match="not those of"):
        _native.Packed(packed(floats(65, 64), form), form, 64, 64)
    with pytest.raises(ValueError, match="packed_bytes"):
        _native.pack(floats(2, 2), form, np.zeros(3, np.uint8), "generic", 1)
