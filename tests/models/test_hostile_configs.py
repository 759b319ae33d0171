"""Lying configs: every family answers any value with an InfluenceError that names the key, at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.errors import InfluenceError, InvalidConfig, ModelError
from influence.models.config import Config
from influence.models.registry import read_architecture
from influence.models.rope import rope_frequencies
from influence.models.spec import ModelSpec
from support.cases import BY_NAME, FAMILIES, Case

PATH = Path("config.json")
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def read(case: Case, **values: Any) -> ModelSpec:
    return read_architecture(Config({**case.config, **values}, PATH)).spec


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, 64.0, "64", None, True, [], {}, 10**12, float("nan")], ids=repr
)
@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("case", FAMILIES[::2], ids=lambda case: case.name)
def test_an_impossible_size_is_named(case: Case, key: str, value: object) -> None:
    with pytest.raises(InvalidConfig, match=key):
        read(case, **{key: value})


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("case", FAMILIES[::2], ids=lambda case: case.name)
def test_a_missing_size_is_named(case: Case, key: str) -> None:
    values = {name: value for name, value in case.config.items() if name != key}
    with pytest.raises(InvalidConfig, match=f"{key}: is missing"):
        read_architecture(Config(values, PATH))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"num_attention_heads": 7}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_key_value_heads": 8}, "num_key_value_heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"num_key_value_heads": 2.0}, "num_key_value_heads"),
        ({"head_dim": 0}, "head_dim"),
        ({"head_dim": -16}, "head_dim"),
        ({"head_dim": 15}, "head_dim"),
        ({"head_dim": 10**12}, "head_dim"),
        ({"max_position_embeddings": 0}, "max_position_embeddings"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings"),
        ({"max_position_embeddings": "4096"}, "max_position_embeddings"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
        ({"rope_theta": -10_000.0}, "rope_theta"),
        ({"rope_theta": 1e30}, "rope_theta"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"attention_bias": "yes"}, "attention_bias"),
        ({"hidden_act": 3}, "hidden_act"),
        ({"layer_types": "full_attention"}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"num_hidden_layers": 100_000}, "num_hidden_layers"),
    ],
    ids=repr,
)
def test_an_impossible_value_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidConfig, match=named):
        read(BY_NAME["llama"], **values)


@pytest.mark.parametrize(
    ("name", "values", "named"),
    [
        ("mistral-window", {"sliding_window": 0}, "sliding_window"),
        ("mistral-window", {"sliding_window": -1}, "sliding_window"),
        ("qwen2-window-yarn-odd", {"max_window_layers": -1}, "max_window_layers"),
        ("qwen3-layer-types-odd", {"sliding_window": None}, "sliding_window"),
        ("gemma2", {"sliding_window": None}, "sliding_window"),
        ("gemma2", {"attn_logit_softcapping": 0}, "attn_logit_softcapping"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("gemma3", {"sliding_window_pattern": 0}, "sliding_window_pattern"),
        ("gemma3", {"rope_local_base_freq": 0}, "rope_local_base_freq"),
        ("granite", {"logits_scaling": 0}, "logits_scaling"),
        ("granite", {"embedding_multiplier": "12"}, "embedding_multiplier"),
        ("phi", {"partial_rotary_factor": 0.01}, "head_dim"),
        ("phi", {"partial_rotary_factor": 1.5}, "partial_rotary_factor"),
        ("gpt-neox", {"rotary_pct": -0.25}, "rotary_pct"),
        ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layers": [1, 2, 1, 0]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval"),
    ],
    ids=repr,
)
def test_an_impossible_value_of_a_family_is_named(name: str, values: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidConfig, match=named):
        read(BY_NAME[name], **values)


def test_the_largest_config_allocates_next_to_nothing() -> None:
    tracemalloc.start()
    try:
        read(
            BY_NAME["llama"],
            vocab_size=1 << 24,
            hidden_size=1 << 20,
            intermediate_size=1 << 24,
            num_hidden_layers=1024,
            max_position_embeddings=1 << 28,
        )
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats()
    | st.sampled_from(["", "silu", "linear", "yarn", "full_attention", "x" * 50]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "factor", "rope_type", "full_attention"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A config with one to three keys replaced by anything, or taken away."""
    values: dict[str, Any] = dict(draw(st.sampled_from(FAMILIES)).config)
    extra = [
        "rope_scaling",
        "rope_parameters",
        "layer_types",
        "head_dim",
        "quantization_config",
        "attention_bias",
    ]
    for key in draw(st.lists(st.sampled_from([*values, *extra]), min_size=1, max_size=3)):
        if draw(st.booleans()):
            values[key] = draw(json_values)
        else:
            values.pop(key, None)
    return values


@settings(derandomize=True, deadline=None, max_examples=600)
@given(damaged())
def test_any_damage_gives_a_sound_spec_or_a_model_error(values: dict[str, Any]) -> None:
    try:
        spec = read_architecture(Config(values, PATH)).spec
    except ModelError as error:
        assert isinstance(error, InfluenceError)
        assert error.hint
        assert len(error.message) < 600
        return
    assert spec.n_heads % spec.n_kv_heads == 0
    assert len(spec.layer_rope) == len(spec.layer_window) == spec.n_layers
    for rope in spec.ropes:
        assert 0 < rope.rotary_dim <= spec.head_dim
        if spec.head_dim <= 1024:
            frequencies, factor = rope_frequencies(rope, min(spec.max_context, 5000))
            assert len(frequencies) == rope.rotary_dim // 2
            assert factor >= 0
