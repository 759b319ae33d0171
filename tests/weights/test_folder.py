"""Which files of a folder are its weights, and what is said where none are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from influence.errors import InfluenceError, InvalidCheckpoint, ModelFilesMissing, UnsupportedModel
from influence.weights.checkpoint import Checkpoint
from support.safetensors_files import safetensors_file

INDEX = "model.safetensors.index.json"


def put(folder: Path, **files: str) -> Path:
    """One file a keyword, `name=tensor`, with "__" in its name standing for a dot; "" makes it empty."""
    for name, tensor in files.items():
        file = safetensors_file({tensor: ("U8", [1], b"x")}) if tensor else b""
        (folder / name.replace("__", ".")).write_bytes(file)
    return folder


def index(folder: Path, weight_map: object) -> Path:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return folder


def names(folder: Path) -> list[str]:
    return [path.name for path in Checkpoint.open(folder).files]


def test_the_index_comes_first(tmp_path: Path) -> None:
    put(tmp_path, shard__safetensors="a", model__safetensors="b", consolidated__safetensors="c")
    assert names(index(tmp_path, {"a": "shard.safetensors"})) == ["shard.safetensors"]


def test_without_an_index_model_safetensors_is_taken(tmp_path: Path) -> None:
    assert names(put(tmp_path, model__safetensors="b", consolidated__safetensors="c")) == [
        "model.safetensors"
    ]


def test_the_only_safetensors_file_is_taken(tmp_path: Path) -> None:
    put(tmp_path, weights__safetensors="b", adapter_model__safetensors="c", training_args__bin="")
    assert names(tmp_path) == ["weights.safetensors"]


def test_a_name_that_says_one_of_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes(safetensors_file({"w": ("U8", [1], b"x")}))
    assert names(tmp_path) == ["model-00001-of-00001.safetensors"]


def test_several_files_without_an_index_are_listed(tmp_path: Path) -> None:
    put(tmp_path, a__safetensors="a", b__safetensors="b")
    with pytest.raises(InvalidCheckpoint, match=r"several weight files.*: a\.safetensors, b\.safetensors"):
        Checkpoint.open(tmp_path)


def test_a_shard_without_its_index_is_no_whole_model(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(safetensors_file({"w": ("U8", [1], b"x")}))
    with pytest.raises(
        ModelFilesMissing, match=r"has model-00001-of-00002\.safetensors, but not model.*index"
    ):
        Checkpoint.open(tmp_path)


def test_missing_shards_are_counted_and_named(tmp_path: Path) -> None:
    put(tmp_path, s2__safetensors="b")
    index(tmp_path, {"a": "s1.safetensors", "b": "s2.safetensors", "c": "s3.safetensors"})
    with pytest.raises(
        ModelFilesMissing, match=r"2 of 3 weight files are missing: s1\.safetensors, s3\.safetensors"
    ):
        Checkpoint.open(tmp_path)


def test_many_missing_shards_are_not_all_named(tmp_path: Path) -> None:
    index(tmp_path, {f"t{i}": f"s{i}.safetensors" for i in range(1000)})
    with pytest.raises(ModelFilesMissing, match="1000 of 1000") as caught:
        Checkpoint.open(tmp_path)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("pytorch_model.bin", "a pickle can run any code"),
        ("model.pt", "a pickle can run any code"),
        ("model.pth", "a pickle can run any code"),
        ("model.ckpt", "a pickle can run any code"),
        ("model.pkl", "a pickle can run any code"),
        ("MODEL.BIN", "a pickle can run any code"),
        ("model.gguf", "llama.cpp's format"),
        ("tf_model.h5", "another framework"),
        ("flax_model.msgpack", "another framework"),
        ("model.onnx", "another framework"),
        ("adapter_model.safetensors", "an adapter"),
    ],
)
def test_weights_of_another_kind_are_refused_with_a_way_out(file: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        Checkpoint.open(tmp_path)
    assert file in caught.value.message
    assert "safetensors" in caught.value.hint


def test_a_folder_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(ModelFilesMissing, match=r"no weights \(\*\.safetensors\); it holds config\.json"):
        Checkpoint.open(tmp_path)


def test_an_empty_folder_has_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesMissing, match=r"no weights \(\*\.safetensors\)$"):
        Checkpoint.open(tmp_path)


def test_a_folder_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesMissing, match="no such folder"):
        Checkpoint.open(tmp_path / "absent")


def test_a_file_is_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ModelFilesMissing, match="is a file, not a model folder"):
        Checkpoint.open(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "sub/../../model.safetensors",
        "/etc/model.safetensors",
        "..",
        "..\\model.safetensors",
        "C:model.safetensors",
        "a\0.safetensors",
        "a\n.safetensors",
        "a\x1b[2J.safetensors",
    ],
)
def test_an_index_can_not_lead_out_of_the_folder(name: str, tmp_path: Path) -> None:
    put(tmp_path, model__safetensors="w")
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(InvalidCheckpoint, match="not inside the model's folder"):
        Checkpoint.open(index(folder, {"w": name}))


def test_a_shard_that_links_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path, secret__safetensors="w")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "s.safetensors").symlink_to("../secret.safetensors")
    with pytest.raises(InvalidCheckpoint, match="not inside the model's folder"):
        Checkpoint.open(index(folder, {"w": "s.safetensors"}))


def test_a_shard_in_a_subfolder_is_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    put(tmp_path / "sub", s__safetensors="w")
    checkpoint = Checkpoint.open(index(tmp_path, {"w": "sub/s.safetensors"}))
    assert checkpoint.files == (tmp_path / "sub" / "s.safetensors",)


def test_the_cache_of_huggingface_hub_is_a_model_folder(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    folder = repository / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    put(repository / "blobs", blob="w")
    (folder / "s.safetensors").symlink_to("../../blobs/blob")
    assert list(Checkpoint.open(index(folder, {"w": "s.safetensors"})).infos) == ["w"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "malformed: expected an object"),
        ("[]", "malformed: expected an object"),
        ("{}", "lists no tensors"),
        ('{"weight_map": {}}', "lists no tensors"),
        ('{"weight_map": []}', "malformed: expected an object"),
        ('{"weight_map": {"w": 1}}', "malformed: expected a string"),
        ('{"weight_map": {"w": "s.safetensors"', "malformed: expected ',' or '}'"),
        ('{"weight_map": {"w": "s.safetensors", "w": "t.safetensors"}}', "tensor 'w' is there twice"),
        ('{"weight_map": {"w": "s.safetensors"}} x', "malformed: expected the end"),
        ('{"weight_map": {"w": ""}}', "no .safetensors file"),
        ('{"weight_map": {"w": "pytorch_model.bin"}}', "no .safetensors file"),
        ('{"weight_map": {"w": "' + "n" * 100_000 + '.safetensors"}}', "weight files are missing"),
        ('{"x": ' + "[" * 100_000, "levels of nesting"),
        ('{"metadata": NaN, "weight_map": {"w": "s.safetensors"}}', "malformed: expected a value"),
    ],
)
def test_a_bad_index_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    put(tmp_path, s__safetensors="w")
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(InfluenceError) as caught:
        Checkpoint.open(tmp_path)
    assert reason in caught.value.message
    assert len(caught.value.message) < 2000


def test_an_index_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(b'{"\xff": 1}')
    with pytest.raises(InvalidCheckpoint, match="not UTF-8"):
        Checkpoint.open(tmp_path)


def test_an_index_of_200_mb_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / INDEX).open("wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(InvalidCheckpoint, match="is 200000000 bytes long"):
        Checkpoint.open(tmp_path)
