"""Does it fit, and how fast: numbers worked out by hand, and the engine's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence import demo
from influence.engines import machine, native, packing, select
from influence.engines.bandwidth import measure_bandwidth
from influence.engines.base import KvType
from influence.engines.estimate import (
    KV_BLOCK,
    Fit,
    Footprint,
    activation_bytes,
    decode_tokens_per_s,
    guessed_bytes,
)
from influence.models.config import Config
from influence.models.model import open_model
from influence.models.reading import Sizes
from influence.models.spec import ModelSpec, Rope
from influence.models.survey import survey
from influence.weights.tensor import DType
from support.checkpoints import BY_NAME, architecture_of, make_checkpoint

GIB = 1 << 30


def spec_of_a_7b() -> ModelSpec:
    """Llama 2 7B: 32 layers of 32 heads of 128, no grouping."""
    sizes = Sizes(32_000, 4096, 11_008, 32, 32, 32, 128, 4096)
    return sizes.spec(
        norm="rms",
        norm_eps=1e-5,
        activation="silu",
        gated_mlp=True,
        rope=Rope(theta=10_000.0, rotary_dim=128),
    )


def footprint_of_a_7b() -> Footprint:
    n_bytes = 2 * 6_738_415_616
    return Footprint(spec_of_a_7b(), {"F16": n_bytes}, n_bytes - 2 * 32_000 * 4096, 2)


def test_a_7b_of_16_bits_needs_half_a_mebibyte_a_token() -> None:
    footprint = footprint_of_a_7b()
    assert footprint.kv_bytes_per_token == 2 * 32 * 4096 * 2 == 512 << 10
    assert footprint.kv_bytes(4096) == 2 * GIB
    assert footprint.kv_bytes(1) == footprint.kv_bytes(KV_BLOCK) == 32 << 20
    assert footprint.total_bytes(4096) == 13_476_831_232 + 2 * GIB + footprint.activation_bytes


@pytest.mark.parametrize(
    ("available", "verdict", "largest"),
    [
        (16 * 10**9, "fits", 4096),
        (15 * 10**9, "fits with --weights q8", 2560),
        (10 * 10**9, "fits with --weights q8", 0),
        (7 * 10**9, "fits with --weights q4", 0),
        (5 * 10**9, "does not fit", 0),
        (0, "does not fit", 0),
    ],
)
def test_the_verdict_names_the_largest_context_that_fits(available: int, verdict: str, largest: int) -> None:
    fit = Fit(footprint_of_a_7b(), 4096, available)
    assert (fit.verdict, fit.largest_context) == (verdict, largest)
    assert fit.fits == (fit.missing_bytes == 0)


def test_a_long_context_may_need_to_be_shortened_whatever_the_weights() -> None:
    footprint = replace(footprint_of_a_7b(), spec=replace(spec_of_a_7b(), max_context=1 << 17))
    assert Fit(footprint, 1 << 17, 20 * 10**9).verdict.startswith("fits with --context ")


def test_packed_weights_are_estimated_as_they_are_packed() -> None:
    model = open_model(demo.folder())
    footprint = Footprint.of(survey(Config.load(demo.folder() / "config.json"), model.checkpoint.infos))
    for form in ("q8", "q4"):
        real = packing.packed_size(model.weights, form)
        assert footprint.packed(form).weights_bytes == pytest.approx(real, rel=0.05)


def test_bfloat16_that_does_not_fit_may_fit_without_loss() -> None:
    halves = footprint_of_a_7b()
    brains = replace(halves, bytes_by_dtype={"BF16": halves.weights_bytes})
    assert halves.packed("packed") == halves  # float16 stays as it is
    assert 12 / 16 < brains.packed("packed").weights_bytes / brains.decoded_bytes < 12.3 / 16
    assert Fit(brains, 4096, 15 * 10**9).verdict == "fits with --weights packed"
    assert Fit(brains, 4096, 12 * 10**9).verdict == "fits with --weights q8"


@settings(derandomize=True, deadline=None)
@given(available=st.integers(0, 1 << 36), max_context=st.integers(1, 1 << 20))
def test_the_largest_context_fits_and_one_more_does_not(available: int, max_context: int) -> None:
    footprint = replace(footprint_of_a_7b(), spec=replace(spec_of_a_7b(), max_context=max_context))
    largest = footprint.largest_context(available)
    assert 0 <= largest <= max_context
    assert largest == 0 or Fit(footprint, largest, available).fits
    assert largest == max_context or not Fit(footprint, largest + 1, available).fits


def test_a_token_reads_the_weights_once_and_the_keys_and_values_of_half_the_context() -> None:
    footprint = footprint_of_a_7b()
    assert footprint.read_bytes_per_token(4096) == footprint.decoded_bytes + GIB
    assert decode_tokens_per_s(footprint, 4096, 100e9) == pytest.approx(100e9 / (13_214_687_232 + GIB))
    assert decode_tokens_per_s(footprint, 128, 100e9) > decode_tokens_per_s(footprint, 4096, 100e9)


def test_a_window_bounds_what_its_layer_reads() -> None:
    windowed = replace(spec_of_a_7b(), layer_window=(128,) * 16 + (None,) * 16)
    footprint = replace(footprint_of_a_7b(), spec=windowed)
    read = footprint.read_bytes_per_token(4096) - footprint.decoded_bytes
    assert read == (16 * 128 + 16 * 2048) * 2 * 4096 * 2
    assert footprint.read_bytes_per_token(200) == footprint_of_a_7b().read_bytes_per_token(200)


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8"])
def test_a_kv_cache_of_a_chosen_type_is_that_of_the_native_engine(kv_type: KvType) -> None:
    model = open_model(demo.folder())
    sizes = survey(Config.load(demo.folder() / "config.json"), model.checkpoint.infos)
    footprint = Footprint.of(sizes).with_cache(kv_type)
    assert footprint.kv_bytes(1) == select.session_kv_bytes(model, 1, kv_type)
    model.checkpoint.close()


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_the_kv_cache_is_that_of_the_native_engine(
    tmp_path_factory: pytest.TempPathFactory, dtype: DType
) -> None:
    for name in BY_NAME:
        folder = make_checkpoint(BY_NAME[name], tmp_path_factory.mktemp("model"), dtype)
        model = open_model(folder)
        sizes = survey(Config.load(folder / "config.json"), model.checkpoint.infos)
        footprint = Footprint.of(sizes)
        assert footprint.kv_bytes_per_token == select.kv_bytes_per_token(model)
        assert footprint.weights_bytes == model.weights.size_bytes
        model.checkpoint.close()
    assert KV_BLOCK == native.BLOCK_SIZE


def test_activations_grow_with_the_widths_and_not_with_the_depth() -> None:
    spec = architecture_of(next(iter(BY_NAME.values()))).spec
    deeper = replace(spec, n_layers=2 * spec.n_layers)
    wider = replace(spec, intermediate_size=2 * spec.intermediate_size)
    assert activation_bytes(deeper) == activation_bytes(spec) < activation_bytes(wider)


def test_the_bandwidth_is_that_of_a_memory_and_not_of_a_mistaken_unit() -> None:
    assert 1e8 < measure_bandwidth(0.2) < 1e13


def test_the_bandwidth_is_measured_where_hardly_any_memory_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 0)
    assert measure_bandwidth(0.0) > 0


def test_the_demo_fits_every_machine() -> None:
    model = open_model(demo.folder())
    sizes = survey(Config.load(model.folder / "config.json"), model.checkpoint.infos)
    assert Fit(Footprint.of(sizes), model.spec.max_context, 100_000_000).verdict == "fits"


@pytest.mark.parametrize(
    ("sizes", "n_parameters"),
    [
        (Sizes(49_152, 576, 1536, 30, 9, 3, 64, 8192), 134_515_008),  # SmolLM2 135M
        (Sizes(151_936, 1024, 3072, 28, 16, 8, 128, 40_960), 596_049_920),  # Qwen3 0.6B
        (Sizes(32_000, 2048, 5632, 22, 32, 4, 64, 2048), 1_100_048_384),  # TinyLlama 1.1B
        (Sizes(32_000, 4096, 11_008, 32, 32, 32, 128, 4096), 6_738_415_616),  # Llama 2 7B
        (Sizes(128_256, 4096, 14_336, 32, 32, 8, 128, 131_072), 8_030_261_248),  # Llama 3.1 8B
    ],
)
def test_a_guess_by_the_weights_alone_is_on_the_safe_side_and_not_far_off(
    sizes: Sizes, n_parameters: int
) -> None:
    spec = sizes.spec(
        norm="rms",
        norm_eps=1e-5,
        activation="silu",
        gated_mlp=True,
        rope=Rope(theta=10_000.0, rotary_dim=sizes.head_dim),
    )
    footprint = Footprint(spec, {"BF16": 2 * n_parameters}, 2 * n_parameters, 2)
    needed, guessed = footprint.total_bytes(4096), guessed_bytes(2 * n_parameters)
    assert needed <= guessed <= max(1.25 * needed, needed + 300_000_000)
