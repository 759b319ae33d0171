"""Every kernel of every table that this CPU runs, against float64 numpy.

For each kernel first a case whose answer can be read off, then random ones on
sizes that no vector width divides, then the law of kernels.h: no split of
tokens, rows or queries changes a bit.
"""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence._native import Activation, kernels
from support.bfloat16 import from_bfloat16, to_bfloat16
from support.kernel_cases import (
    ROUNDING_TABLES,
    SIZES,
    Floats,
    as_weights,
    each_dtype,
    each_table,
    floats,
    widened,
)


def matmul(table: str, dtype: str, x: Floats, w: npt.NDArray[np.generic]) -> Floats:
    chosen = kernels.Kernels(table)
    out = np.full((x.shape[0], w.shape[0]), np.nan, np.float32)
    chosen.multiply(chosen.prepare(dtype, x), w, out)
    return out


# select


def test_the_best_table_comes_first_and_is_the_default() -> None:
    assert kernels.Kernels().name == kernels.supported()[0]
    assert kernels.supported()[-1] == "generic"


def test_an_unknown_table_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no kernel table 'avx1024'.*generic"):
        kernels.Kernels("avx1024")


# matmul


@each_table
@each_dtype
def test_weights_that_are_unit_vectors_pick_single_activations(table: str, dtype: str) -> None:
    x = np.array([[10, 20, 30, 40, 50], [1, 2, 3, 4, 5]], np.float32)
    picks = as_weights(np.eye(5)[[4, 0, 2]], dtype)
    assert matmul(table, dtype, x, picks).tolist() == [[50, 10, 30], [5, 1, 3]]


@each_table
@each_dtype
@pytest.mark.parametrize("cols", [*SIZES, 5633])
def test_a_product_agrees_with_float64(table: str, dtype: str, cols: int) -> None:
    for n_tokens, n_rows in [(1, 9), (2, 3), (7, 13), (17, 5), (61, 50)]:
        x = floats(n_tokens, cols, seed=cols)
        w = as_weights(floats(n_rows, cols, seed=cols + 1), dtype)
        rounds = table in ROUNDING_TABLES and dtype == "bf16"
        seen = widened(to_bfloat16(x)) if rounds else widened(x)
        size = np.abs(seen) @ np.abs(widened(w)).T
        error = np.abs(matmul(table, dtype, x, w) - seen @ widened(w).T)
        assert (error <= 1e-6 * size).all()


@each_table
@each_dtype
@settings(derandomize=True, deadline=None, max_examples=25)
@given(data=st.data())
def test_no_split_of_tokens_or_rows_changes_a_bit(table: str, dtype: str, data: st.DataObject) -> None:
    n_tokens = data.draw(st.integers(1, 20) | st.integers(40, 70), "tokens")
    n_rows = data.draw(st.integers(1, 20) | st.integers(40, 100), "rows")
    cols = data.draw(st.sampled_from([*SIZES, 2600]), "cols")
    token = data.draw(st.integers(0, n_tokens - 1), "a token")
    end = data.draw(st.integers(token + 1, n_tokens), "up to")
    row = data.draw(st.integers(0, n_rows - 1), "a row")
    last = data.draw(st.integers(row + 1, n_rows), "up to")
    x, w = floats(n_tokens, cols), as_weights(floats(n_rows, cols, seed=1), dtype)
    whole = matmul(table, dtype, x, w)
    part = matmul(table, dtype, x[token:end], w[row:last])
    assert part.tobytes() == whole[token:end, row:last].tobytes()


@each_table
@each_dtype
def test_strided_tokens_weights_and_outputs_are_used_in_place(table: str, dtype: str) -> None:
    chosen = kernels.Kernels(table)
    x, w = floats(9, 90), as_weights(floats(14, 70, seed=1), dtype)
    out = np.full((9, 20), -1, np.float32)
    chosen.multiply(chosen.prepare(dtype, x[:, 10:43]), w[::2, 5:38], out[:, 3:10])
    dense = matmul(table, dtype, x[:, 10:43].copy(), w[::2, 5:38].copy())
    assert out[:, 3:10].tobytes() == dense.tobytes()
    assert (out[:, :3] == -1).all() and (out[:, 10:] == -1).all()


@each_table
@each_dtype
def test_what_lies_beside_a_weight_matrix_does_not_matter(table: str, dtype: str) -> None:
    x, w = floats(5, 33), floats(6, 80, seed=1)
    beside = w.copy()
    beside[:, :20] = beside[:, 53:] = np.nan
    clean = matmul(table, dtype, x, as_weights(w, dtype)[:, 20:53])
    packed = as_weights(np.nan_to_num(beside, nan=1e4), dtype)
    packed[np.isnan(beside)] = as_weights([np.inf], dtype)[0]
    assert matmul(table, dtype, x, packed[:, 20:53]).tobytes() == clean.tobytes()


