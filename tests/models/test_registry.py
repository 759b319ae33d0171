"""Which models run, and why the others do not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from influence.errors import InvalidConfig, UnsupportedModel
from influence.models.binding import tensor_shapes
from influence.models.config import Config
from influence.models.registry import FAMILIES as FAMILY_READERS
from influence.models.registry import REFUSALS, read_architecture
from influence.models.spec import ModelSpec, RopeScaling
from support.cases import BY_NAME, FAMILIES, Case

PATH = Path("model/config.json")


def read(**values: Any) -> ModelSpec:
    return read_architecture(Config(values, PATH)).spec


def changed(name: str, **values: Any) -> ModelSpec:
    """The spec of a tiny case with some keys changed."""
    return read(**{**BY_NAME[name].config, **values})


def test_every_family_has_at_least_two_test_cases() -> None:
    types = [case.model_type for case in FAMILIES]
    assert set(types) == set(FAMILY_READERS)
    assert all(types.count(model_type) >= 2 for model_type in FAMILY_READERS)


def test_the_test_cases_reach_every_field_of_the_spec() -> None:
    specs = [read(**case.config) for case in FAMILIES]
    unvaried = {
        name for name in ModelSpec.__dataclass_fields__ if len({getattr(spec, name) for spec in specs}) < 2
    }
    assert unvaried == set()
    kinds = {rope.scaling.kind for spec in specs for rope in spec.ropes}
    assert kinds == {"default", "linear", "dynamic", "llama3", "yarn", "longrope"}


# --- real files

LLAMA3 = RopeScaling("llama3", 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)

# file -> (parameters in millions, as published or counted by hand; fields of the spec)
RUNS: dict[str, tuple[float, dict[str, Any]]] = {
    "llama-2-7b-hf.json": (
        6738.4,
        {"head_dim": 128, "n_kv_heads": 32, "max_context": 4096, "norm_eps": 1e-5},
    ),
    "meta-llama--Meta-Llama-3.1-8B_config.json": (8030.3, {"n_kv_heads": 8, "max_context": 131072}),
    "mistral-7b-v0.1.json": (7241.7, {"layer_window": (4096,) * 32, "head_dim": 128}),
    "mistral-nemo-instruct-2407.json": (
        12247.8,
        {"layer_window": (None,) * 40, "head_dim": 128, "q_dim": 4096},
    ),
    "phi-2.json": (2779.7, {"parallel_block": True, "activation": "gelu_tanh", "norm": "layer"}),
    "phi3.shrunk.json": (310.3, {"layer_window": (2048,), "gated_mlp": True}),
    "granite-3.3-8b-instruct.json": (
        8170.9,
        {
            "attention_scale": 0.0078125,
            "embedding_scale": 12.0,
            "residual_scale": 0.22,
            "logit_scale": 1 / 16,
        },
    ),
    "qwen2.5-7b-instruct.json": (7615.6, {"layer_window": (None,) * 28, "n_kv_heads": 4}),
    "Qwen--Qwen3-0.6B_config.json": (596.0, {"qk_norm": "head", "head_dim": 128, "q_dim": 2048}),
    "stablelm.shrunk.json": (462.4, {"norm": "layer", "parallel_block": False}),
}

REFUSED = {
    "albert-base-v1.shrunk.json": "encoder-only",
    "bert-base.shrunk.json": "encoder-only",
    "falcon.shrunk.json": "'falcon' is not known",
    "granitemoehybrid-small.json": "hybrid",
    "jamba.shrunk.json": "hybrid",
    "mamba-130m-hf.arch-block.json": "state space",
    "mixtral-8x7b-v0.1.json": "mixture-of-experts",
    "openai--gpt-oss-20b_config.json": "mixture-of-experts",
    "t5.shrunk.json": "encoder-decoder",
}


def test_the_table_knows_every_real_config(shared_data: Path) -> None:
    files = {path.name for path in (shared_data / "configs").glob("*.json")}
    assert files == RUNS.keys() | REFUSED.keys()


@pytest.mark.parametrize("file", RUNS)
def test_a_real_config_has_the_published_number_of_parameters(file: str, shared_data: Path) -> None:
    millions, fields = RUNS[file]
    architecture = read_architecture(Config.load(shared_data / "configs" / file))
    shapes = tensor_shapes(architecture.spec, architecture.layout).values()
    n_parameters = sum(math.prod(shape) for shape in shapes)
    assert n_parameters / 1e6 == pytest.approx(millions, abs=0.1)
    assert {name: getattr(architecture.spec, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("file", "theta", "rotary_dim", "scaling"),
    [
        ("llama-2-7b-hf.json", 10_000.0, 128, RopeScaling()),
        ("meta-llama--Meta-Llama-3.1-8B_config.json", 500_000.0, 128, LLAMA3),
        ("phi-2.json", 10_000.0, 32, RopeScaling()),
        ("phi3.shrunk.json", 10_000.0, 96, RopeScaling()),
        ("stablelm.shrunk.json", 10_000.0, 32, RopeScaling()),
        ("granite-3.3-8b-instruct.json", 1e7, 128, RopeScaling()),
    ],
)
def test_a_real_config_has_its_rope(
    file: str, theta: float, rotary_dim: int, scaling: RopeScaling, shared_data: Path
) -> None:
    [rope] = read_architecture(Config.load(shared_data / "configs" / file)).spec.ropes
    assert (rope.theta, rope.rotary_dim, rope.scaling) == (theta, rotary_dim, scaling)


@pytest.mark.parametrize("file", REFUSED)
def test_a_real_config_of_another_kind_is_refused_with_reason_and_alternative(
    file: str, shared_data: Path
) -> None:
    with pytest.raises(UnsupportedModel, match=REFUSED[file]) as caught:
        read_architecture(Config.load(shared_data / "configs" / file))
    assert file in caught.value.message
    assert "use " in caught.value.hint or "supported are" in caught.value.hint


# --- refusals


def test_no_type_is_refused_twice_or_refused_and_run() -> None:
    types = [name for refusal in REFUSALS for name in refusal.model_types] + list(FAMILY_READERS)
    assert len(types) == len(set(types))


def test_refused_types_are_known_to_transformers_or_bring_their_own_code() -> None:
    mapping = pytest.importorskip("transformers.models.auto.configuration_auto").CONFIG_MAPPING_NAMES
    own_code = {
        "arctic", "deepseek", "glm4v", "grok-1", "internvl_chat", "kimi_k2", "kimi_linear", "molmo", "nomic_bert",
        "phi3_v", "phi4mm", "plamo2", "rwkv7",
    }  # fmt: skip
    types = {name for refusal in REFUSALS for name in refusal.model_types}
    assert {name for name in types if name not in mapping} <= own_code


def test_an_unknown_type_lists_what_is_supported_and_suggests_the_nearest() -> None:
    with pytest.raises(UnsupportedModel, match="'qwen4'") as caught:
        read(model_type="qwen4")
    assert "the nearest is qwen" in caught.value.hint
    assert all(name in caught.value.hint for name in FAMILY_READERS)


def test_code_that_a_model_brings_along_is_not_run() -> None:
    with pytest.raises(UnsupportedModel, match="auto_map"):
        read(model_type="internlm", auto_map={"AutoModel": "modeling.Model"})


def test_code_that_a_known_type_brings_along_is_not_needed() -> None:
    assert changed("phi3-window", auto_map={"AutoModel": "modeling.Model"}).n_layers == 2


@pytest.mark.parametrize("value", [None, 3, "x" * 5000, ["llama"]])
def test_a_strange_model_type_is_an_error(value: object) -> None:
    with pytest.raises((InvalidConfig, UnsupportedModel)) as caught:
        read(model_type=value)
    assert "model_type" in caught.value.message
    assert len(caught.value.message) < 300


def test_a_config_without_model_type_is_invalid() -> None:
    with pytest.raises(InvalidConfig, match="model_type"):
        read(vocab_size=3)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"load_in_4bit": True}}, "unknown"),
        ({"num_local_experts": 8}, "mixture-of-experts"),
        ({"num_experts": 64}, "mixture-of-experts"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"vision_config": {"hidden_size": 3}}, "vision"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "ForSequenceClassification"),
        ({"layer_types": ["full_attention", "mamba"]}, "mamba"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"layer_types": ["chunked_attention", "full_attention"]}, "chunked_attention"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ({"layer_types": [{}, None]}, "layer_types"),
        ({"hidden_act": "xielu"}, "xielu"),
    ],
)
def test_a_known_type_with_values_of_another_kind_is_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModel, match=named):
        changed("llama", **values)


def test_layer_types_alone_prove_nothing() -> None:
    plain = changed("llama")
    assert changed("llama", layer_types=["full_attention", "full_attention"]) == plain
    assert changed("llama", quantization_config=None, num_local_experts=0, architectures=None) == plain


def test_bidirectional_gemma_is_refused() -> None:
    for name in ("gemma", "gemma2", "gemma3"):
        with pytest.raises(UnsupportedModel, match="use_bidirectional_attention"):
            changed(name, use_bidirectional_attention=True)


# --- what absent keys mean


@pytest.mark.parametrize(
    ("name", "absent", "field", "value"),
    [
        ("llama", "num_key_value_heads", "n_kv_heads", 4),
        ("llama", "max_position_embeddings", "max_context", 2048),
        ("gemma2", "sliding_window", "layer_window", (4096, None)),
        ("gemma2", "attn_logit_softcapping", "attention_softcap", 50.0),
        ("gemma2", "final_logit_softcapping", "logit_softcap", 30.0),
        ("gemma2", "query_pre_attn_scalar", "attention_scale", 1 / 16),
        ("gemma", "head_dim", "head_dim", 256),
        ("qwen3", "head_dim", "head_dim", 128),
        ("mistral-window", "sliding_window", "layer_window", (4096, 4096)),
        ("granite", "logits_scaling", "logit_scale", 1.0),
        ("cohere", "logit_scale", "logit_scale", 0.0625),
        ("starcoder2", "sliding_window", "layer_window", (None, None)),
        ("gpt-neox", "use_parallel_residual", "parallel_block", True),
        ("smollm3-window-odd", "no_rope_layers", "layer_rope", (0, 0, 0)),
    ],
)
def test_an_absent_key_means_what_transformers_means(
    name: str, absent: str, field: str, value: object
) -> None:
    values = {key: item for key, item in BY_NAME[name].config.items() if key != absent}
    assert getattr(read(**values), field) == value


@pytest.mark.parametrize("case", FAMILIES, ids=lambda case: case.name)
def test_a_null_window_or_head_count_is_read_as_absent_or_none(case: Case) -> None:
    values = {**case.config, "num_key_value_heads": None}
    assert read(**values).n_kv_heads == case.config["num_attention_heads"]


def test_transformers_agrees_on_the_defaults_of_absent_keys() -> None:
    transformers = pytest.importorskip("transformers")
    for model_type in FAMILY_READERS:
        sizes = {"vocab_size": 640, "hidden_size": 512, "intermediate_size": 96, "num_hidden_layers": 8}
        # 32 heads: what the defaults of num_key_value_heads divide.
        config = transformers.AutoConfig.for_model(model_type, **sizes, num_attention_heads=32)
        written = json.loads(config.to_json_string(use_diff=False))
        assert read(model_type=model_type, num_attention_heads=32, **sizes) == read(**written), model_type
