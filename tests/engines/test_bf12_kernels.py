"""bfloat16 in twelve bits: every weight comes back, and a product has the very bits of the stored one."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence import _native
from influence._native import kernels
from support.bfloat16 import to_bfloat16
from support.kernel_cases import ROUNDING_TABLES, SIZES, Floats, each_table, floats
from support.packed import packed

Weights = npt.NDArray[np.uint16]


def heavy_tailed(rows: int, cols: int, seed: int = 0) -> Weights:
    """Student's t with three degrees of freedom, each row of another size, and zeros."""
    random = np.random.default_rng(seed)
    w = random.standard_t(3, (rows, cols)) * np.exp2(random.integers(-20, 5, (rows, 1)))
    w[random.random((rows, cols)) < 0.01] = 0
    return to_bfloat16(w)


def with_strangers(w: Weights, strangers: npt.ArrayLike, seed: int = 1) -> Weights:
    """`w` with those bits in random places: infinities, NaNs, subnormals, distant exponents."""
    bits = np.asarray(strangers, np.uint16)
    out = w.copy()
    out.reshape(-1)[np.random.default_rng(seed).choice(w.size, bits.size, replace=False)] = bits
    return out


def product(table: str, dtype: str, x: Floats, w: npt.NDArray[np.generic], n_rows: int) -> Floats:
    chosen = kernels.Kernels(table)
    out = np.full((x.shape[0], n_rows), np.nan, np.float32)
    multiply = chosen.multiply_packed if dtype == "bf12" else chosen.multiply
    multiply(chosen.prepare(dtype, x), w, out)
    return out


def assert_same_bits(table: str, x: Floats, w: Weights) -> None:
    small = product(table, "bf12", x, packed(w, "bf12"), len(w))
    assert small.tobytes() == product(table, "bf16", x, w, len(w)).tobytes()


def unpacked(table: str, w: Weights) -> Weights:
    """Each weight alone, as a product with a unit vector shows it."""
    out = product(table, "bf12", np.eye(w.shape[1], dtype=np.float32), packed(w, "bf12"), len(w))
    return (out.T.copy().view(np.uint32) >> 16).astype(np.uint16)


@each_table
def test_each_finite_bfloat16_comes_back_where_it_stood(table: str) -> None:
    """65280 numbers, 64 to a row: 16 exponents a panel, as many with a code as can have one."""
    every = np.arange(1 << 16, dtype=np.uint16)
    finite = every[(every & 0x7F80) != 0x7F80]
    by_exponent = finite[np.argsort(finite >> 7 & 0xFF, kind="stable")].reshape(-1, 8, 32)
    for w in by_exponent:
        seen = unpacked(table, w)
        flushed = (
            (w & 0x7F80 == 0) & (seen & 0x7FFF == 0) & (table in ROUNDING_TABLES)
        )  # as the instruction does
        zeros = w & 0x7FFF == 0  # 1 * -0 + 0 is 0
        np.testing.assert_array_equal(np.where(flushed | zeros, 0, w), np.where(flushed | zeros, 0, seen))


@each_table
@pytest.mark.parametrize("n_tokens", [1, 2, 3, 4, 6, 7, 13, 50])
@pytest.mark.parametrize("cols", [*SIZES, 2600])
def test_a_product_has_the_bits_of_the_stored_one(table: str, cols: int, n_tokens: int) -> None:
    assert_same_bits(table, floats(n_tokens, cols), heavy_tailed(51, cols, seed=cols))


@pytest.fixture(scope="module")
def every_bit_pattern() -> list[Weights]:
    """All 65536 of them, a few in each panel of eight matrices, NaNs and infinities too."""
    every = np.random.default_rng(3).permutation(1 << 16).astype(np.uint16).reshape(-1, 8)
    panels = [with_strangers(heavy_tailed(8, 100, seed=i), bits, seed=i) for i, bits in enumerate(every)]
    return [np.concatenate(some) for some in np.array_split(panels, 8)]


