"""A named array of a checkpoint, as it lies in the mapped file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

DType = Literal["F32", "F16", "BF16"]

# numpy has no bfloat16: its bits travel as uint16, and `dtype` says what they are.
NUMPY_DTYPES: dict[DType, npt.DTypeLike] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A read-only view of weights; making or slicing one copies nothing.

    `array` keeps the mapping of its file alive. A matrix is (rows, columns)
    with contiguous columns; a matrix whose rows lie in equal groups with gaps
    between them (one projection inside a fused one) is
    (groups, rows per group, columns).
    """

    name: str
    dtype: DType
    array: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes that reading all of it moves."""
        return int(self.array.nbytes)

    def to_float32(self) -> npt.NDArray[np.float32]:
        """A float32 copy of the same shape (exact for all three dtypes)."""
        if self.dtype == "BF16":
            return (self.array.astype(np.uint32) << 16).view(np.float32)
        return self.array.astype(np.float32)
