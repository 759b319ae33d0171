"""Random inputs and parametrisations that the tests of the kernel tables share."""

import numpy as np
import numpy.typing as npt
import pytest

from influence._native import kernels
from support.bfloat16 import from_bfloat16, to_bfloat16

Floats = npt.NDArray[np.float32]

SIZES = [1, 2, 3, 5, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257, 1000]
DTYPES = ["f32", "f16", "bf16"]
ROUNDING_TABLES = ("amx", "avx512_bf16")  # whose BF16 weights meet activations rounded to bfloat16
each_table = pytest.mark.parametrize("table", kernels.supported())
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def floats(*shape: int, seed: int = 0, scale: float = 1.0) -> Floats:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def as_weights(w: npt.ArrayLike, dtype: str) -> npt.NDArray[np.generic]:
    if dtype == "bf16":
        return to_bfloat16(w)
    return np.asarray(w, dtype=np.float32 if dtype == "f32" else np.float16)


def widened(w: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    return (from_bfloat16(w) if w.dtype == np.uint16 else w).astype(np.float64)
