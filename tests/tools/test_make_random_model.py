"""The random models that benchmarks run are what their originals' own programs would load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from influence.engines import native
from influence.engines.base import Step
from influence.models.config import Config
from influence.models.model import open_model
from influence.models.registry import read_architecture
from tools.make_random_model import SHAPES, Tape, encode, plan_tensors, write_model


def tiny_like(shape: str) -> dict[str, Any]:
    """That shape's config.json with the sizes of a toy."""
    small = {
        "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4 if shape == "phi-2" else 2,
    }  # fmt: skip
    return {key: value for key, value in SHAPES[shape].items() if key != "head_dim"} | small


@pytest.mark.parametrize("shape", SHAPES)
def test_the_tensors_are_those_of_transformers(shape: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        config = transformers.AutoConfig.for_model(**SHAPES[shape])
        model = transformers.AutoModelForCausalLM.from_config(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if SHAPES[shape]["tie_word_embeddings"]:
        del expected["lm_head.weight"]
    architecture = read_architecture(Config(SHAPES[shape], Path("config.json")))
    assert {planned.name: planned.shape for planned in plan_tensors(architecture)} == expected


@pytest.mark.parametrize(
    ("shape", "dtype"), [*((shape, "bf16") for shape in SHAPES), ("tiny", "f16"), ("tiny", "f32")]
)
def test_a_model_of_any_shape_and_dtype_opens_and_gives_finite_logits(
    tmp_path: Path, shape: str, dtype: str
) -> None:
    write_model(tiny_like(shape), tmp_path, dtype=dtype)
    model = open_model(tmp_path)
    engine = native.load(model.spec, model.weights, threads=1)
    engine.forward([Step(engine.new_session(16), range(16), 16)])
    logits = engine.logits()
    assert np.isfinite(logits).all()
    assert logits.std() > 0.01
    engine.close()
    model.checkpoint.close()


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_model(SHAPES["tiny"], tmp_path / folder, seed=seed)
    files = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in "abc"]
    assert files[0] == files[1] != files[2]


def test_a_large_model_is_cut_into_shards_that_safetensors_reads(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    write_model(SHAPES["tiny"], tmp_path / "whole", dtype="f32")
    write_model(SHAPES["tiny"], tmp_path / "cut", dtype="f32", shard_bytes=500_000)
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert all((tmp_path / "cut" / file).stat().st_size < 510_000 for file in files)
    with safetensors.safe_open(tmp_path / "whole" / "model.safetensors", "np") as whole:
        assert set(whole.keys()) == set(index["weight_map"])
        for name, file in index["weight_map"].items():
            with safetensors.safe_open(tmp_path / "cut" / file, "np") as part:
                assert np.array_equal(part.get_tensor(name), whole.get_tensor(name))
    assert open_model(tmp_path / "cut").weights.size_bytes == index["metadata"]["total_size"]


def test_no_weight_is_subnormal_and_no_two_rows_are_equal() -> None:
    architecture = read_architecture(Config(SHAPES["tiny"], Path("config.json")))
    [embed] = [planned for planned in plan_tensors(architecture) if "embed" in planned.name]
    rows = Tape(0, "f16").tensor(embed).reshape(embed.shape)
    assert np.abs(rows).min() > np.finfo(np.float16).smallest_normal
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_bf16_is_rounded_as_torch_rounds() -> None:
    torch = pytest.importorskip("torch")
    numbers = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    expected = torch.from_numpy(numbers).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(encode(numbers, "bf16"), expected)
