"""Weights of few bits: packed once, kept beside the model, mapped from then on.

    folder/.influence/weights-q8.packed
        8 bytes    "INFLPACK"
        8 bytes    length of the description, little endian
        ...        the description, JSON: version, the source's fingerprint, every matrix with its place
        ...        from the next multiple of 4096 on the matrices (csrc/packed.h), each at a multiple of 64

There is one file for each format. One whose description is not what these
weights would get today (other weights, another version) is made anew.

q8 packs every matrix to 8.25 bits a weight. q4 packs the layers to 4.5 bits,
but values and keys to q8 where the layer still takes no more than 4.6: where
several heads share them they are small, and the model feels their errors most.
The output head is q8; the embedding stays as it is stored, for a token reads one
row of it.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from influence import _native
from influence.engines import machine
from influence.engines.estimate import PackedFormat
from influence.errors import OutOfMemory
from influence.models.binding import Weights
from influence.weights.tensor import Tensor

WeightFormat = Literal["stored", "q8", "q4"]
Bytes = npt.NDArray[np.uint8]

FOLDER = ".influence"
_MAGIC = b"INFLPACK"
_VERSION = 1  # of the packing: raised whenever the same weights would give other bytes
_PAGE = 4096
_ALIGNMENT = 64
_UNFINISHED = ".unfinished"

_Q8_BITS, _PLAIN_Q4_BITS = 8.25, 4.5  # a weight, with its share of a scale (csrc/packed.h)
_Q4_BITS = 4.6  # of a q4 layer, at most
_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True, slots=True)
class _Place:
    """One matrix, and where its packed bytes lie."""

    name: str  # "lm_head", "layers.0.q"
    tensor: Tensor
    format: PackedFormat
    offset: int  # bytes from the first matrix on
    size_bytes: int

    @property
    def rows(self) -> int:
        return int(np.prod(self.tensor.array.shape[:-1]))

    @property
    def cols(self) -> int:
        return int(self.tensor.array.shape[-1])


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """The matrices of a model in few bits, by slot as in `Weights`; keeps their memory alive."""

    format: PackedFormat
    outer: Mapping[str, _native.Packed]
    layers: tuple[Mapping[str, _native.Packed], ...]
    size_bytes: int
    mapped_file: tuple[Path, int, int] | None  # file, address, length; None: in memory of its own
    note: str  # why they were not kept on the disk; empty if they were, or were not to be


def pack_weights(
    weights: Weights, form: PackedFormat, *, folder: Path | None, fingerprint: str, kernels: str, threads: int
) -> PackedWeights:
    """The weights in few bits: from the folder's file, or packed now on `threads` threads and kept there.

    `fingerprint` tells these weights from others. Without a folder, or where it
    can't be written, they are in memory only, and `note` says why. Raises
    OutOfMemory if they don't fit there.
    """
    places = _places(weights, form)
    size = places[-1].offset + places[-1].size_bytes
    if folder is None:
        return _made_in_memory(places, form, size, "", kernels, threads)
    head = _head(places, form, fingerprint)
    try:
        path = _file(folder, form)
        with _alone(path.parent):
            if not _is_current(path, head, size):
                _write(path, head, size, places, kernels, threads)
            return _mapped(path, places, form, len(head), size)
    except OSError as error:
        note = f"the {form} weights could not be kept in {folder / FOLDER}: {error.strerror or error}"
        return _made_in_memory(places, form, size, note, kernels, threads)


def packed_size(weights: Weights, form: PackedFormat) -> int:
    """Bytes of the packed matrices."""
    last = _places(weights, form)[-1]
    return last.offset + last.size_bytes


def _places(weights: Weights, form: PackedFormat) -> list[_Place]:
    places: list[_Place] = []
    offset = 0

    def add(name: str, tensor: Tensor, packed: PackedFormat) -> None:
        nonlocal offset
        shape = tensor.array.shape
        size = int(_native.packed_bytes(packed, int(np.prod(shape[:-1])), int(shape[-1])))
        places.append(_Place(name, tensor, packed, offset, size))
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT

    for index, layer in enumerate(weights.layers):
        finer = _finer_slots(layer) if form == "q4" else ()
        for slot in _MATRICES:
            if slot in layer:
                add(f"layers.{index}.{slot}", layer[slot], "q8" if slot in finer else form)
    add("lm_head", weights.outer.get("lm_head", weights.outer["embed"]), "q8")
    return places


def _finer_slots(layer: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Which matrices of a q4 layer are q8: values, then keys, as far as _Q4_BITS go."""
    sizes = {slot: layer[slot].array.size for slot in _MATRICES if slot in layer}
    finer: tuple[str, ...] = ()
    for slot in ("v", "k"):
        share = sum(sizes[s] for s in (*finer, slot)) / sum(sizes.values())
        if share * _Q8_BITS + (1 - share) * _PLAIN_Q4_BITS <= _Q4_BITS:
            finer = (*finer, slot)
    return finer