@pytest.mark.parametrize("table", ROUNDING_TABLES)
def test_activations_for_bf16_dots_are_rounded_to_nearest_even(table: str) -> None:
    if table not in kernels.supported():
        pytest.skip(f"needs a CPU that runs {table}")
    step = 2.0**-7  # between neighbouring bfloat16 in [1, 2)
    x = np.array([[1 + step / 2, 1 + 1.5 * step, 1 + 0.51 * step, 3e38]], np.float32)
    got = matmul(table, "bf16", x, as_weights(np.eye(4), "bf16"))
    assert got[0, :3].tolist() == [1, 1 + 2 * step, 1 + step]
    assert got[0, 3] == from_bfloat16(to_bfloat16(x))[0, 3]


def tile_sums(x: npt.NDArray[np.uint16], w: npt.NDArray[np.uint16]) -> Floats:
    """x @ w.T as Intel's manual defines TDPBF16PS, 32 columns a tile, for inputs that are not subnormal."""
    cols = -(-x.shape[1] // 32) * 32
    x, w = (np.pad(from_bfloat16(a), ((0, 0), (0, cols - a.shape[1]))) for a in (x, w))
    sums = np.zeros((len(x), len(w)), np.float32)
    for tile in range(0, cols, 32):
        halves = [np.zeros_like(sums), np.zeros_like(sums)]  # of the even and of the odd columns
        for col in range(tile, tile + 32):
            halves[col % 2] += np.outer(x[:, col], w[:, col])  # the products are exact
        sums += halves[0] + halves[1]
    return sums


@pytest.mark.parametrize("n_tokens", [1, 2, 16, 17, 32, 33, 70])
@pytest.mark.parametrize("cols", [31, 64, 1000, 2100])
def test_tiles_give_the_bits_that_their_definition_gives(n_tokens: int, cols: int) -> None:
    if "amx" not in kernels.supported():
        pytest.skip("needs a CPU with AMX")
    x, w = floats(n_tokens, cols), to_bfloat16(floats(70, cols, seed=1))
    assert matmul("amx", "bf16", x, w).tobytes() == tile_sums(to_bfloat16(x), w).tobytes()


# rows


@each_table
def test_every_half_is_widened_exactly(table: str) -> None:
    bits = np.arange(0x10000, dtype=np.uint16)
    out = np.empty(len(bits), np.float32)
    kernels.Kernels(table).load_row(bits.view(np.float16), 1.0, out)
    np.testing.assert_array_equal(out, bits.view(np.float16).astype(np.float32))
    kernels.Kernels(table).load_row(bits, 1.0, out)
    np.testing.assert_array_equal(out, from_bfloat16(bits))


@each_table
@each_dtype
@pytest.mark.parametrize("n", SIZES)
def test_a_row_is_widened_and_scaled(table: str, dtype: str, n: int) -> None:
    row, out = as_weights(floats(n), dtype), np.empty(n, np.float32)
    kernels.Kernels(table).load_row(row, 0.3, out)
    expected = widened(row).astype(np.float32) * np.float32(0.3)
    assert out.tobytes() == expected.tobytes()


@each_table
def test_norms_that_can_be_read_off(table: str) -> None:
    chosen, out = kernels.Kernels(table), np.empty(4, np.float32)
    x = np.array([1, -1, 7, -7], np.float32)  # mean 0, mean square 25
    weight = np.array([5, 10, 0, 1], np.float32)
    chosen.rms_norm(x, weight, 0.0, 0.0, out)
    assert out == pytest.approx([1, -2, 0, -1.4])
    chosen.layer_norm(x + 3, weight, np.array([0, 0, 2, 0], np.float32), 5.0, 0.0, out)
    assert out == pytest.approx([2, -3, 9, -8.4])


@each_table
@pytest.mark.parametrize("n", [*SIZES, 8192])
def test_norms_agree_with_float64(table: str, n: int) -> None:
    chosen, out = kernels.Kernels(table), np.empty(n, np.float32)
    x, weight, bias = 3 * floats(n) + np.float32(2), floats(n, seed=1), floats(n, seed=2)
    wide = x.astype(np.float64)
    chosen.rms_norm(x, weight, 1.0, 1e-5, out)
    scale = np.sqrt((wide**2).mean() + 1e-5)
    np.testing.assert_allclose(out, wide / scale * (weight + 1.0), rtol=2e-6, atol=2e-6)
    centered = wide - wide.mean()
    normed = centered / np.sqrt((centered**2).mean() + 1e-5) * weight.astype(np.float64)
    chosen.layer_norm(x, weight, bias, 0.0, 1e-5, out)
    np.testing.assert_allclose(out, normed + bias, rtol=2e-6, atol=4e-6)
    chosen.layer_norm(x, weight, None, 0.0, 1e-5, x)  # in place
    np.testing.assert_allclose(x, normed, rtol=2e-6, atol=4e-6)


@each_table
def test_a_quarter_turn_swaps_the_halves_of_a_head(table: str) -> None:
    head = np.array([1, 2, 3, 4], np.float32)
    cos, sin = np.zeros(2, np.float32), np.ones(2, np.float32)
    kernels.Kernels(table).rope(head, cos, sin, False)
    assert head.tolist() == [-3, -4, 1, 2]
    kernels.Kernels(table).rope(head, cos, sin, True)
    assert head.tolist() == [4, -3, -2, 1]


@each_table
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("half", SIZES[:-2])
def test_rope_turns_pairs_as_complex_numbers_turn(table: str, interleaved: bool, half: int) -> None:
    head, angle = floats(2 * half), floats(half, seed=1)
    pairs = head.reshape(half, 2).T if interleaved else head.reshape(2, half)
    turned = (pairs[0] + 1j * pairs[1].astype(np.complex128)) * np.exp(1j * angle.astype(np.float64))
    expected = np.stack([turned.real, turned.imag], axis=1 if interleaved else 0).reshape(-1)
    kernels.Kernels(table).rope(head, np.cos(angle), np.sin(angle), interleaved)
    np.testing.assert_allclose(head, expected, atol=1e-6)


def exact_activation(activation: Activation, x: Floats) -> npt.NDArray[np.float64]:
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        if activation == Activation.silu:
            return wide / (1 + np.exp(-wide))
        if activation == Activation.gelu:
            return wide * np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in wide])
        if activation == Activation.gelu_tanh:
            return wide / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    positive = np.maximum(wide, 0)
    return positive if activation == Activation.relu else positive**2


