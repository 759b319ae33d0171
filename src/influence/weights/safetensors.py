"""The header of a safetensors file, checked before a byte of its data is believed.

    0        8                        8 + N                          file size
    ┌────────┬────────────────────────┬──────────────────────────────┐
    │ N, u64 │ header: N bytes, JSON  │ data: all tensors, no gaps   │
    └────────┴────────────────────────┴──────────────────────────────┘
     little-   {"__metadata__": {"format": "pt"},
     endian     "model.norm.weight": {"dtype": "BF16", "shape": [64], "data_offsets": [0, 128]},
                ...}                  offsets count from the start of the data

The rules are those of the `safetensors` package, 0.8: it and this reader accept
and refuse the same files (tests/weights/test_safetensors_differential.py).

* N is at most 100 000 000, and the header lies wholly in the file.
* The JSON is one object, in any layout, with space around it. `__metadata__`
  (at most once) is null or maps strings to strings; every other key is a tensor.
* A tensor has dtype, shape and data_offsets, each once; other fields are
  skipped. The array [dtype, shape, data_offsets] is the same, and so is
  {"F32": null} for a dtype.
* Of two tensors of one name the last counts; a shape may be [] (a scalar) or
  hold zeros.
* In the order of their offsets tensors follow each other without gap or overlap
  from 0 to the end of the file, each as long as its dtype and shape say, in
  whole bytes, with no product above 2**64 - 1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from influence.dataclass import dataclass
from influence.errors import InvalidCheckpoint
from influence.weights.files import open_regular
from influence.weights.json_scanner import JsonError, JsonScanner

MAX_HEADER_BYTES = 100_000_000
_DTYPES_BY_BITS = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "I16 U16 F16 BF16",
    32: "I32 U32 F32",
    64: "C64 F64 I64 U64",
}
DTYPE_BITS: Mapping[str, int] = MappingProxyType(
    {dtype: n_bits for n_bits, dtypes in _DTYPES_BY_BITS.items() for dtype in dtypes.split()}
)

_LENGTH_BYTES = 8
_U64_END = 1 << 64
_MAX_NAME_SHOWN = 200  # characters of a tensor's name in a message

# A tensor as every common writer puts it: one match instead of a dozen. Up to
# 19 digits always fit 64 bits; whatever else is legal takes the long way.
_INT = rb"(?:0|[1-9][0-9]{0,18}+)"
_PLAIN_TENSOR = re.compile(
    rb' ?\{"dtype": ?"([A-Z0-9_]++)", ?"shape": ?\[((?:' + _INT + rb"(?:, ?" + _INT + rb")*+)?)\], ?"
    rb'"data_offsets": ?\[(' + _INT + rb"), ?(" + _INT + rb")\]\}"
)


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor; `begin` and `end` count bytes from the start of the data."""

    name: str
    dtype: str  # a key of DTYPE_BITS
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """A checked header: every tensor lies in the file, and no two share a byte."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int  # bytes from the start of the file
    file_size: int  # bytes


def read_header(path: Path) -> Header:
    """The header of the file at `path`; ModelFilesMissing or InvalidCheckpoint."""
    with open_regular(path) as file:
        return read_header_of(file, path)


def read_header_of(file: BinaryIO, path: Path) -> Header:
    """The header of an open file, read from its start; InvalidCheckpoint."""
    file_size = os.fstat(file.fileno()).st_size
    n_bytes = header_length(file.read(_LENGTH_BYTES), file_size, path)
    file.seek(0)
    return parse_header(file.read(_LENGTH_BYTES + n_bytes), file_size, path)


def header_length(prefix: bytes, file_size: int, path: Path) -> int:
    """N, from the first 8 bytes of a file of `file_size` bytes; InvalidCheckpoint if it can't be true."""
    if file_size < _LENGTH_BYTES or len(prefix) < _LENGTH_BYTES:
        raise InvalidCheckpoint(path, f"is {file_size} bytes long, too short for a safetensors file")
    n_bytes = int.from_bytes(prefix[:_LENGTH_BYTES], "little")
    if n_bytes > MAX_HEADER_BYTES:
        raise InvalidCheckpoint(
            path,
            f"claims a header of {n_bytes} bytes, more than the {MAX_HEADER_BYTES} a safetensors file may have",
        )
    if n_bytes > file_size - _LENGTH_BYTES:
        raise InvalidCheckpoint(
            path,
            f"claims a header of {n_bytes} bytes, but the file ends after {file_size - _LENGTH_BYTES} of them",
        )
    return n_bytes


def parse_header(prefix: bytes, file_size: int, path: Path) -> Header:
    """The header in `prefix`, the first 8 + N bytes or more of a file of `file_size` bytes.

    Pure: `path` is only named in the InvalidCheckpoint that any fault raises.
    """
    data_start = _LENGTH_BYTES + header_length(prefix, file_size, path)
    if len(prefix) < data_start:
        raise InvalidCheckpoint(path, f"ended after {len(prefix)} of the header's {data_start} bytes")
    tensors, metadata = _parse_entries(prefix, data_start, path)
    _check_layout(tensors, file_size - data_start, path)
    return Header(MappingProxyType(tensors), MappingProxyType(metadata), data_start, file_size)


