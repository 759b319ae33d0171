"""Which files of a model folder hold its weights, and which tensor is in which.

    model/
    ├── model.safetensors.index.json      first: {"weight_map": {tensor: file, ...}}
    ├── model-00001-of-00002.safetensors
    ├── model-00002-of-00002.safetensors
    ├── model.safetensors                 else this
    └── consolidated.safetensors          else the only *.safetensors there is

A second copy of the weights under another name (Mistral's consolidated file)
is left alone. An adapter is no model, and pickled weights are never opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from influence.errors import InvalidCheckpoint, ModelFilesMissing, UnsupportedModel
from influence.weights.files import open_regular
from influence.weights.json_scanner import JsonError, JsonScanner

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_INDEX_BYTES = 100_000_000  # as many as a safetensors header may have

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_FOREIGN_FORMATS: Mapping[str, tuple[str, ...]] = {
    "has only pickled weights, and a pickle can run any code when it is loaded": _PICKLE_SUFFIXES,
    "has only weights in llama.cpp's format": (".gguf", ".ggml"),
    "has only weights of another framework": (".h5", ".msgpack", ".onnx", ".npz"),
}
_SHARD_NAME = re.compile(r"-\d+-of-0*([1-9]\d*)\.safetensors$")
_MAX_NAMES_SHOWN = 8
_MAX_NAME_SHOWN = 100  # characters


def weight_files(folder: Path) -> tuple[tuple[Path, ...], Mapping[str, Path] | None]:
    """The weight files, and tensor -> file where an index says so.

    Raises ModelFilesMissing (no folder, no weights, a shard is missing),
    UnsupportedModel (weights of another format only) or InvalidCheckpoint (a
    bad index, or a choice of several files).
    """
    names = _names_in(folder)
    if INDEX_NAME in names:
        index = read_index(folder / INDEX_NAME)
        paths = tuple(sorted(set(index.values())))
        _check_present(folder, paths)
        _check_inside(folder, paths)
        return paths, index
    return (folder / only_weight_file(folder, names),), None


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError as error:
        problem, hint = "there is no such folder", "check the path, or download the model first"
        raise ModelFilesMissing(folder, problem, hint=hint) from error
    except NotADirectoryError as error:
        problem, hint = "is a file, not a model folder", "give the folder that holds config.json"
        raise ModelFilesMissing(folder, problem, hint=hint) from error
    except OSError as error:
        problem = f"can't be listed: {error.strerror}"
        raise ModelFilesMissing(folder, problem, hint="make the folder readable for this user") from error


def only_weight_file(folder: Path, names: list[str]) -> str:
    """Which of a folder's names is its weights, where no index says so; raises as `weight_files` does.

    Pure: `folder`, which may be a model's name on a hub, is only named in errors.
    """
    if SINGLE_NAME in names:
        return SINGLE_NAME
    found = [name for name in names if name.endswith(".safetensors")]
    models = [name for name in found if not name.startswith("adapter_")]
    if any(int(shard[1]) > 1 for name in models if (shard := _SHARD_NAME.search(name))):
        raise ModelFilesMissing(
            folder,
            f"has {_listed(models)}, but not {INDEX_NAME}, which says where each tensor is",
            hint="the download is incomplete: download the model again",
        )
    if len(models) > 1:
        raise InvalidCheckpoint(
            folder,
            f"has several weight files and no {INDEX_NAME}: {_listed(models)}",
            hint=f"keep one of them, or name the one to run {SINGLE_NAME}",
        )
    if not models:
        _refuse_without_weights(folder, names, adapters=found)
    return models[0]


def _refuse_without_weights(folder: Path, names: list[str], adapters: list[str]) -> None:
    if adapters:
        raise UnsupportedModel(
            folder,
            f"holds an adapter ({_listed(adapters)}), not a whole model",
            hint="merge it into its base model with its training library, and save that as safetensors",
        )
    for reason, suffixes in _FOREIGN_FORMATS.items():
        foreign = [name for name in names if name.lower().endswith(suffixes)]
        if foreign:
            raise UnsupportedModel(
                folder,
                f"{reason}: {_listed(foreign)}",
                hint="find a repository of the same model with .safetensors files: influence search NAME",
            )
    holds = f"; it holds {_listed(names)}" if names else ""
    raise ModelFilesMissing(
        folder,
        f"has no weights (*.safetensors){holds}",
        hint="name a model that holds them; a download of this one may have left them out",
    )


def _check_present(folder: Path, paths: tuple[Path, ...]) -> None:
    missing = [path.name for path in paths if not os.path.lexists(path)]
    if missing:
        raise ModelFilesMissing(
            folder,
            f"{len(missing)} of {len(paths)} weight files are missing: {_listed(missing)}",
            hint="the download is incomplete: download the model again",
        )


def _listed(names: list[str]) -> str:
    rest = len(names) - _MAX_NAMES_SHOWN
    shown = ", ".join(name[:_MAX_NAME_SHOWN] for name in names[:_MAX_NAMES_SHOWN])
    return shown + (f" and {rest} more" if rest > 0 else "")


def read_index(path: Path) -> dict[str, Path]:
    """Tensor -> file, as the index at `path` says; InvalidCheckpoint, ModelFilesMissing."""
    with open_regular(path) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes > MAX_INDEX_BYTES:
            raise InvalidCheckpoint(
                path, f"is {n_bytes} bytes long, more than the {MAX_INDEX_BYTES} of any real one"
            )
        text = file.read(n_bytes)
    try:
        weight_map = _parse_index(text)
    except JsonError as error:
        raise InvalidCheckpoint(path, f"is malformed: {error}") from error
    if not weight_map:
        raise InvalidCheckpoint(path, 'lists no tensors under "weight_map"')
    files = {name: _shard_path(path, name) for name in set(weight_map.values())}
    return {tensor: files[name] for tensor, name in weight_map.items()}


def _parse_index(text: bytes) -> dict[str, str]:
    weight_map: dict[str, str] = {}
    scanner = JsonScanner(text, 0, len(text))
    for key in scanner.members():
        if key != "weight_map":
            scanner.skip()
            continue
        for tensor in scanner.members():
            if tensor in weight_map:
                scanner.fail(f"tensor {tensor[:_MAX_NAME_SHOWN]!r} is there twice")
            weight_map[tensor] = scanner.string()
    scanner.end()
    return weight_map


def _shard_path(index: Path, name: str) -> Path:
    """Where the shard `name` must be; the names are a stranger's, and none may lead out of the folder."""
    pure = PurePosixPath(name)
    if not name.isprintable() or "\\" in name or ":" in name or pure.is_absolute() or ".." in pure.parts:
        raise _outside(index, name)
    if pure.suffix != ".safetensors":
        raise InvalidCheckpoint(
            index, f"names the shard {name[:_MAX_NAME_SHOWN]!r}, which is no .safetensors file"
        )
    return index.parent / pure


def _check_inside(folder: Path, paths: tuple[Path, ...]) -> None:
    root = _root(folder)
    for path in paths:
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise _outside(folder / INDEX_NAME, path.name)


def _root(folder: Path) -> Path:
    """What links of shards may lead to: the folder, or its repository in the cache of huggingface_hub.

    models--org--name/
    ├── blobs/5f3c…                                        the real files
    └── snapshots/<revision>/model.safetensors -> ../../blobs/5f3c…
    """
    real = Path(os.path.realpath(folder))
    in_cache = real.parent.name == "snapshots" and real.parent.parent.name.startswith("models--")
    return real.parent.parent if in_cache else real


def _outside(index: Path, name: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(
        index,
        f"names the shard {name[:_MAX_NAME_SHOWN]!r}, which is not inside the model's folder",
        hint="do not trust this model; if you linked its files yourself, move the real ones into the folder",
    )
