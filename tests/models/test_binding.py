"""Every tensor is taken exactly once, with the right shape; one test walks all families."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from influence.errors import InvalidCheckpoint, UnsupportedModel
from influence.models.binding import Weights, tensor_shapes
from influence.models.model import open_model
from influence.weights.tensor import DType
from support.cases import BY_NAME, FAMILIES, Case
from support.checkpoints import (
    Array,
    architecture_of,
    make_checkpoint,
    random_tensors,
    round_to,
    write_folder,
)

each_case = pytest.mark.parametrize("case", FAMILIES, ids=lambda case: case.name)


def bind(case: Case, folder: Path, tensors: dict[str, Array], dtype: DType = "F32") -> Weights:
    write_folder(folder, case.config, {name: (dtype, array) for name, array in tensors.items()})
    return open_model(folder).weights


def tensors_of(case: Case) -> dict[str, Array]:
    return dict(random_tensors(architecture_of(case), case.seed))


@each_case
def test_any_tensor_that_is_missing_is_named(case: Case, tmp_path: Path) -> None:
    tensors = tensors_of(case)
    for name in _of_first_and_last_layer(case):
        others = {other: array for other, array in tensors.items() if other != name}
        with pytest.raises(InvalidCheckpoint, match="is missing") as caught:
            bind(case, tmp_path, others)
        assert caught.value.tensor == name


@each_case
def test_any_tensor_of_another_shape_is_named_with_both_shapes(case: Case, tmp_path: Path) -> None:
    tensors = tensors_of(case)
    for name in _of_first_and_last_layer(case):
        array = tensors[name]
        wrong = {**tensors, name: np.concatenate([array, array[:1]])}
        with pytest.raises(InvalidCheckpoint) as caught:
            bind(case, tmp_path, wrong)
        assert caught.value.tensor == name
        for shape in (array.shape, wrong[name].shape):
            assert f"({', '.join(map(str, shape))})" in caught.value.message


@each_case
def test_any_tensor_left_over_is_named(case: Case, tmp_path: Path) -> None:
    base = architecture_of(case).layout.base
    n_layers = architecture_of(case).spec.n_layers
    name = next(iter(_of_first_and_last_layer(case)))
    for extra in (
        "score.weight",
        f"{base}adapter.weight",
        f"{base}layers.0.self_attn.q_proj.lora_A.weight",
        f"{base}layers.{n_layers}.input_layernorm.weight",
        f"{name}_scale",
    ):
        with pytest.raises(InvalidCheckpoint, match="no place in this model") as caught:
            bind(case, tmp_path, {**tensors_of(case), extra: np.zeros(3, np.float32)})
        assert caught.value.tensor == extra


@each_case
def test_the_bytes_of_all_slots_are_the_bytes_of_the_file(case: Case, tmp_path: Path) -> None:
    make_checkpoint(case, tmp_path)
    expected = sum(array.nbytes for array in tensors_of(case).values())
    assert open_model(tmp_path).weights.size_bytes == expected


def _of_first_and_last_layer(case: Case) -> dict[str, tuple[int, ...]]:
    architecture = architecture_of(case)
    last = architecture.spec.n_layers - 1
    shapes = tensor_shapes(architecture.spec, architecture.layout)
    return {
        name: shape
        for name, shape in shapes.items()
        if "layers." not in name or f"layers.{last}." in name or ("norm" in name and "layers.0." in name)
    }


def test_leftovers_are_listed_but_not_all_of_hundreds(tmp_path: Path) -> None:
    case = BY_NAME["llama"]
    extra = {f"extra.{i:03}.weight": np.zeros(1, np.float32) for i in range(300)}
    with pytest.raises(InvalidCheckpoint, match=r"300 tensors .*extra\.000\.weight.* and 295 more"):
        bind(case, tmp_path, {**tensors_of(case), **extra})


@pytest.mark.parametrize(
    ("name", "buffer"),
    [
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("gpt-neox", "gpt_neox.layers.1.attention.rotary_emb.inv_freq"),
        ("gpt-neox", "gpt_neox.layers.0.attention.bias"),
        ("gpt-neox", "gpt_neox.layers.0.attention.masked_bias"),
    ],
)
def test_buffers_of_old_transformers_are_left_alone(name: str, buffer: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    tensors = {key: ("F32", array) for key, array in tensors_of(case).items()}
    # Of a dtype that no weight may have, as real files have them.
    write_folder(tmp_path, case.config, {**tensors, buffer: ("BOOL", np.ones((1, 1, 8, 8), np.bool_))})
    assert open_model(tmp_path).weights.layers[0]["q"].name


def test_a_bias_that_the_config_does_not_promise_is_taken(tmp_path: Path) -> None:
    case = BY_NAME["llama"]
    bias = np.arange(64, dtype=np.float32)
    weights = bind(case, tmp_path, {**tensors_of(case), "model.layers.1.self_attn.o_proj.bias": bias})
    assert "o.bias" not in weights.layers[0]
    np.testing.assert_array_equal(weights.layers[1]["o.bias"].array, bias)


def test_a_head_that_is_present_wins_over_tying(tmp_path: Path) -> None:
    case = BY_NAME["granite"]
    assert "lm_head" not in bind(case, tmp_path / "tied", tensors_of(case)).outer
    head = np.ones((128, 64), np.float32)
    weights = bind(case, tmp_path / "untied", {**tensors_of(case), "lm_head.weight": head})
    np.testing.assert_array_equal(weights.outer["lm_head"].array, head)


def test_both_names_of_the_neox_head_are_known(tmp_path: Path) -> None:
    case = BY_NAME["gpt-neox"]
    tensors = tensors_of(case)
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    assert bind(case, tmp_path, tensors).outer["lm_head"].name == "lm_head.weight"


def test_a_tied_base_model_without_its_prefix_is_read(tmp_path: Path) -> None:
    case = BY_NAME["granite"]
    tensors = {name.removeprefix("model."): array for name, array in tensors_of(case).items()}
    assert bind(case, tmp_path, tensors).outer["embed"].name == "embed_tokens.weight"


def test_parts_of_a_stacked_tensor_are_views_of_its_rows(tmp_path: Path) -> None:
    case = BY_NAME["phi3-longrope-long-odd"]
    tensors = tensors_of(case)
    layer = bind(case, tmp_path, tensors).layers[1]
    stacked = tensors["model.layers.1.self_attn.qkv_proj.weight"]
    np.testing.assert_array_equal(np.concatenate([layer[slot].array for slot in "qkv"]), stacked)
    assert [len(layer[slot].array) for slot in "qkv"] == [96, 32, 32]
    assert not layer["q"].array.flags.owndata


def test_parts_stacked_by_head_are_three_dimensional_views(tmp_path: Path) -> None:
    case = BY_NAME["gpt-neox"]
    tensors = tensors_of(case)
    layer = bind(case, tmp_path, tensors).layers[0]
    stacked = tensors["gpt_neox.layers.0.attention.query_key_value.weight"]
    for index, slot in enumerate("qkv"):
        assert layer[slot].shape == (4, 16, 64)
        assert not layer[slot].array.flags.owndata
        np.testing.assert_array_equal(layer[slot].array[2], stacked[2 * 48 + 16 * index :][:16])
    assert layer["q.bias"].shape == (64,)


def test_the_norms_of_single_heads_are_stacked(tmp_path: Path) -> None:
    case = BY_NAME["stablelm-parallel-qk-norm-odd"]
    tensors = tensors_of(case)
    norm = bind(case, tmp_path, tensors).layers[0]["q_norm"]
    assert norm.shape == (6, 10)
    np.testing.assert_array_equal(
        norm.array[5], tensors["model.layers.0.self_attn.q_layernorm.norms.5.weight"]
    )


def test_each_tensor_may_have_its_own_dtype(tmp_path: Path) -> None:
    case = BY_NAME["llama"]
    dtypes: list[DType] = ["F32", "F16", "BF16"]
    tensors = {
        name: (dtypes[i % 3], round_to(array, dtypes[i % 3]))
        for i, (name, array) in enumerate(random_tensors(architecture_of(case), 1).items())
    }
    write_folder(tmp_path, case.config, tensors)
    weights = open_model(tmp_path).weights
    assert {tensor.dtype for layer in weights.layers for tensor in layer.values()} == set(dtypes)


def test_a_weight_of_another_dtype_is_refused(tmp_path: Path) -> None:
    case = BY_NAME["llama"]
    tensors = {name: ("F32", array) for name, array in tensors_of(case).items()}
    name = "model.layers.0.mlp.up_proj.weight"
    write_folder(tmp_path, case.config, {**tensors, name: ("I8", np.zeros((96, 64), np.int8))})
    with pytest.raises(UnsupportedModel, match="I8"):
        open_model(tmp_path)
