"""A checkpoint's tensors are the file's own bytes, mapped, and what the safetensors package loads."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import safetensors.numpy

from influence.errors import InvalidCheckpoint, UnsupportedModel
from influence.weights.checkpoint import Checkpoint
from influence.weights.safetensors import DTYPE_BITS
from support.safetensors_files import safetensors_file, with_length

FOLDERS = ["stories260K-hf", "stories260K-hf-f16", "stories260K-hf-bf16", "stories260K-hf-sharded"]
F32 = np.arange(6, dtype="<f4").reshape(2, 3)


def save(folder: Path, **shards: dict[str, np.ndarray]) -> Path:
    """One F32 shard a keyword, and their index."""
    weight_map = {}
    for shard, tensors in shards.items():
        file = safetensors_file({n: ("F32", t.shape, t.tobytes()) for n, t in tensors.items()})
        (folder / f"{shard}.safetensors").write_bytes(file)
        weight_map |= dict.fromkeys(tensors, f"{shard}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def save_one(folder: Path, dtype: str, shape: list[int], data: bytes) -> Path:
    (folder / "model.safetensors").write_bytes(safetensors_file({"w": (dtype, shape, data)}))
    return folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_real_weights_are_what_the_package_and_torch_load(folder: str, shared_data: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    checkpoint = Checkpoint.open(shared_data / "weights" / folder)
    theirs = {name: tensor for file in checkpoint.files for name, tensor in load_file(file).items()}
    assert set(checkpoint.infos) == set(theirs)
    for name, expected in theirs.items():
        tensor = checkpoint.tensor(name)
        assert tensor.shape == tuple(expected.shape)
        np.testing.assert_array_equal(tensor.to_float32(), expected.to(torch.float32).numpy())
    assert checkpoint.size_bytes == sum(t.nbytes for t in theirs.values())


def test_shards_hold_the_tensors_of_the_single_file(shared_data: Path) -> None:
    single = Checkpoint.open(shared_data / "weights/stories260K-hf")
    sharded = Checkpoint.open(shared_data / "weights/stories260K-hf-sharded")
    assert len(single.files) == 1
    assert len(sharded.files) == 3
    assert set(sharded.infos) == {*single.infos, "lm_head.weight"}
    for name in single.infos:
        np.testing.assert_array_equal(single.tensor(name).array, sharded.tensor(name).array)


@pytest.mark.parametrize(("dtype", "numpy_dtype"), [("F32", "<f4"), ("F16", "<f2")])
def test_a_tensor_is_what_was_saved(dtype: str, numpy_dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(numpy_dtype)
    safetensors.numpy.save_file({"w": values}, tmp_path / "model.safetensors")
    tensor = Checkpoint.open(tmp_path).tensor("w")
    assert (tensor.name, tensor.dtype) == ("w", dtype)
    assert tensor.array.dtype == values.dtype
    np.testing.assert_array_equal(tensor.array, values)


def test_bf16_travels_as_its_bits(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80], dtype="<u2")
    tensor = Checkpoint.open(save_one(tmp_path, "BF16", [3], bits.tobytes())).tensor("w")
    np.testing.assert_array_equal(tensor.array, bits)
    np.testing.assert_array_equal(tensor.to_float32(), np.array([1, -2, np.inf], dtype=np.float32))


@pytest.mark.parametrize(("shape", "n_bytes"), [([], 4), ([0], 0), ([2, 0, 3], 0), ([1, 1, 1, 1], 4)])
def test_scalars_and_empty_tensors_keep_their_shape(shape: list[int], n_bytes: int, tmp_path: Path) -> None:
    tensor = Checkpoint.open(save_one(tmp_path, "F32", shape, bytes(n_bytes))).tensor("w")
    assert tensor.shape == tuple(shape)
    assert tensor.size_bytes == n_bytes


@pytest.mark.parametrize(("shape", "n_bytes"), [([1] * 100, 4), ([0, 2**64 - 1], 0)])
def test_a_shape_that_no_array_has_is_an_error(shape: list[int], n_bytes: int, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_one(tmp_path, "F32", shape, bytes(n_bytes)))
    with pytest.raises(InvalidCheckpoint, match="tensor 'w': its shape can't be an array"):
        checkpoint.tensor("w")


@pytest.mark.parametrize("dtype", sorted(set(DTYPE_BITS) - {"F32", "F16", "BF16"}))
def test_another_dtype_is_listed_but_not_given(dtype: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_one(tmp_path, dtype, [8], bytes(DTYPE_BITS[dtype])))
    assert checkpoint.infos["w"].dtype == dtype
    with pytest.raises(UnsupportedModel, match=f"tensor 'w' is {dtype}; "):
        checkpoint.tensor("w")


def test_arrays_are_views_of_the_mapping_that_nobody_can_write(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save(tmp_path, a={"x": F32}, b={"y": F32}))
    assert checkpoint.mapped_files() == []  # nothing is mapped before it is needed
    array = checkpoint.tensor("y").array
    [(path, mapping)] = checkpoint.mapped_files()
    assert path == tmp_path / "b.safetensors"
    assert mapping == path.read_bytes()
    assert np.shares_memory(array, np.frombuffer(mapping, np.uint8))
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    np.testing.assert_array_equal(array, checkpoint.tensor("y").array)
    assert len(checkpoint.mapped_files()) == 1  # once, however often it is asked for


def test_data_on_an_odd_address_is_given_aligned(tmp_path: Path) -> None:
    for pad in range(1, 8):
        header = '{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}' + " " * pad
        (tmp_path / "model.safetensors").write_bytes(with_length(header, F32.tobytes()))
        array = Checkpoint.open(tmp_path).tensor("w").array
        np.testing.assert_array_equal(array, F32)
        assert array.flags.aligned
        assert not array.flags.writeable


def test_arrays_outlive_the_checkpoint_and_the_file(tmp_path: Path) -> None:
    with Checkpoint.open(save(tmp_path, a={"x": F32})) as checkpoint:
        tensor = checkpoint.tensor("x")
    (tmp_path / "a.safetensors").unlink()
    del checkpoint
    gc.collect()
    np.testing.assert_array_equal(tensor.array, F32)


def test_a_closed_checkpoint_unmaps_and_gives_no_more(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save(tmp_path, a={"x": F32}))
    checkpoint.tensor("x")
    checkpoint.close()
    checkpoint.close()
    assert checkpoint.mapped_files() == []
    assert "x" in checkpoint.infos
    with pytest.raises(ValueError, match="closed"):
        checkpoint.tensor("x")


@pytest.mark.skipif(sys.platform == "win32", reason="has no file descriptors")
def test_closing_gives_the_files_back(tmp_path: Path) -> None:
    folder = save(tmp_path, a={"x": F32}, b={"y": F32})
    gc.collect()
    before = psutil.Process().num_fds()
    for _ in range(5):
        with Checkpoint.open(folder) as checkpoint:
            checkpoint.tensor("x")
            checkpoint.tensor("y")
    gc.collect()
    assert psutil.Process().num_fds() == before


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save(tmp_path, a={"x": F32}))
    for ask in (checkpoint.tensor, checkpoint.file_of):
        with pytest.raises(InvalidCheckpoint, match="tensor 'z'"):
            ask("z")
    assert checkpoint.file_of("x") == tmp_path / "a.safetensors"


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"b\.safetensors: tensor 'x': is in a\.safetensors too"):
        Checkpoint.open(save(tmp_path, a={"x": F32, "w": F32}, b={"y": F32, "x": F32}))


@pytest.mark.parametrize(
    ("tensor", "shard", "reason"),
    [
        (
            "z",
            "a.safetensors",
            "tensor 'z': the index says that it is in a.safetensors, but it is in no shard",
        ),
        (
            "y",
            "a.safetensors",
            "tensor 'y': the index says that it is in a.safetensors, but it is in b.safetensors",
        ),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(
    tensor: str, shard: str, reason: str, tmp_path: Path
) -> None:
    index = save(tmp_path, a={"x": F32}, b={"y": F32, "v": F32}) / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"] | {tensor: shard}
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(InvalidCheckpoint) as caught:
        Checkpoint.open(tmp_path)
    assert caught.value.message == f"{index}: {reason}"


def test_a_tensor_that_only_the_shard_lists_is_there(tmp_path: Path) -> None:
    index = save(tmp_path, a={"x": F32, "y": F32}) / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"x": "a.safetensors"}}')
    np.testing.assert_array_equal(Checkpoint.open(tmp_path).tensor("y").array, F32)


def touch(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def replace(path: Path) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize(
    "change", [touch, truncate, replace, Path.unlink], ids=lambda change: change.__name__
)
def test_a_file_that_changed_since_it_was_opened_is_noticed(change, tmp_path: Path) -> None:
    path = save(tmp_path, a={"x": F32}, b={"y": F32}) / "b.safetensors"
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.check_unchanged()
    checkpoint.tensor("x")
    change(path)
    with pytest.raises(InvalidCheckpoint, match=r"b\.safetensors"):
        checkpoint.check_unchanged()


@pytest.mark.parametrize("change", [touch, truncate, replace], ids=lambda change: change.__name__)
def test_a_file_that_changed_before_it_was_mapped_is_not_mapped(change, tmp_path: Path) -> None:
    path = save(tmp_path, a={"x": F32}) / "a.safetensors"
    checkpoint = Checkpoint.open(tmp_path)
    change(path)
    with pytest.raises(InvalidCheckpoint, match="while the model was open"):
        checkpoint.tensor("x")
    assert checkpoint.mapped_files() == []


def test_a_fingerprint_maps_nothing(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save(tmp_path, a={"x": F32}, b={"y": F32}))
    assert checkpoint.fingerprint() == Checkpoint.open(tmp_path).fingerprint()
    assert checkpoint.mapped_files() == []
