"""Weights in fewer bits: packed once, kept beside the model, mapped from then on.

    folder/.influence/weights-q8.packed
        8 bytes    "INFLPACK"
        8 bytes    length of the description, little endian
        ...        the description, JSON: version, the source's fingerprint, every matrix with its place
        ...        from the next multiple of 4096 on the matrices (csrc/packed.h), each at a multiple of 64

There is one file for each format. One whose description is not what these
weights would get today (other weights, another version) is made anew.

packed puts every bfloat16 matrix into 12 bits a weight (bf12), and nothing is
lost. Those of other types stay as they are stored, and so do the rare ones whose
exponents are too many; the description names the latter.

q8 packs every matrix to 8.25 bits a weight. q4 packs the layers to 4.5 bits and a
byte for each row, but as many matrices to q8 as 4.6 bits on average allow (from
800 columns on): values, then keys, of the outermost layers first. A model feels errors of theirs four to six times as much
as of other weights, and where several heads share them they are small.
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
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from influence import _native
from influence.dataclass import dataclass
from influence.engines import machine
from influence.engines.estimate import PackedFormat
from influence.errors import OutOfMemory
from influence.models.binding import Weights
from influence.weights.tensor import Tensor

WeightFormat = Literal["stored", "packed", "q8", "q4"]
MatrixFormat = Literal["bf12", "q8", "q4"]  # of csrc/packed.h
Bytes = npt.NDArray[np.uint8]

FOLDER = ".influence"
_MAGIC = b"INFLPACK"
_VERSION = 3  # of the packing: raised whenever the same weights would give other bytes
_PAGE = 4096
_ALIGNMENT = 64
_UNFINISHED = ".unfinished"
_LARGEST_DESCRIPTION = 1 << 26  # bytes; a hundred for each of half a million matrices

_Q8_BITS, _PLAIN_Q4_BITS = 8.25, 4.5  # a weight, with its share of a group's scale (csrc/packed.h)
_Q4_BITS = 4.59  # of all q4 layers together, at most; rows' bases come on top
_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class _Place:
    """One matrix, and where its packed bytes lie."""

    name: str  # "lm_head", "layers.0.q"
    tensor: Tensor
    format: MatrixFormat
    offset: int  # bytes from the first matrix on
    size_bytes: int

    @property
    def rows(self) -> int:
        return prod(self.tensor.shape[:-1])

    @property
    def cols(self) -> int:
        return self.tensor.shape[-1]


@dataclass(frozen=True)
class PackedWeights:
    """Matrices of a model in fewer bits, by slot as in `Weights`; keeps their memory alive.

    A matrix that is not among them stays as it is stored.
    """

    format: PackedFormat
    outer: Mapping[str, _native.Packed]
    layers: tuple[Mapping[str, _native.Packed], ...]
    size_bytes: int  # of all matrices that a step reads
    mapped_file: tuple[Path, memoryview] | None  # None: in memory of its own
    note: str  # what stays stored, and why the rest was not kept on the disk where it was to be; often empty

    @property
    def exact(self) -> bool:
        """Whether they compute the very logits of the stored weights."""
        return self.format == "packed"


def pack_weights(
    weights: Weights, form: PackedFormat, *, folder: Path | None, fingerprint: str, kernels: str, threads: int
) -> PackedWeights:
    """The weights in few bits: from the folder's file, or packed now on `threads` threads and kept there.

    `fingerprint` tells these weights from others. Without a folder, or where it
    can't be written, they are in memory only, and `note` says why. Raises
    OutOfMemory if they don't fit there.
    """
    if folder is None:
        plan = _Plan.of(weights, form, _misfits(weights, form, threads))
        return _made_in_memory(plan, "", kernels, threads)
    try:
        path = _file(folder, form)
        with _alone(path.parent):
            plan = _Plan.of(weights, form, _misfits_in(path))
            if not _is_current(path, plan, fingerprint):
                plan = _Plan.of(weights, form, _misfits(weights, form, threads))
                _write(path, plan, fingerprint, kernels, threads)
            return _mapped(path, plan, fingerprint)
    except OSError as error:
        note = f"the {form} weights could not be kept in {folder / FOLDER}: {error.strerror or error}"
        plan = _Plan.of(weights, form, _misfits(weights, form, threads))
        return _made_in_memory(plan, note, kernels, threads)


def packed_size(weights: Weights, form: PackedFormat) -> int:
    """Bytes of all matrices that a step reads, if every bfloat16 one can be packed."""
    return _Plan.of(weights, form, frozenset()).step_bytes


@dataclass(frozen=True)
class _Plan:
    """Which matrices are packed, how and where to."""

    form: PackedFormat
    n_layers: int
    places: tuple[_Place, ...]
    stored: tuple[Tensor, ...]  # matrices that stay
    misfits: frozenset[str]  # names of those among them that are bfloat16

    @classmethod
    def of(cls, weights: Weights, form: PackedFormat, misfits: frozenset[str]) -> _Plan:
        places: list[_Place] = []
        stored: list[Tensor] = []
        offset = 0
        for name, tensor, wanted in _matrices(weights, form):
            if wanted == "bf12" and (tensor.dtype != "BF16" or name in misfits):
                stored.append(tensor)
                continue
            size = int(_native.packed_bytes(wanted, prod(tensor.shape[:-1]), tensor.shape[-1]))
            places.append(_Place(name, tensor, wanted, offset, size))
            offset += -(-size // _ALIGNMENT) * _ALIGNMENT
        return cls(form, len(weights.layers), tuple(places), tuple(stored), misfits)

    @property
    def size_bytes(self) -> int:
        """Of the packed matrices, one after the other."""
        return self.places[-1].offset + self.places[-1].size_bytes if self.places else 0

    @property
    def step_bytes(self) -> int:
        return self.size_bytes + sum(tensor.size_bytes for tensor in self.stored)

    @property
    def note(self) -> str:
        if not self.stored:
            return ""
        n, of = len(self.stored), len(self.stored) + len(self.places)
        other = sorted({tensor.dtype for tensor in self.stored} - {"BF16"})
        reasons = [f"only BF16 is packed without loss, not {', '.join(other)}"] if other else []
        reasons += ["too many different exponents"] if self.misfits else []
        return f"{n} of {of} matrices stay as they are stored ({'; '.join(reasons)})"

    def head(self, fingerprint: str) -> bytes:
        """What the file must begin with, up to the first matrix."""
        description: dict[str, Any] = {
            "version": _VERSION,
            "format": self.form,
            "source": fingerprint,
            "misfits": sorted(self.misfits),
            "matrices": [[p.name, p.format, p.rows, p.cols, p.offset, p.size_bytes] for p in self.places],
        }
        text = json.dumps(description, separators=(",", ":")).encode()
        head = _MAGIC + len(text).to_bytes(8, "little") + text
        return head + b"\0" * (-len(head) % _PAGE)


def _matrices(weights: Weights, form: PackedFormat) -> Iterator[tuple[str, Tensor, MatrixFormat]]:
    """Every matrix that a step reads, and the format that it gets if it can."""
    finer = _finer_matrices(weights) if form == "q4" else frozenset()
    for index, layer in enumerate(weights.layers):
        for slot in _MATRICES:
            if slot in layer:
                is_finer = (index, slot) in finer
                wanted: MatrixFormat = "bf12" if form == "packed" else "q8" if is_finer else form
                yield f"layers.{index}.{slot}", layer[slot], wanted
    head = weights.outer.get("lm_head", weights.outer["embed"])
    yield "lm_head", head, "bf12" if form == "packed" else "q8"


def _misfits(weights: Weights, form: PackedFormat, threads: int) -> frozenset[str]:
    """The bfloat16 matrices that can't be packed without loss; reads them all once."""
    return frozenset(
        name
        for name, tensor, wanted in _matrices(weights, form)
        if wanted == "bf12" and tensor.dtype == "BF16" and not _native.fits_bf12(tensor.array, threads)
    )


