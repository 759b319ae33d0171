"""Rotary frequencies are those of transformers' modeling_rope_utils.py, for every kind and spelling."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from influence.errors import InvalidConfig, UnsupportedModel
from influence.models.config import Config
from influence.models.reading import Sizes
from influence.models.rope import rope_frequencies
from influence.models.rope_config import read_rope
from influence.models.spec import Rope, RopeScaling

BASE: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 4096,
}


def rope_of(partial: float | None = None, **keys: Any) -> Rope:
    config = Config({**BASE, **keys}, Path("config.json"))
    return read_rope(config, Sizes.read(config, max_context=2048), partial=partial)


def longrope(n_pairs: int, **keys: Any) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": [1 + 0.01 * i for i in range(n_pairs)],
        "long_factor": [1 + 0.7 * i for i in range(n_pairs)],
        **keys,
    }


SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 4},
    {"rope_type": "linear", "factor": 1.5},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 7.5},
    *(
        {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }
        for factor, (low, high), original in product((8.0, 32.0), ((1.0, 4.0), (2.0, 3.0)), (512, 8192))
    ),
    *(
        {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original, **more}
        for factor, original, more in product(
            (1.0, 4.0, 32.0),
            (128, 4096),
            (
                {},
                {"truncate": False},
                {"beta_fast": 8, "beta_slow": 8},
                {"beta_fast": 64.0, "beta_slow": 2.0, "attention_factor": 1.3},
                {"mscale": 1.0, "mscale_all_dim": 0.5},
                {"mscale": 0.707},
            ),
        )
    ),
    longrope(16, original_max_position_embeddings=1024),
    longrope(16, original_max_position_embeddings=4096),
    longrope(16, original_max_position_embeddings=1024, factor=8.0),
    longrope(16, original_max_position_embeddings=1024, attention_factor=1.19),
]


@pytest.mark.parametrize("theta", [500.0, 10_000.0, 1e6])
@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: f"{scaling['rope_type']}")
def test_frequencies_are_those_of_transformers(scaling: dict[str, Any], theta: float) -> None:
    transformers = pytest.importorskip("transformers")
    utils = pytest.importorskip("transformers.modeling_rope_utils")
    init = utils.ROPE_INIT_FUNCTIONS[scaling["rope_type"]]
    for context in (100, 2000, 4096):
        config = transformers.LlamaConfig(**BASE, rope_parameters={**scaling, "rope_theta": theta})
        expected, expected_factor = init(config, "cpu", seq_len=context)
        found, factor = rope_frequencies(rope_of(rope_parameters=scaling, rope_theta=theta), context)
        assert found.typecode == "f"
        np.testing.assert_allclose(found, expected.numpy(), rtol=3e-6)
        assert factor == pytest.approx(expected_factor, rel=1e-12)


@pytest.mark.parametrize("context", [4097, 6000, 16_384])
def test_dynamic_stretches_by_the_context_as_transformers_by_the_length(context: int) -> None:
    transformers = pytest.importorskip("transformers")
    utils = pytest.importorskip("transformers.modeling_rope_utils")
    scaling = {"rope_type": "dynamic", "factor": 4.0}
    config = transformers.LlamaConfig(**BASE, rope_parameters={**scaling, "rope_theta": 10_000.0})
    expected, _ = utils.ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=context)
    found, _ = rope_frequencies(rope_of(rope_scaling=scaling), context)
    np.testing.assert_allclose(found, expected.numpy(), rtol=3e-6)


def test_default_frequencies_fall_from_one_to_almost_one_over_theta() -> None:
    frequencies, factor = rope_frequencies(Rope(theta=10_000.0, rotary_dim=4), 100)
    np.testing.assert_allclose(frequencies, [1.0, 0.01], rtol=1e-6)
    assert factor == 1.0


def test_the_old_and_the_new_spelling_are_one_rope() -> None:
    old = rope_of(rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    new = rope_of(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5})
    assert old == new == Rope(5e5, 32, scaling=RopeScaling("linear", factor=2.0))


def test_a_theta_inside_wins_over_one_beside() -> None:
    assert rope_of(rope_theta=1e4, rope_parameters={"rope_theta": 7e4}).theta == 7e4


def test_an_original_context_beside_wins_over_one_inside() -> None:
    scaling = longrope(16, original_max_position_embeddings=100)
    assert rope_of(rope_scaling=scaling).scaling.original_max_context == 100
    beside = rope_of(rope_scaling=scaling, original_max_position_embeddings=200)
    assert beside.scaling.original_max_context == 200


def test_the_early_names_of_longrope_are_known() -> None:
    scaling = longrope(16, original_max_position_embeddings=64)
    for name in ("su", "yarn"):
        assert rope_of(rope_scaling={**scaling, "rope_type": name}).scaling.kind == "longrope"


def test_null_and_empty_scaling_mean_none() -> None:
    assert rope_of(rope_scaling=None) == rope_of(rope_scaling={}) == rope_of()


def test_a_part_of_a_head_turns() -> None:
    assert rope_of(partial=1.0, partial_rotary_factor=0.75).rotary_dim == 24
    assert rope_of(partial=0.25).rotary_dim == 8
    assert rope_of(partial=1.0, rope_parameters={"partial_rotary_factor": 0.5}).rotary_dim == 16


def test_a_part_of_a_head_is_refused_where_the_family_turns_whole_ones() -> None:
    with pytest.raises(UnsupportedModel, match="partial_rotary_factor"):
        rope_of(partial_rotary_factor=0.5)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"rope_theta": "10000"}, "rope_theta"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_theta": math.nan}, "rope_theta"),
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"rope_scaling": {"type": 3}}, "rope_scaling.type"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "rope_scaling.factor"),
        ({"rope_scaling": {"type": "dynamic", "factor": 1e300}}, "rope_scaling.factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor"),
        (
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8,
                    "low_freq_factor": 4,
                    "high_freq_factor": 4,
                }
            },
            "rope_scaling.high_freq_factor",
        ),
        ({"rope_scaling": longrope(15)}, "rope_scaling.short_factor"),
        ({"rope_scaling": longrope(16) | {"long_factor": [0.0] * 16}}, "long_factor"),
        ({"rope_scaling": longrope(16), "original_max_position_embeddings": 1}, "original_max_position"),
    ],
)
def test_an_impossible_rope_is_named(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidConfig, match=named):
        rope_of(**keys)


@pytest.mark.parametrize(
    ("scaling", "named"),
    [
        ({"type": "ntk-by-parts", "factor": 2.0}, "ntk-by-parts"),
        ({"rope_type": "default", "mrope_section": [16, 24, 24]}, "mrope_section"),
        ({"full_attention": {"rope_type": "default"}}, "full_attention"),
        ({"type": "linear", "factor": 2.0, "beta_fast": 3}, "beta_fast"),
    ],
)
def test_an_unknown_way_to_stretch_is_refused_by_its_name(scaling: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModel, match=named):
        rope_of(rope_scaling=scaling)
