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
from support.bfloat16 import from_bfloat16, to_bfloat16

from influence._native import Activation, kernels

Floats = npt.NDArray[np.float32]

SIZES = [1, 2, 3, 5, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257, 1000]
DTYPES = ["f32", "f16", "bf16"]
CACHES = [np.float32, np.float16]
SLOTS = 64

each_table = pytest.mark.parametrize("table", kernels.supported())
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_cache = pytest.mark.parametrize("cache", CACHES, ids=["f32", "f16"])


def floats(*shape: int, seed: int = 0, scale: float = 1.0) -> Floats:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def as_weights(w: npt.ArrayLike, dtype: str) -> npt.NDArray[np.generic]:
    if dtype == "bf16":
        return to_bfloat16(w)
    return np.asarray(w, dtype=np.float32 if dtype == "f32" else np.float16)


def widened(w: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    return (from_bfloat16(w) if w.dtype == np.uint16 else w).astype(np.float64)


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
    for n_tokens, n_rows in [(1, 9), (2, 3), (7, 13), (17, 5)]:
        x = floats(n_tokens, cols, seed=cols)
        w = as_weights(floats(n_rows, cols, seed=cols + 1), dtype)
        seen = widened(to_bfloat16(x)) if (table, dtype) == ("avx512_bf16", "bf16") else widened(x)
        size = np.abs(seen) @ np.abs(widened(w)).T
        error = np.abs(matmul(table, dtype, x, w) - seen @ widened(w).T)
        assert (error <= 1e-6 * size).all()


@each_table
@each_dtype
@settings(derandomize=True, deadline=None, max_examples=25)
@given(data=st.data())
def test_no_split_of_tokens_or_rows_changes_a_bit(table: str, dtype: str, data: st.DataObject) -> None:
    n_tokens = data.draw(st.integers(1, 20), "tokens")
    n_rows = data.draw(st.integers(1, 20), "rows")
    cols = data.draw(st.sampled_from(SIZES), "cols")
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


def test_activations_for_bf16_dots_are_rounded_to_nearest_even() -> None:
    if "avx512_bf16" not in kernels.supported():
        pytest.skip("needs a CPU with AVX-512 BF16")
    step = 2.0**-7  # between neighbouring bfloat16 in [1, 2)
    x = np.array([[1 + step / 2, 1 + 1.5 * step, 1 + 0.51 * step, 3e38]], np.float32)
    got = matmul("avx512_bf16", "bf16", x, as_weights(np.eye(4), "bf16"))
    assert got[0, :3].tolist() == [1, 1 + 2 * step, 1 + step]
    assert got[0, 3] == from_bfloat16(to_bfloat16(x))[0, 3]


# attend


class State:
    """Queries and what attend keeps of them."""

    def __init__(self, q: Floats) -> None:
        self.q = q
        self.max = np.full(len(q), -np.inf, np.float32)
        self.sum = np.zeros(len(q), np.float32)
        self.out = np.zeros(q.shape, np.float32)

    def attend(
        self,
        table: str,
        keys: npt.NDArray[np.generic],
        values: npt.NDArray[np.generic],
        ranges: list[tuple[int, int]],
        softcap: float = 0.0,
    ) -> "State":
        first, last = (np.array(ends, np.int32) for ends in zip(*ranges, strict=True))
        kernels.Kernels(table).attend(
            self.q, keys, values, first, last, softcap, self.max, self.sum, self.out
        )
        return self

    def result(self) -> Floats:
        return self.out / self.sum[:, None]

    def some(self, chosen: slice) -> bytes:
        return b"".join(a[chosen].tobytes() for a in (self.max, self.sum, self.out))


def block(
    head_dim: int, cache: type, seed: int = 0
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    keys = floats(head_dim, SLOTS, seed=seed).astype(cache)
    return keys, floats(SLOTS, head_dim, seed=seed + 1).astype(cache)


def softmax_mix(
    q: Floats, keys: npt.ArrayLike, values: npt.ArrayLike, valid: npt.NDArray[np.bool_], softcap: float
) -> npt.NDArray[np.float64]:
    """Attention in float64: keys (head_dim, slots), values (slots, head_dim), valid (queries, slots)."""
    s = q.astype(np.float64) @ np.asarray(keys, np.float64)
    s = softcap * np.tanh(s / softcap) if softcap else s
    s = np.where(valid, s, -np.inf)
    p = np.exp(s - s.max(axis=1, keepdims=True))
    mixed: npt.NDArray[np.float64] = p @ np.asarray(values, np.float64) / p.sum(axis=1, keepdims=True)
    return mixed


@each_table
@each_cache
def test_a_query_along_one_key_gets_that_keys_value(table: str, cache: type) -> None:
    keys = np.eye(SLOTS, dtype=cache)  # slot j is the unit vector j
    values = (100.0 * np.arange(SLOTS)[:, None] + np.arange(SLOTS)).astype(cache)
    q = np.float32(1e4) * np.eye(SLOTS, dtype=np.float32)[[3, 63, 40]]
    state = State(q).attend(table, keys, values, [(0, 64), (0, 64), (0, 41)])
    assert state.out.tolist() == values[[3, 63, 40]].tolist()
    assert state.sum.tolist() == [1, 1, 1]
    assert state.max.tolist() == [1e4, 1e4, 1e4]


@each_table
@each_cache
@pytest.mark.parametrize("head_dim", SIZES[:-1])
@pytest.mark.parametrize("softcap", [0.0, 5.0])
def test_attention_over_blocks_agrees_with_float64(
    table: str, cache: type, head_dim: int, softcap: float
) -> None:
    n = 1 + head_dim % 16
    rng = np.random.default_rng(head_dim)
    state = State(floats(n, head_dim, scale=2 / math.sqrt(head_dim)))
    blocks = [block(head_dim, cache, seed) for seed in (1, 3, 5)]
    valid = np.zeros((n, 3 * SLOTS), bool)
    for index, (keys, values) in enumerate(blocks):
        ranges = [tuple(sorted(rng.integers(0, SLOTS + 1, 2))) for _ in range(n)]
        for i, (first, last) in enumerate(ranges):
            valid[i, index * SLOTS + first : index * SLOTS + last] = True
        state.attend(table, keys, values, ranges, softcap)
    every_key = np.concatenate([keys for keys, _ in blocks], axis=1)
    every_value = np.concatenate([values for _, values in blocks])
    expected = softmax_mix(state.q, every_key, every_value, valid, softcap)
    assert np.abs(state.result() - expected).max() < 3e-6


@each_table
@each_cache
@settings(derandomize=True, deadline=None, max_examples=25)
@given(data=st.data())
def test_a_query_does_not_depend_on_its_companions(table: str, cache: type, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 16), "queries")
    head_dim = data.draw(st.sampled_from([1, 5, 16, 40, 64, 80, 129]), "head_dim")
    ends = st.tuples(st.integers(0, SLOTS), st.integers(0, SLOTS)).map(lambda pair: tuple(sorted(pair)))
    ranges = [data.draw(ends, "range") for _ in range(n)]
    begin = data.draw(st.integers(0, n - 1), "from")
    some = slice(begin, data.draw(st.integers(begin + 1, n), "to"))
    keys, values = block(head_dim, cache)
    q = floats(n, head_dim, seed=9)
    together = State(q).attend(table, keys, values, ranges)
    apart = State(q[some]).attend(table, keys, values, ranges[some])
    assert apart.some(slice(None)) == together.some(some)


@each_table
@each_cache
def test_slots_outside_the_range_may_hold_nan(table: str, cache: type) -> None:
    keys, values = block(40, cache)
    q = floats(5, 40, seed=9)
    ranges = [(10, 30), (10, 30), (12, 25), (10, 26), (11, 30)]
    clean = State(q).attend(table, keys, values, ranges)
    keys[:, :10] = keys[:, 30:] = np.nan
    values[:10] = values[30:] = np.inf
    dirty = State(q).attend(table, keys, values, ranges)
    assert dirty.some(slice(None)) == clean.some(slice(None))
    keys[:, 25:30] = values[25:30] = np.nan  # within the ranges of all but the third
    dirtier = State(q).attend(table, keys, values, ranges)
    assert dirtier.some(slice(2, 3)) == clean.some(slice(2, 3))
    assert np.isnan(dirtier.out[[0, 1, 3, 4]]).all()


@each_table
@each_cache
def test_a_query_that_sees_nothing_is_left_as_it_was(table: str, cache: type) -> None:
    state = State(floats(3, 17))
    keys, values = block(17, cache)
    state.attend(table, keys, values, [(0, 9), (0, 64), (0, 0)])
    before = state.some(slice(None))
    state.attend(table, np.full_like(keys, np.nan), np.full_like(values, np.nan), [(0, 0), (64, 64), (5, 5)])
    assert state.some(slice(None)) == before
    assert state.max[2] == -np.inf and state.sum[2] == 0 and (state.out[2] == 0).all()


@each_table
@each_cache
def test_keys_go_to_columns_and_values_to_rows(table: str, cache: type) -> None:
    keys, values = np.zeros((3, SLOTS), cache), np.zeros((SLOTS, 3), cache)
    kernels.Kernels(table).store_kv(
        np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32), 7, keys, values
    )
    assert keys[:, 7].tolist() == [1, 2, 3] and values[7].tolist() == [4, 5, 6]
    assert np.count_nonzero(keys) == 3 and np.count_nonzero(values) == 3


@each_table
def test_a_float16_cache_rounds_to_even_and_saturates(table: str) -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[:-1] + halves[1:]) / 2
    around = np.concatenate([halves, middles, np.nextafter(middles, np.float32(0)), [1e9, np.inf, 65520]])
    value = np.concatenate([around, -around]).astype(np.float32)
    n = len(value)
    keys, values = np.zeros((n, SLOTS), np.float16), np.zeros((SLOTS, n), np.float16)
    kernels.Kernels(table).store_kv(value, value, 63, keys, values)
    expected = np.clip(value, -65504, 65504).astype(np.float16)
    assert values[63].tobytes() == expected.tobytes() == keys[:, 63].tobytes()


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