def _fill(places: list[_Place], out: Bytes, kernels: str, threads: int) -> None:
    for place in places:
        target = out[place.offset : place.offset + place.size_bytes]
        _native.pack(place.tensor.array, place.format, target, kernels, threads)


def _packed(
    places: list[_Place], data: Bytes, form: PackedFormat, mapped: tuple[Path, int, int] | None, note: str
) -> PackedWeights:
    n_layers = 1 + max(int(p.name.split(".")[1]) for p in places if p.name.startswith("layers."))
    outer: dict[str, _native.Packed] = {}
    layers: tuple[dict[str, _native.Packed], ...] = tuple({} for _ in range(n_layers))
    for place in places:
        part = data[place.offset : place.offset + place.size_bytes]
        matrix = _native.Packed(part, place.format, place.rows, place.cols)
        if place.name == "lm_head":
            outer["lm_head"] = matrix
        else:
            _, index, slot = place.name.split(".")
            layers[int(index)][slot] = matrix
    return PackedWeights(form, outer, layers, data.nbytes, mapped, note)


def _made_in_memory(
    places: list[_Place], form: PackedFormat, size: int, note: str, kernels: str, threads: int
) -> PackedWeights:
    available = machine.available_memory()
    if size > available:
        raise OutOfMemory(f"packing the weights to {form} in memory", size, available)
    data = np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)  # begins on a page
    _fill(places, data, kernels, threads)
    return _packed(places, data, form, None, note)


# The file.


def _file(folder: Path, form: PackedFormat) -> Path:
    own = folder / FOLDER
    if own.is_symlink():
        raise OSError("it is a link to elsewhere")
    own.mkdir(exist_ok=True)
    return own / f"weights-{form}.packed"


def _head(places: list[_Place], form: PackedFormat, fingerprint: str) -> bytes:
    """What the file must begin with, up to the first matrix."""
    description: dict[str, Any] = {
        "version": _VERSION,
        "format": form,
        "source": fingerprint,
        "matrices": [[p.name, p.format, p.rows, p.cols, p.offset, p.size_bytes] for p in places],
    }
    text = json.dumps(description, separators=(",", ":")).encode()
    head = _MAGIC + len(text).to_bytes(8, "little") + text
    return head + b"\0" * (-len(head) % _PAGE)


def _is_current(path: Path, head: bytes, size: int) -> bool:
    try:
        with _opened(path, os.O_RDONLY) as fd:
            return os.fstat(fd).st_size == len(head) + size and os.pread(fd, len(head), 0) == head
    except FileNotFoundError:
        return False


def _write(path: Path, head: bytes, size: int, places: list[_Place], kernels: str, threads: int) -> None:
    """Under its name only when it is whole; what a killed process left unfinished goes first."""
    for old in path.parent.glob(f"*{_UNFINISHED}"):
        old.unlink()
    unfinished = path.with_name(path.name + _UNFINISHED)
    try:
        with _opened(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
            os.posix_fallocate(fd, 0, len(head) + size)  # a full disk is told now, not by a signal
            os.pwrite(fd, head, 0)
            mapping = mmap.mmap(fd, len(head) + size)
            _fill(places, np.frombuffer(mapping, np.uint8)[len(head) :], kernels, threads)
            mapping.flush()
            os.fsync(fd)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    with _opened(path.parent, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def _mapped(path: Path, places: list[_Place], form: PackedFormat, head: int, size: int) -> PackedWeights:
    with _opened(path, os.O_RDONLY) as fd:
        whole = np.frombuffer(mmap.mmap(fd, head + size, access=mmap.ACCESS_READ), dtype=np.uint8)
    return _packed(places, whole[head:], form, (path, int(whole.ctypes.data), whole.nbytes), "")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process packs; others wait and find its file."""
    with _opened(folder / "packing.lock", os.O_RDWR | os.O_CREAT) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_NOFOLLOW, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)
