"""The attention kernels of every table that this CPU runs, against float64 numpy."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence._native import kernels
from support.kernel_cases import SIZES, Floats, each_table, floats

SLOTS = 64
each_cache = pytest.mark.parametrize("cache", [np.float32, np.float16], ids=["f32", "f16"])


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


def q8_block(table: str, keys: Floats, values: Floats) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Rows (slots, head_dim) in a block of q8; its bytes start as NaN, as far as they are scales."""
    n_bytes = SLOTS * (keys.shape[1] + 4)
    halves = np.full(n_bytes, 255, np.uint8), np.full(n_bytes, 255, np.uint8)
    for slot, (key, value) in enumerate(zip(keys, values, strict=True)):
        kernels.Kernels(table).store_kv(key, value, slot, *halves)
    return halves


def q8_rounded(rows: Floats) -> npt.NDArray[np.float64]:
    """Rows as q8 holds them: whole multiples of a 127th of their largest."""
    scales = np.abs(rows).max(axis=1, keepdims=True).astype(np.float64) / 127
    return np.round(rows / scales) * scales


@each_table
@pytest.mark.parametrize("head_dim", SIZES[:-1])
@pytest.mark.parametrize("softcap", [0.0, 5.0])
def test_attention_over_a_q8_cache_agrees_with_float64_on_what_it_holds(
    table: str, head_dim: int, softcap: float
) -> None:
    n = 1 + head_dim % 16
    keys, values = floats(SLOTS, head_dim, seed=1), floats(SLOTS, head_dim, seed=2)
    state = State(floats(n, head_dim, scale=2 / math.sqrt(head_dim)))
    ranges = [(i, SLOTS - 2 * i) for i in range(n)]
    state.attend(table, *q8_block(table, keys, values), ranges, softcap)
    valid = np.array([[first <= j < last for j in range(SLOTS)] for first, last in ranges])
    expected = softmax_mix(state.q, q8_rounded(keys).T, q8_rounded(values), valid, softcap)
    assert np.abs(state.result() - expected).max() < 3e-6


@each_table
def test_every_table_stores_the_same_q8_bytes(table: str) -> None:
    keys, values = floats(SLOTS, 80, seed=1), floats(SLOTS, 80, seed=2)
    keys[3], values[4] = 0, 1e-38
    for ours, generic in zip(q8_block(table, keys, values), q8_block("generic", keys, values), strict=True):
        assert ours.tobytes() == generic.tobytes()


@each_table
def test_q8_slots_outside_the_range_may_hold_anything_and_nan_inside_is_seen(table: str) -> None:
    keys, values = floats(SLOTS, 40, seed=1), floats(SLOTS, 40, seed=2)
    q, ranges = floats(5, 40, seed=9), [(10, 30), (10, 30), (12, 25), (10, 26), (11, 30)]
    clean = State(q).attend(table, *q8_block(table, keys, values), ranges)
    keys[:10] = values[30:] = np.nan
    keys[31, 3], values[2, 5] = np.inf, -np.inf
    dirty = State(q).attend(table, *q8_block(table, keys, values), ranges)
    assert dirty.some(slice(None)) == clean.some(slice(None))
    values[27, 1] = np.inf
    seen = State(q).attend(table, *q8_block(table, keys, values), ranges)
    assert np.isnan(seen.out[[0, 1, 4]]).all() and not np.isnan(seen.out[2:4]).any()


@each_table
@each_cache
def test_scores_far_below_the_largest_count_for_nothing(table: str, cache: type) -> None:
    keys = np.zeros((1, SLOTS), cache)
    keys[0] = -np.arange(SLOTS) * 4.0
    values = np.arange(1, SLOTS + 1, dtype=np.float32)[:, None].astype(cache)
    state = State(np.ones((1, 1), np.float32)).attend(table, keys, values, [(0, SLOTS)])
    p = np.exp(keys[0].astype(np.float64))
    assert state.sum[0] == pytest.approx(p.sum(), rel=1e-6)
    assert state.result()[0, 0] == pytest.approx((p @ values)[0] / p.sum(), rel=1e-6)


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
