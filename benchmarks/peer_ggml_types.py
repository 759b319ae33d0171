"""Weights as llama.cpp's quantised types keep them: run in the peer's Python by bench_quality.py.

    python peer_ggml_types.py IN.npz OUT.npz

Each array of IN is named "TYPE|NAME"; OUT has the same names, and what is left of
the float32 numbers after ggml's own functions rounded them, no importance matrix
given. A block of a type is cut from the array as it lies in memory, so rows need
not be multiples of it; what is missing at the end is zeros.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# ggml.h: the type's number, its numbers in a block, a block's bytes.
TYPES = {"Q4_0": (2, 32, 18), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144), "Q6_K": (14, 256, 210)}

Floats = npt.NDArray[np.float32]


class _TypeTraits(ctypes.Structure):
    """The beginning of ggml_type_traits."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block_size", ctypes.c_int64),
        ("block_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


def main() -> None:
    ggml = _library()
    with np.load(sys.argv[1]) as arrays:
        rounded: dict[str, Any] = {
            name: _rounded(ggml, name.split("|")[0], arrays[name]) for name in arrays.files
        }
    np.savez(sys.argv[2], **rounded)


def _rounded(ggml: ctypes.CDLL, type_name: str, array: Floats) -> Floats:
    number, block, block_bytes = TYPES[type_name]
    n_blocks = -(-array.size // block)
    numbers = np.zeros(n_blocks * block, np.float32)
    numbers[: array.size] = array.ravel()
    packed = np.zeros(n_blocks * block_bytes, np.uint8)
    written = ggml.ggml_quantize_chunk(
        number, numbers.ctypes.data, packed.ctypes.data, 0, n_blocks, block, None
    )
    traits = ggml.ggml_get_type_traits(number).contents
    if written != packed.size or traits.block_size != block:
        raise SystemExit(f"this ggml's {type_name} is not the one of this script")
    traits.to_float(packed.ctypes.data, numbers.ctypes.data, numbers.size)
    return numbers[: array.size].reshape(array.shape)


def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise SystemExit("this Python has no llama-cpp-python")
    ggml = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    ggml.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    ggml.ggml_get_type_traits.argtypes = [ctypes.c_int]
    return ggml


if __name__ == "__main__":
    main()