@each_table
@pytest.mark.parametrize("n_tokens", [1, 5, 9, 60])
def test_every_bit_pattern_survives_among_others(
    table: str, n_tokens: int, every_bit_pattern: list[Weights]
) -> None:
    for w in every_bit_pattern:
        assert_same_bits(table, floats(n_tokens, 100), w)


@each_table
@settings(derandomize=True, deadline=None, max_examples=40)
@given(data=st.data())
def test_no_split_of_tokens_or_panels_changes_a_bit(table: str, data: st.DataObject) -> None:
    n_tokens = data.draw(st.integers(1, 20) | st.integers(40, 70), "tokens")
    n_rows = data.draw(st.integers(1, 120), "rows")
    cols = data.draw(st.sampled_from([*SIZES, 2600]), "cols")
    token = data.draw(st.integers(0, n_tokens - 1), "a token")
    end = data.draw(st.integers(token + 1, n_tokens), "up to")
    first = 8 * data.draw(st.integers(0, (n_rows - 1) // 8), "a panel's first row")
    x, w = floats(n_tokens, cols), packed(heavy_tailed(n_rows, cols), "bf12")
    whole = product(table, "bf12", x, w, n_rows)
    panel = _native.packed_bytes("bf12", 1, cols)
    part = product(table, "bf12", x[token:end], w[first // 8 * panel :], n_rows - first)
    assert part.tobytes() == whole[token:end, first:].tobytes()


def test_a_weight_takes_about_twelve_bits() -> None:
    assert 12 <= _native.packed_bytes("bf12", 2048, 2048) * 8 / 2048**2 <= 12.2


def test_any_number_of_threads_packs_the_same_bytes() -> None:
    w = heavy_tailed(203, 300)
    assert packed(w, "bf12", threads=3).tobytes() == packed(w, "bf12", threads=1).tobytes()


def test_a_matrix_that_lies_in_groups_of_rows_is_packed_as_if_it_lay_in_one() -> None:
    fused = heavy_tailed(10 * 3 * 32, 50).reshape(10, 3, 32, 50)
    out = np.zeros(_native.packed_bytes("bf12", 320, 50), np.uint8)
    _native.pack(fused[:, 1], "bf12", out, "generic", 1)
    alone = np.ascontiguousarray(fused[:, 1]).reshape(320, 50)
    assert out.tobytes() == packed(alone, "bf12").tobytes()


def test_zeros_and_rows_of_one_size_need_no_exceptions() -> None:
    w = to_bfloat16(np.zeros((16, 4096)))
    w[3:9] = to_bfloat16(np.full(4096, -3.5))
    assert _native.fits_bf12(w, 1)


@pytest.mark.parametrize("rows", [8, 80])
def test_a_matrix_of_all_exponents_does_not_fit(rows: int) -> None:
    w = heavy_tailed(rows, 256)
    w[-1] = np.random.default_rng(0).integers(0, 1 << 16, 256)
    assert _native.fits_bf12(w[:-1], 2)
    assert not _native.fits_bf12(w, 2)
    with pytest.raises(ValueError, match="exponents far from"):
        packed(w, "bf12")


def test_only_bfloat16_becomes_bf12() -> None:
    assert not _native.fits_bf12(floats(8, 64), 1)
    with pytest.raises(ValueError, match="made of bfloat16"):
        packed(floats(8, 64), "bf12")


@each_table
@pytest.mark.parametrize("n_tokens", [1, 5, 9, 60])
def test_damaged_bytes_give_numbers_and_touch_no_other_memory(table: str, n_tokens: int) -> None:
    """The sanitizers see that nothing is written beyond the scratch."""
    n_bytes = _native.packed_bytes("bf12", 20, 100)
    noise = np.random.default_rng(0).integers(0, 256, n_bytes).astype(np.uint8)
    for damaged in (noise, np.full_like(noise, 0xFF), np.zeros_like(noise)):
        assert product(table, "bf12", floats(n_tokens, 100), damaged, 20).shape == (n_tokens, 20)
