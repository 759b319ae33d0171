"""Which of a model's files are worth their bytes: one set of weights, and what explains them.

Repositories hold the same weights several times over: safetensors, pickled
(.bin, .pt), GGUF, ONNX, TensorFlow, Flax, Core ML, the author's own layout
(`original/`, `consolidated*`). Only safetensors in the Hugging Face layout run here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from influence.dataclass import dataclass
from influence.errors import InvalidParameter, NoSafeWeights
from influence.hub.names import check_file_names
from influence.hub.records import RemoteFile

# (reason, pattern of paths), the first that fits counting.
_LEFT_OUT = tuple(
    (reason, re.compile(pattern, re.IGNORECASE | re.DOTALL))  # a line end is a character of a name too
    for reason, pattern in (
        ("for git and the Hub alone", r"(.*/)?\.git(attributes|ignore|modules|keep)"),
        (
            "the same weights in the author's own layout",
            r"original/.*|(.*/)?consolidated[^/]*\.(safetensors|pth|pt)",
        ),
        (
            "the same weights in another framework's format",
            r"(onnx|openvino|coreml|gguf|mlx|metal|tensorrt)/.*",
        ),
        ("pickled, which can run code", r".*\.(bin|pt|pth|pkl|pickle|ckpt|joblib|npy|npz)(\.index\.json)?"),
        ("weights in GGUF, for llama.cpp", r".*\.(gguf|ggml|llamafile)"),
        ("weights for ONNX", r".*\.(onnx|onnx_data|ort)([._].*)?"),
        ("weights for TensorFlow or Flax", r".*\.(h5|msgpack|tflite|pb|ckpt\.\w+)(\.index\.json)?"),
        (
            "weights for another runtime",
            r".*\.(mlmodel|mlpackage|mlpackage/.*|mlmodelc/.*|engine|nemo|ot|tar|zip|7z|gz)",
        ),
        ("code, which is never run", r".*\.(py|pyc|ipynb|sh|so|dll|dylib|exe|whl|js)"),
        (
            "a picture, sound or film",
            r".*\.(png|jpe?g|gif|webp|svg|bmp|ico|mp[34]|wav|flac|webm|mov|avi|pdf)",
        ),
        (
            "training's own notes",
            r"(.*/)?(training_args|optimizer|scheduler|rng_state|trainer_state|events\.out)[^/]*|(runs|logs)/.*",
        ),
    )
)
_IN_FOLDER = "in a folder, which a model of one set of weights does not need"
_WEIGHTS = re.compile(r"[^/]+\.safetensors")
_MAIN_WEIGHTS = re.compile(r"model(-[0-9]{5}-of-[0-9]{5})?\.safetensors")
_INDEX = re.compile(r"[^/]+\.safetensors\.index\.json")
_PICKLED = re.compile(r".*\.(bin|pt|pth|pkl|ckpt)", re.IGNORECASE)


@dataclass(frozen=True)
class Selection:
    """What is fetched, and what is not and why; both sorted by path."""

    chosen: tuple[RemoteFile, ...]
    left_out: tuple[tuple[RemoteFile, str], ...]

    @property
    def size_bytes(self) -> int | None:
        """Of all that was chosen; None if the size of one is not known."""
        sizes = [file.size_bytes for file in self.chosen]
        return sum(size for size in sizes if size is not None) if None not in sizes else None


def select(
    files: Iterable[RemoteFile],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    repo: str = "the model",
) -> Selection:
    """The files to fetch of a listing.

    `include` and `exclude` are shell patterns of whole paths, in which "*" also
    matches "/". What is included by name is taken whatever it is; what is
    excluded is not; the others are judged by the rules above.

    Raises NoSafeWeights for a model with weights but none in safetensors (unless
    `include` says what is wanted) and for one of nothing, UnsafeName for a chosen name that can't be
    written safely, InvalidParameter if the patterns leave nothing.
    """
    ordered = sorted(files, key=lambda file: file.path)
    main_weights = _has_main_weights(ordered)
    reasons = [_reason(file.path, include, exclude, main_weights) for file in ordered]
    chosen = tuple(file for file, reason in zip(ordered, reasons, strict=True) if not reason)
    left_out = tuple((file, reason) for file, reason in zip(ordered, reasons, strict=True) if reason)
    if not include:
        _check_weights(ordered, repo)
    if not chosen and not (include or exclude):
        raise NoSafeWeights(repo, "files that no model needs" if ordered else "an empty list of files")
    if not chosen:
        raise InvalidParameter(
            "include/exclude", [*include, *exclude], f"patterns that leave a file of {repo}"
        )
    check_file_names(file.path for file in chosen)
    return Selection(chosen, left_out)


def _has_main_weights(files: Sequence[RemoteFile]) -> bool:
    return any(_MAIN_WEIGHTS.fullmatch(file.path) for file in files)


def _reason(path: str, include: Sequence[str], exclude: Sequence[str], main_weights: bool) -> str:
    """Why a file is left out, "" if it is taken."""
    if any(fnmatchcase(path, pattern) for pattern in exclude):
        return "excluded"
    if include:
        return "" if any(fnmatchcase(path, pattern) for pattern in include) else "not included"
    for reason, pattern in _LEFT_OUT:
        if pattern.fullmatch(path):
            return reason
    if "/" in path and not _is_template(path):
        return _IN_FOLDER
    if main_weights and _is_second_set(path):
        return "a second set of weights"
    return ""


def _is_template(path: str) -> bool:
    """Further chat templates are the one thing that lies in a folder."""
    return fnmatchcase(path, "additional_chat_templates/*.jinja")


def _is_second_set(path: str) -> bool:
    """Weights, or their index, beside `model*.safetensors`: another precision ("model.fp16.safetensors") or an adapter."""
    if _INDEX.fullmatch(path):
        return path != "model.safetensors.index.json"
    return _WEIGHTS.fullmatch(path) is not None and not _MAIN_WEIGHTS.fullmatch(path)


def _check_weights(files: Sequence[RemoteFile], repo: str) -> None:
    if any(_WEIGHTS.fullmatch(file.path) for file in files):
        return
    others = sorted(
        {"." + file.path.rsplit(".", 1)[-1] for file in files if _is_weights_of_other_kind(file.path)}
    )
    if others:
        raise NoSafeWeights(repo, f"weights in {' and '.join(others)}")


def _is_weights_of_other_kind(path: str) -> bool:
    pickled = _PICKLED.fullmatch(path) and not path.endswith(
        ("training_args.bin", "optimizer.pt", "scheduler.pt")
    )
    return bool(pickled) or path.lower().endswith((".gguf", ".onnx", ".h5", ".msgpack", ".tflite"))