ACTIVATIONS = [
    Activation.silu,
    Activation.gelu,
    Activation.gelu_tanh,
    Activation.relu,
    Activation.relu_squared,
]
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.name)


@each_table
@each_activation
def test_activations_pass_large_numbers_and_stop_small_ones(table: str, activation: Activation) -> None:
    gate = np.array([-1e30, -1e4, -200, 0, 200, 1e4], np.float32)
    kernels.Kernels(table).activate(activation, gate, None)
    power = 2 if activation == Activation.relu_squared else 1
    assert gate.tolist() == [0, 0, 0, 0, 200.0**power, 1e4**power]


@each_table
@each_activation
@pytest.mark.parametrize("n", [*SIZES, 20000])
def test_activations_agree_with_float64(table: str, activation: Activation, n: int) -> None:
    gate = np.random.default_rng(n).uniform(-20, 20, n).astype(np.float32)
    up = floats(n, seed=1)
    exact = exact_activation(activation, gate)
    alone, gated = gate.copy(), gate.copy()
    kernels.Kernels(table).activate(activation, alone, None)
    kernels.Kernels(table).activate(activation, gated, up)
    assert (np.abs(alone - exact) <= 4e-7 * np.abs(exact) + 1e-7 * np.abs(gate)).all()
    assert gated.tobytes() == (alone * up).tobytes()


@each_table
def test_silu_keeps_its_digits_wherever_exp_has_them(table: str) -> None:
    gate = np.linspace(-80, 80, 20001, dtype=np.float32)
    exact = exact_activation(Activation.silu, gate)
    kernels.Kernels(table).activate(Activation.silu, gate, None)
    np.testing.assert_allclose(gate, exact, rtol=4e-7)


@each_table
@pytest.mark.parametrize("n", [*SIZES, 20000])
def test_softcap_agrees_with_float64(table: str, n: int) -> None:
    x = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32) ** 5 * 400
    expected = 30 * np.tanh(x.astype(np.float64) / 30)
    kernels.Kernels(table).softcap(x, 30.0)
    np.testing.assert_allclose(x, expected, rtol=5e-7)


@each_table
def test_softcap_tends_to_the_cap_and_keeps_small_numbers(table: str) -> None:
    x = np.array([-np.inf, -1e30, -1e-20, 0, 1e-20, 1e30, np.inf], np.float32)
    expected = [-50, -50, x[2], 0, x[4], 50, 50]
    kernels.Kernels(table).softcap(x, 50.0)
    assert x == pytest.approx(expected, rel=2e-7)


@each_table
@pytest.mark.parametrize("n", SIZES)
def test_add_and_scale_round_as_numpy_does(table: str, n: int) -> None:
    chosen, x, y = kernels.Kernels(table), floats(n), floats(n, seed=1)
    expected = x + np.float32(0.3) * y
    chosen.add(x, y, 0.3)
    assert x.tobytes() == expected.tobytes()
    chosen.scale(x, 0.7)
    assert x.tobytes() == (expected * np.float32(0.7)).tobytes()


@each_table
@each_activation
def test_an_element_does_not_depend_on_its_place_in_the_row(table: str, activation: Activation) -> None:
    chosen, x = kernels.Kernels(table), floats(40, scale=4)
    whole, capped = x.copy(), x.copy()
    chosen.activate(activation, whole, None)
    chosen.softcap(capped, 3.0)
    for i in range(40):
        alone, one = x[i : i + 1].copy(), x[i : i + 1].copy()
        chosen.activate(activation, alone, None)
        chosen.softcap(one, 3.0)
        assert alone.tobytes() == whole[i].tobytes() and one.tobytes() == capped[i].tobytes()
