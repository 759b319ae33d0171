"""Opening a folder: what is not a model folder is said at once, and nothing stays open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from influence.errors import InvalidCheckpoint, ModelFilesMissing
from influence.models.model import open_model
from support.cases import BY_NAME
from support.checkpoints import make_checkpoint


def test_a_folder_becomes_a_model(tmp_path: Path) -> None:
    model = open_model(make_checkpoint(BY_NAME["gemma3"], tmp_path))
    assert (model.folder, model.model_type, model.spec.n_layers) == (tmp_path, "gemma3_text", 4)
    assert model.generation_config.eos_ids == {2}
    assert len(model.weights.layers) == 4


@pytest.mark.parametrize(
    ("name", "what"),
    [("absent", "no such folder"), ("x" * 300, "too long"), ("a\0b", "null"), ("file", "not a folder")],
)
def test_what_is_no_folder_is_named(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelFilesMissing, match=what):
        open_model(tmp_path / name)


def test_a_fifo_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ModelFilesMissing, match="not a folder"):
        open_model(tmp_path / "fifo")


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    make_checkpoint(BY_NAME["llama"], tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelFilesMissing):
        open_model(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    make_checkpoint(BY_NAME["llama"], tmp_path)
    other = make_checkpoint(BY_NAME["phi"], tmp_path / "other")
    (other / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(InvalidCheckpoint):
        open_model(tmp_path)
