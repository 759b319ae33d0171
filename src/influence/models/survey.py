"""What a model is, from its config.json and the headers of its weights alone.

Not a byte of the weights is needed, so this is known of a model that is still
on a hub as well as of one on this disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from influence.dataclass import dataclass
from influence.errors import InvalidCheckpoint, UnsupportedModel
from influence.models.binding import Shape, tensor_shapes
from influence.models.config import Config
from influence.models.layout import Architecture, Layout
from influence.models.registry import read_architecture
from influence.models.spec import ModelSpec
from influence.weights.safetensors import TensorInfo
from influence.weights.tensor import ITEM_BYTES


@dataclass(frozen=True)
class Survey:
    """Sizes of a model; immutable. Tensors that no engine reads (old buffers) are not counted."""

    model_type: str
    spec: ModelSpec
    n_parameters: int  # a tied head counts once
    bytes_by_dtype: Mapping[str, int]  # the largest share first
    decoded_bytes: int  # weights that one decoded token reads: all, but for the rows of an untied embedding
    kv_value_bytes: int  # of one number in the KV cache: 4 for float32 weights, else 2

    @property
    def weights_bytes(self) -> int:
        return sum(self.bytes_by_dtype.values())

    @property
    def dtype(self) -> str:
        """The dtype of most of the weights."""
        return next(iter(self.bytes_by_dtype))


def survey(config: Config, tensors: Mapping[str, TensorInfo]) -> Survey:
    """The model of a config.json and all tensors that its weight files list.

    Raises UnsupportedModel for a kind or a dtype that is not run here,
    InvalidConfig, and InvalidCheckpoint where a tensor is missing or has
    another shape than the config makes it.
    """
    architecture = read_architecture(config)
    folder, spec, layout = config.path.parent, architecture.spec, architecture.layout
    used = {name: info for name, info in tensors.items() if not name.endswith(layout.ignored)}
    base = layout.base if any(name.startswith(layout.base) for name in used) else ""
    _require_dtypes(folder, used)
    _require_shapes(folder, architecture, used, base)
    return Survey(
        model_type=config.text("model_type"),
        spec=spec,
        n_parameters=sum(math.prod(info.shape) for info in used.values()),
        bytes_by_dtype=_bytes_by_dtype(used),
        decoded_bytes=sum(info.size_bytes for info in used.values()) - _unread_bytes(layout, used, base),
        kv_value_bytes=_kv_value_bytes(layout, used, base),
    )


def _require_dtypes(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    for name, info in tensors.items():
        if info.dtype not in ITEM_BYTES:
            raise UnsupportedModel(
                folder,
                f"tensor {name!r} is {info.dtype}; this engine runs {', '.join(ITEM_BYTES)}",
                hint="use the model's original weights, before they were quantised or converted",
            )


def _require_shapes(
    folder: Path, architecture: Architecture, tensors: Mapping[str, TensorInfo], base: str
) -> None:
    for name, shape in _expected_shapes(architecture, tensors, base).items():
        info = tensors.get(name)
        if info is None or info.shape != shape:
            found = "it is missing" if info is None else f"its shape is {list(info.shape)}"
            raise InvalidCheckpoint(
                folder,
                f"{found}, and config.json makes it {list(shape)}",
                tensor=name,
                hint="config.json and the weights do not belong together: download the model again",
            )


def _expected_shapes(
    architecture: Architecture, tensors: Mapping[str, TensorInfo], base: str
) -> dict[str, Shape]:
    """Every tensor that must be there, by the name that this checkpoint gives it."""
    layout = architecture.layout
    head = _head(layout, tensors) or layout.head[0]
    expected = {}
    for name, shape in tensor_shapes(architecture.spec, layout).items():
        module, _, kind = name.rpartition(".")
        renamed = f"{head}.{kind}" if module == layout.head[0] else base + name.removeprefix(layout.base)
        expected[renamed] = shape
    return expected


def _head(layout: Layout, tensors: Mapping[str, TensorInfo]) -> str:
    """The name of the head's module, empty if it is tied to the embedding."""
    return next((name for name in layout.head if f"{name}.weight" in tensors), "")


def _unread_bytes(layout: Layout, tensors: Mapping[str, TensorInfo], base: str) -> int:
    """An embedding with a head beside it gives a single row for a token."""
    embedding = f"{base}{layout.outer['embed']}.weight"
    return tensors[embedding].size_bytes if _head(layout, tensors) else 0


def _bytes_by_dtype(tensors: Mapping[str, TensorInfo]) -> Mapping[str, int]:
    totals: dict[str, int] = {}
    for info in tensors.values():
        totals[info.dtype] = totals.get(info.dtype, 0) + info.size_bytes
    return MappingProxyType(dict(sorted(totals.items(), key=lambda item: -item[1])))


def _kv_value_bytes(layout: Layout, tensors: Mapping[str, TensorInfo], base: str) -> int:
    """The cache is as wide as the keys' weights ask for (engines/native.py)."""
    place = layout.layer["k"]
    module = place if isinstance(place, str) else place.module
    return 4 if tensors[f"{base}{layout.layers}.0.{module}.weight"].dtype == "F32" else 2