def _parse_entries(prefix: bytes, stop: int, path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] | None = None
    name = ""
    try:
        scanner = JsonScanner(prefix, _LENGTH_BYTES, stop)
        for name in scanner.members():
            if name != "__metadata__":
                tensors[name] = _parse_tensor(scanner, name)
            elif metadata is None:
                metadata = _parse_metadata(scanner)
            else:
                scanner.fail("is there twice")
            name = ""
        scanner.end()
    except JsonError as error:
        raise _invalid(path, name, f"the header is malformed: {error}") from error
    return tensors, metadata or {}


def _parse_metadata(scanner: JsonScanner) -> dict[str, str]:
    if scanner.peek() != b"{":
        scanner.null()
        return {}
    return {key: scanner.string() for key in scanner.members()}


def _parse_tensor(scanner: JsonScanner, name: str) -> TensorInfo:
    if plain := scanner.match(_PLAIN_TENSOR):
        dtype = _known_dtype(scanner, plain[1].decode())
        shape = tuple(map(int, plain[2].split(b","))) if plain[2] else ()
        return TensorInfo(name, dtype, shape, int(plain[3]), int(plain[4]))
    values = _parse_array_form(scanner) if scanner.peek() == b"[" else _parse_object_form(scanner)
    missing = [field for field in _FIELDS if field not in values]
    if missing:
        scanner.fail(f"no {missing[0]!r}")
    return TensorInfo(name, values["dtype"], values["shape"], *values["data_offsets"])


def _parse_object_form(scanner: JsonScanner) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in scanner.members():
        if key not in _FIELDS:
            scanner.skip()
        elif key in values:
            scanner.fail(f"{key!r} is there twice")
        else:
            values[key] = _FIELDS[key](scanner)
    return values


def _parse_array_form(scanner: JsonScanner) -> dict[str, Any]:
    values: dict[str, Any] = {}
    fields = iter(_FIELDS.items())
    for _ in scanner.elements():
        field, parse = next(fields, None) or scanner.fail("more than dtype, shape and data_offsets")
        values[field] = parse(scanner)
    return values


def _parse_dtype(scanner: JsonScanner) -> str:
    if scanner.peek() != b"{":
        return _known_dtype(scanner, scanner.string())
    names = []
    for name in scanner.members():
        names.append(name)
        scanner.null()
    if len(names) != 1:
        scanner.fail(f"expected one dtype, found {len(names)}")
    return _known_dtype(scanner, names[0])


def _known_dtype(scanner: JsonScanner, name: str) -> str:
    return name if name in DTYPE_BITS else scanner.fail(f"unknown dtype {name[:_MAX_NAME_SHOWN]!r}")


def _parse_shape(scanner: JsonScanner) -> tuple[int, ...]:
    return tuple(scanner.unsigned() for _ in scanner.elements())


def _parse_offsets(scanner: JsonScanner) -> tuple[int, int]:
    offsets = _parse_shape(scanner)
    if len(offsets) != 2:
        scanner.fail(f"expected two offsets, found {len(offsets)}")
    return offsets[0], offsets[1]


# In the order of the array form.
_FIELDS: Mapping[str, Callable[[JsonScanner], Any]] = {
    "dtype": _parse_dtype,
    "shape": _parse_shape,
    "data_offsets": _parse_offsets,
}


def _check_layout(tensors: Mapping[str, TensorInfo], data_size: int, path: Path) -> None:
    """Raises InvalidCheckpoint unless the tensors tile the data, each as large as its shape says."""
    position = 0
    for info in sorted(tensors.values(), key=lambda info: (info.begin, info.end)):
        problem = _placement_problem(info, position) or _size_problem(info)
        if problem:
            raise _invalid(path, info.name, problem)
        position = info.end
    if position > data_size:
        raise InvalidCheckpoint(
            path, f"is cut short: {position} bytes of tensors, of which {data_size} are there"
        )
    if position < data_size:
        raise InvalidCheckpoint(path, f"has {data_size - position} bytes after its last tensor")


def _placement_problem(info: TensorInfo, position: int) -> str:
    if info.end < info.begin:
        return f"ends at byte {info.end} of the data, before it begins at {info.begin}"
    if info.begin < position:
        return f"overlaps another tensor: begins at byte {info.begin} of the data, where {position} is next"
    if info.begin > position:
        return f"bytes {position} to {info.begin} of the data before it belong to no tensor"
    return ""


def _size_problem(info: TensorInfo) -> str:
    n_bits = _size_bits(info)
    if n_bits is None:
        return f"shape {_shown(info.shape)} of {info.dtype} is larger than 64 bits can count"
    if n_bits % 8:
        return f"shape {_shown(info.shape)} of {info.dtype} does not fill whole bytes"
    if n_bits // 8 != info.size_bytes:
        return f"shape {_shown(info.shape)} of {info.dtype} is {n_bits // 8} bytes, but {info.size_bytes} are set aside"
    return ""


def _size_bits(info: TensorInfo) -> int | None:
    """Bits by dtype and shape; None where a product, taken from the left, leaves 64 bits."""
    n_elements = 1
    for size in info.shape:
        n_elements *= size
        if n_elements >= _U64_END:
            return None
    n_bits = n_elements * DTYPE_BITS[info.dtype]
    return n_bits if n_bits < _U64_END else None


def _shown(shape: tuple[int, ...]) -> str:
    return str(list(shape)) if len(shape) <= 8 else f"of {len(shape)} dimensions"


def _invalid(path: Path, name: str, problem: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(path, problem, tensor=name[:_MAX_NAME_SHOWN])