def _finer_matrices(weights: Weights) -> frozenset[tuple[int, str]]:
    """The (layer, slot) that q4 packs to q8, as far as _Q4_BITS go."""
    n_weights = sum(
        prod(layer[slot].shape) for layer in weights.layers for slot in _MATRICES if slot in layer
    )
    left = n_weights * (_Q4_BITS - _PLAIN_Q4_BITS) / (_Q8_BITS - _PLAIN_Q4_BITS)
    finer: set[tuple[int, str]] = set()
    for slot in ("v", "k"):
        for index in _outermost_first(len(weights.layers)):
            size = prod(weights.layers[index][slot].shape)
            if size <= left:
                finer.add((index, slot))
                left -= size
    return frozenset(finer)


def _outermost_first(n: int) -> list[int]:
    """0, n - 1, 1, n - 2, ..."""
    return sorted(range(n), key=lambda index: min(index, n - 1 - index))


def _fill(plan: _Plan, out: Bytes, kernels: str, threads: int) -> None:
    for place in plan.places:
        target = out[place.offset : place.offset + place.size_bytes]
        _native.pack(place.tensor.array, place.format, target, kernels, threads)


def _packed(plan: _Plan, data: Bytes, mapped: tuple[Path, memoryview] | None, note: str) -> PackedWeights:
    outer: dict[str, _native.Packed] = {}
    layers: tuple[dict[str, _native.Packed], ...] = tuple({} for _ in range(plan.n_layers))
    for place in plan.places:
        part = data[place.offset : place.offset + place.size_bytes]
        matrix = _native.Packed(part, place.format, place.rows, place.cols)
        if place.name == "lm_head":
            outer["lm_head"] = matrix
        else:
            _, index, slot = place.name.split(".")
            layers[int(index)][slot] = matrix
    notes = "; ".join(filter(None, (plan.note, note)))
    return PackedWeights(plan.form, outer, layers, plan.step_bytes, mapped, notes)


