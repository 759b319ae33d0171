"""A model's sizes from its config and its headers agree with the opened model, for every family."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from influence.errors import InvalidCheckpoint, UnsupportedModel
from influence.models.config import Config
from influence.models.model import open_model
from influence.models.survey import Survey, survey
from influence.weights.safetensors import TensorInfo, read_header
from support.checkpoints import BY_NAME, make_checkpoint

LLAMA = next(name for name in BY_NAME if name.startswith("llama"))


def surveyed(folder: Path) -> Survey:
    return survey(Config.load(folder / "config.json"), read_header(folder / "model.safetensors").tensors)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_sizes_are_those_of_the_bound_weights(name: str, tmp_path: Path) -> None:
    found = surveyed(make_checkpoint(BY_NAME[name], tmp_path / "model", "BF16"))
    model = open_model(tmp_path / "model")
    tensors = [t for slots in (model.weights.outer, *model.weights.layers) for t in slots.values()]
    embedding = model.weights.outer["embed"].size_bytes
    assert found.spec == model.spec
    assert found.n_parameters == sum(math.prod(tensor.shape) for tensor in tensors)
    assert (found.dtype, found.weights_bytes) == ("BF16", model.weights.size_bytes)
    unread = embedding if "lm_head" in model.weights.outer else 0
    assert found.decoded_bytes == model.weights.size_bytes - unread


@pytest.fixture
def llama(tmp_path: Path) -> tuple[Config, dict[str, TensorInfo]]:
    folder = make_checkpoint(BY_NAME[LLAMA], tmp_path / "model")
    header = read_header(folder / "model.safetensors")
    return Config.load(folder / "config.json"), dict(header.tensors)


def test_a_base_model_leaves_out_the_common_prefix(llama: tuple[Config, dict[str, TensorInfo]]) -> None:
    config, tensors = llama
    bare = {name.removeprefix("model."): info for name, info in tensors.items()}
    assert survey(config, bare) == survey(config, tensors)


def test_old_buffers_are_not_counted(llama: tuple[Config, dict[str, TensorInfo]]) -> None:
    config, tensors = llama
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    buffered = tensors | {name: TensorInfo(name, "F64", (1000,), 0, 8000)}
    assert survey(config, buffered) == survey(config, tensors)


def test_a_missing_tensor_and_one_of_another_shape_are_named(
    llama: tuple[Config, dict[str, TensorInfo]],
) -> None:
    config, tensors = llama
    name = "model.layers.0.mlp.up_proj.weight"
    with pytest.raises(InvalidCheckpoint, match="it is missing") as caught:
        survey(config, {other: info for other, info in tensors.items() if other != name})
    assert caught.value.tensor == name
    with pytest.raises(InvalidCheckpoint, match=r"its shape is \[3\]"):
        survey(config, tensors | {name: replace(tensors[name], shape=(3,))})


def test_a_dtype_that_is_not_run_is_named(llama: tuple[Config, dict[str, TensorInfo]]) -> None:
    config, tensors = llama
    name = next(iter(tensors))
    with pytest.raises(UnsupportedModel, match="F8_E4M3"):
        survey(config, tensors | {name: replace(tensors[name], dtype="F8_E4M3")})


def test_a_refused_kind_is_refused_before_its_weights_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(UnsupportedModel, match="recurrent state"):
        survey(Config.load(tmp_path / "config.json"), {})


def test_the_dtype_of_most_bytes_comes_first(llama: tuple[Config, dict[str, TensorInfo]]) -> None:
    config, tensors = llama
    for minor in ("model.norm.weight", "model.layers.0.input_layernorm.weight"):
        half = replace(tensors[minor], dtype="F16", end=tensors[minor].begin + tensors[minor].size_bytes // 2)
        found = survey(config, {minor: half} | {name: t for name, t in tensors.items() if name != minor})
        assert (found.dtype, list(found.bytes_by_dtype)) == ("F32", ["F32", "F16"])
        assert found.bytes_by_dtype["F16"] == half.size_bytes
        assert found.kv_value_bytes == 4


def test_the_keys_decide_how_wide_the_cache_is(llama: tuple[Config, dict[str, TensorInfo]]) -> None:
    config, tensors = llama
    key = "model.layers.0.self_attn.k_proj.weight"
    assert survey(config, tensors | {key: replace(tensors[key], dtype="BF16")}).kv_value_bytes == 2
