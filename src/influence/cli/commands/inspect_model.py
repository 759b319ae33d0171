"""`influence inspect model`: what a checkpoint is made of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from influence.cli import options, output

if TYPE_CHECKING:
    from influence.models.binding import Weights
    from influence.models.model import Model
    from influence.weights.safetensors import TensorInfo

_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@click.command()
@options.model_option
@click.option(
    "--all", "every_tensor", is_flag=True, help="List every tensor, not one line for all layers' alike."
)
@options.json_option
def model(model_path: str, every_tensor: bool, as_json: bool) -> None:
    """Show a model's spec, tensors, types and sizes.

    \b
    influence inspect model -m models/my_model
    influence inspect model -m demo --all --json
    """
    from influence.cli.model_path import find_model
    from influence.models.model import open_model

    opened = open_model(find_model(model_path))
    facts = _facts(opened, every_tensor)
    if as_json:
        output.write_json(facts)
    else:
        output.write(_as_text(facts))


def _facts(opened: Model, every_tensor: bool) -> dict[str, Any]:
    from dataclasses import asdict

    from influence.engines import select

    infos = opened.checkpoint.infos.values()
    return {
        "folder": str(opened.folder),
        "model_type": opened.model_type,
        "parameters": _n_parameters(opened.weights),
        "weights_bytes": opened.checkpoint.size_bytes,
        "kv_bytes_per_token": select.kv_bytes_per_token(opened),
        "spec": asdict(opened.spec),
        "files": [{"name": file.name, "bytes": file.stat().st_size} for file in opened.checkpoint.files],
        "tensors": [_row(info.name, info, 1) for info in infos] if every_tensor else _grouped(infos),
    }


def _grouped(infos: Iterable[TensorInfo]) -> list[dict[str, Any]]:
    """Tensors that are alike in every layer as one, with `*` for the layer's number."""
    counts: dict[tuple[str, str, tuple[int, ...]], int] = {}
    example: dict[tuple[str, str, tuple[int, ...]], TensorInfo] = {}
    for info in infos:
        key = (_LAYER_NUMBER.sub("*", info.name), info.dtype, info.shape)
        counts[key] = counts.get(key, 0) + 1
        example[key] = info
    return [_row(key[0], example[key], count) for key, count in counts.items()]


def _row(name: str, info: TensorInfo, count: int) -> dict[str, Any]:
    return {
        "name": name,
        "count": count,
        "dtype": info.dtype,
        "shape": list(info.shape),
        "bytes": count * info.size_bytes,
    }


def _n_parameters(weights: Weights) -> int:
    slots = (weights.outer, *weights.layers)
    return sum(math.prod(tensor.shape) for tensors in slots for tensor in tensors.values())


def _as_text(facts: dict[str, Any]) -> str:
    summary = [
        ("folder", facts["folder"]),
        ("model type", facts["model_type"]),
        ("parameters", f"{facts['parameters']:,}"),
        ("weights", output.size(facts["weights_bytes"])),
        ("kv cache", f"{output.size(facts['kv_bytes_per_token'])} per token"),
    ]
    spec = [(name, _value(name, value)) for name, value in facts["spec"].items()]
    files = [(file["name"], output.size(file["bytes"])) for file in facts["files"]]
    tensors = [
        (
            tensor["name"],
            f"{tensor['count']} x",
            tensor["dtype"],
            str(tensor["shape"]),
            output.size(tensor["bytes"]),
        )
        for tensor in facts["tensors"]
    ]
    blocks = [
        output.columns(summary),
        *(
            f"{title}\n{_indented(rows)}"
            for title, rows in (("spec", spec), ("files", files), ("tensors", tensors))
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _indented(rows: Sequence[tuple[str, ...]]) -> str:
    return output.columns([("  " + row[0], *row[1:]) for row in rows])


def _value(name: str, value: Any) -> str:
    """A field of the spec; what every layer has alike is said once."""
    if name == "ropes":
        return "; ".join(map(_rope, value)) or "none"
    if isinstance(value, tuple):
        shown = ["-" if item is None else str(item) for item in value]
        return f"{shown[0]} in each of {len(shown)} layers" if len(set(shown)) == 1 else " ".join(shown)
    return "none" if value is None else str(value)


def _rope(rope: dict[str, Any]) -> str:
    pairs = "interleaved" if rope["interleaved"] else "in halves"
    scaling = rope["scaling"]
    stretched = "" if scaling["kind"] == "default" else f", {scaling['kind']} scaling by {scaling['factor']}"
    return f"theta {rope['theta']}, {rope['rotary_dim']} dimensions {pairs}{stretched}"
