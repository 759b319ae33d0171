"""Weight files for a fake hub: cut into shards, or of many gigabytes that nobody ever wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influence.models.binding import tensor_shapes
from influence.models.config import Config
from influence.models.registry import read_architecture

DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2}


@dataclass(frozen=True)
class HeaderOnly:
    """A safetensors file whose header is there and whose data are as many zeros as it claims."""

    header: bytes  # with its length before it
    size_bytes: int
    sha256: str = "5" * 64
    git_sha1: str = "5" * 40

    def read(self, begin: int, end: int) -> bytes:
        end = min(end, self.size_bytes)
        part = self.header[begin:end]
        return part + bytes(max(end - max(begin, len(self.header)), 0))


def header_of(shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16") -> HeaderOnly:
    """A file of these tensors."""
    listed, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + math.prod(shape) * DTYPE_BYTES[dtype]
        listed[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(listed).encode()
    return HeaderOnly(len(text).to_bytes(8, "little") + text, 8 + len(text) + begin)


def model_files(config: Mapping[str, Any], n_shards: int = 1, dtype: str = "BF16") -> dict[str, Any]:
    """config.json and the weights that it asks for, with an index if there are several files of them."""
    architecture = read_architecture(Config(config, Path("config.json")))
    shapes = tensor_shapes(architecture.spec, architecture.layout)
    files: dict[str, Any] = {"config.json": json.dumps(config).encode()}
    if n_shards == 1:
        return {**files, "model.safetensors": header_of(shapes, dtype)}
    weight_map = {}
    for number in range(n_shards):
        file = f"model-{number + 1:05}-of-{n_shards:05}.safetensors"
        part = dict(list(shapes.items())[number::n_shards])
        files[file] = header_of(part, dtype)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    return {**files, "model.safetensors.index.json": json.dumps(index).encode()}
