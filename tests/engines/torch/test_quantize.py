"""Weights of few bits are made as the native engine makes them, and packed ones lose not a bit."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from hypothesis import given, settings
from hypothesis import strategies as st

from influence.engines.torch.matrices import PackedMatrix, dense
from influence.engines.torch.ops import gemv
from influence.engines.torch.quantize import converted, pack, quantize
from support.packed import packed, unpacked

LAW = settings(max_examples=60, deadline=None, derandomize=True)


def weights(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_t(4, (rows, cols)) * cols**-0.5).astype(np.float32)


@pytest.mark.parametrize(("rows", "cols"), [(70, 256), (3, 100), (1, 1)])
def test_the_native_engine_s_packing_to_q8_stands_for_the_same_weights(rows: int, cols: int) -> None:
    source = weights(rows, cols)
    expected = unpacked(packed(source, "q8"), "q8", rows, cols)
    actual = dense(quantize(torch.from_numpy(source), "q8")).numpy()
    # A sum in another order can tip a scale or a code: rarely, and then to the next one.
    same = np.isclose(actual, expected, rtol=1e-6, atol=0)
    assert same.mean() > 0.99
    assert np.abs(actual - source).mean() <= 1.01 * np.abs(expected - source).mean()


def test_q4_without_zeros_loses_little_more_than_the_native_engine_s_with_them() -> None:
    source = weights(70, 512)
    native = unpacked(packed(source, "q4"), "q4", 70, 512) - source
    own = dense(quantize(torch.from_numpy(source), "q4")).numpy() - source
    assert own.std() <= 1.2 * native.std()


@pytest.mark.parametrize("form", ["q8", "q4"])
def test_zeros_stay_zeros_and_what_is_no_number_shows(form: Literal["q8", "q4"]) -> None:
    source = torch.zeros(2, 64)
    assert torch.equal(dense(quantize(source, form)), source)
    source[1, 3] = torch.nan
    weights = dense(quantize(source, form))
    assert weights[1].isnan().any() and torch.equal(weights[0], source[0])


@pytest.mark.parametrize("form", ["q8", "q4"])
def test_many_rows_are_made_as_few_are(form: Literal["q8", "q4"], monkeypatch: pytest.MonkeyPatch) -> None:
    source = torch.from_numpy(weights(9, 128))
    whole = quantize(source, form)
    monkeypatch.setattr("influence.engines.torch.quantize._WEIGHTS_AT_ONCE", 256)
    parts = quantize(source, form)
    assert torch.equal(whole.values, parts.values) and torch.equal(whole.scales, parts.scales)


def test_what_the_formats_take() -> None:
    source = torch.from_numpy(weights(128, 1024)).bfloat16()
    sizes = {form: quantize(source, form).size_bytes * 8 / source.numel() for form in ("q8", "q4")}
    assert sizes == {"q8": 8.25, "q4": 4.5}
    assert 12 <= pack(source).size_bytes * 8 / source.numel() < 12.2


@given(bits=st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=100), rows=st.integers(1, 3))
@LAW
def test_packing_gives_back_every_bit(bits: list[int], rows: int) -> None:
    source = torch.tensor(np.array([bits] * rows, np.uint16).view(np.int16)).view(torch.bfloat16)
    matrix = pack(source)
    assert torch.equal(dense(matrix).view(torch.int16), source.view(torch.int16))


def test_trained_weights_have_few_rare_ones() -> None:
    source = torch.from_numpy(weights(256, 512)).bfloat16()
    assert len(pack(source).rare_values) / source.numel() < 2e-3


def test_a_product_with_packed_weights_is_that_with_the_stored_ones() -> None:
    source, x = torch.from_numpy(weights(40, 50)).bfloat16(), torch.ones(2, 50).bfloat16()
    assert torch.equal(gemv(x, pack(source)), gemv(x, source))


def test_only_bfloat16_is_packed() -> None:
    assert isinstance(converted(torch.ones(2, 2).bfloat16(), "packed"), PackedMatrix)
    assert isinstance(converted(torch.ones(2, 2), "packed"), torch.Tensor)
    assert isinstance(converted(torch.ones(2, 2), "stored"), torch.Tensor)