def _made_in_memory(plan: _Plan, note: str, kernels: str, threads: int) -> PackedWeights:
    size, available = plan.size_bytes, machine.available_memory()
    if size > available:
        raise OutOfMemory(f"packing the weights to {plan.form} in memory", size, available)
    data = np.frombuffer(mmap.mmap(-1, max(1, size)), dtype=np.uint8)  # begins on a page
    _fill(plan, data, kernels, threads)
    return _packed(plan, data, None, note)


# The file.


def _file(folder: Path, form: PackedFormat) -> Path:
    own = folder / FOLDER
    if own.is_symlink():
        raise OSError("it is a link to elsewhere")
    own.mkdir(exist_ok=True)
    return own / f"weights-{form}.packed"


def _misfits_in(path: Path) -> frozenset[str]:
    """The misfits that a file names; whatever it says, `_is_current` decides whether the file is right."""
    try:
        with _opened(path, os.O_RDONLY) as fd:
            start = os.pread(fd, 16, 0)
            length = min(int.from_bytes(start[8:], "little"), _LARGEST_DESCRIPTION)
            names = json.loads(os.pread(fd, length, 16))["misfits"] if start.startswith(_MAGIC) else []
            return frozenset(str(name) for name in names)
    except (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError):
        return frozenset()


def _is_current(path: Path, plan: _Plan, fingerprint: str) -> bool:
    head = plan.head(fingerprint)
    try:
        with _opened(path, os.O_RDONLY) as fd:
            return os.fstat(fd).st_size == len(head) + plan.size_bytes and os.pread(fd, len(head), 0) == head
    except FileNotFoundError:
        return False


def _write(path: Path, plan: _Plan, fingerprint: str, kernels: str, threads: int) -> None:
    """Under its name only when it is whole; what a killed process left unfinished goes first."""
    for old in path.parent.glob(f"*{_UNFINISHED}"):
        old.unlink()
    head, unfinished = plan.head(fingerprint), path.with_name(path.name + _UNFINISHED)
    try:
        with _opened(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
            size = len(head) + plan.size_bytes
            os.posix_fallocate(fd, 0, size)  # a full disk is told now, not by a signal
            os.pwrite(fd, head, 0)
            mapping = mmap.mmap(fd, size)
            _fill(plan, np.frombuffer(mapping, np.uint8)[len(head) :], kernels, threads)
            mapping.flush()
            os.fsync(fd)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    with _opened(path.parent, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def _mapped(path: Path, plan: _Plan, fingerprint: str) -> PackedWeights:
    head = len(plan.head(fingerprint))
    with _opened(path, os.O_RDONLY) as fd:
        mapping = mmap.mmap(fd, head + plan.size_bytes, access=mmap.ACCESS_READ)
    whole = np.frombuffer(mapping, dtype=np.uint8)
    return _packed(plan, whole[head:], (path, memoryview(mapping)), "")


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
