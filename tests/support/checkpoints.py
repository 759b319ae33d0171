"""Tiny random Hugging Face folders of every family.

    make_checkpoint(case, folder, "F32")                by numpy alone, the same on every machine
    make_checkpoint_by_transformers(case, folder, ...)  by transformers' own save_pretrained

The first writes the names that this project reads; that they are the right
ones is shown by transformers, which loads such folders without a missing or an
unexpected tensor (tests/models/test_parity.py).
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from influence.models.binding import tensor_shapes
from influence.models.config import Config
from influence.models.layout import Architecture
from influence.models.registry import read_architecture
from influence.weights.tensor import DType
from support.bfloat16 import to_bfloat16
from support.cases import BY_NAME, FAMILIES, Case

__all__ = [
    "BY_NAME",
    "FAMILIES",
    "Case",
    "architecture_of",
    "make_checkpoint",
    "make_checkpoint_by_transformers",
    "random_tensors",
    "write_folder",
    "write_safetensors",
]

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


def make_checkpoint(case: Case, folder: Path, dtype: DType = "F32") -> Path:
    """A folder with config.json and model.safetensors, a function of the case alone."""
    tensors = random_tensors(architecture_of(case), case.seed)
    return write_folder(
        folder, case.config, {name: (dtype, round_to(array, dtype)) for name, array in tensors.items()}
    )


def make_checkpoint_by_transformers(case: Case, folder: Path, dtype: DType = "F32") -> Path:
    """The same, by transformers: its own names, shapes, and spelling of the config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch_dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    values = {key: value for key, value in case.config.items() if key != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(case.model_type, **values))
    is_offset = architecture_of(case).spec.norm_offset != 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            array = random_tensor(name, tuple(parameter.shape), case.seed + 1, is_offset)
            parameter.copy_(torch.from_numpy(array))
    model.to(torch_dtype).save_pretrained(folder)
    return folder


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, tuple[DType, Array]]) -> Path:
    """config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config), indent=1))
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, Array]]) -> None:
    """A safetensors file; each tensor as (dtype of the header, array of that dtype's bits)."""
    header: dict[str, Any] = {}
    begin = 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [begin, begin + array.nbytes]}
        begin += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def architecture_of(case: Case) -> Architecture:
    return read_architecture(Config(case.config, Path(case.name) / "config.json"))


def random_tensors(architecture: Architecture, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """A value for every tensor."""
    is_offset = architecture.spec.norm_offset != 0
    shapes = tensor_shapes(architecture.spec, architecture.layout)
    return {name: random_tensor(name, shape, seed, is_offset) for name, shape in shapes.items()}


def random_tensor(name: str, shape: Shape, seed: int, is_offset: bool) -> npt.NDArray[np.float32]:
    """Values of a size that keeps activations near 1, so that every part of the model shows in the logits."""
    uniform = _uniform(f"{seed} {name}", math.prod(shape)).reshape(shape)  # in [-1, 1)
    if name.endswith(".bias"):
        return uniform * np.float32(0.5)
    if len(shape) == 1 or "norm" in name:
        return uniform * np.float32(0.5) + np.float32(0 if is_offset else 1)
    if "embed" in name:
        return uniform
    return uniform * np.float32(2.5 / math.sqrt(shape[1]))


def _uniform(key: str, count: int) -> npt.NDArray[np.float32]:
    """Numbers in [-1, 1), exact in float32.

    Raw words of PCG64: numpy promises that these never change, unlike those of
    its Generator.
    """
    words = np.random.PCG64(zlib.crc32(key.encode())).random_raw(count)
    return ((words >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23)) - np.float32(1)


def round_to(array: npt.NDArray[np.float32], dtype: DType) -> Array:
    """The nearest values of the dtype, ties to even; BF16 as its bits."""
    if dtype == "F32":
        return array
    if dtype == "F16":
        return array.astype(np.float16)
    return to_bfloat16(array)
