"""A named array of a checkpoint, as it lies in the mapped file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from operator import mul
from typing import TYPE_CHECKING, Any, Literal

from influence.dataclass import dataclass

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DType = Literal["F32", "F16", "BF16"]

ITEM_BYTES: dict[DType, int] = {"F32": 4, "F16": 2, "BF16": 2}
# numpy has no bfloat16: its bits travel as uint16, and `dtype` says what they are.
NUMPY_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Tensor:
    """A read-only view of weights; making or cutting one copies nothing.

    A matrix is (rows, columns) with contiguous columns; a matrix whose rows lie
    in equal groups with gaps between them (one projection inside a fused one)
    is (groups, rows per group, columns).
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # numbers from one index of a dimension to the next
    data: memoryview  # bytes, from the first number on; keeps the mapping of its file alive

    @classmethod
    def whole(cls, name: str, dtype: DType, shape: Sequence[int], data: memoryview | bytes) -> Tensor:
        """A tensor without gaps, whose numbers are all that `data` holds."""
        strides = tuple(accumulate(reversed(shape[1:]), mul, initial=1))[::-1] if shape else ()
        return cls(name, dtype, tuple(shape), strides, memoryview(data))

    @property
    def size_bytes(self) -> int:
        """Bytes that reading all of it moves."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def array(self) -> npt.NDArray[Any]:
        """The same memory as numpy sees it; bfloat16 as uint16."""
        import numpy as np  # takes longer to import than a small model takes to answer

        strides = [stride * ITEM_BYTES[self.dtype] for stride in self.strides]
        return np.ndarray(self.shape, NUMPY_DTYPES[self.dtype], self.data, strides=strides)

    def to_float32(self) -> npt.NDArray[np.float32]:
        """A float32 copy of the same shape (exact for all three dtypes)."""
        import numpy as np

        if self.dtype == "BF16":
            return (self.array.astype(np.uint32) << 16).view(np.float32)
        return self.array.astype(np.float32)

    def rows(self, first: int, n: int) -> Tensor:
        """`n` of its rows, or of its groups of rows (indices of the first dimension)."""
        return self._view(first * self.strides[0], (n, *self.shape[1:]), self.strides)

    def columns(self, first: int, n: int) -> Tensor:
        """`n` of its columns (indices of the last dimension)."""
        return self._view(first * self.strides[-1], (*self.shape[:-1], n), self.strides)

    def part(self, index: int, n_parts: int, n_rows: int) -> Tensor:
        """One of the parts that a tensor's rows belong to in turns, `n_rows` each: (groups, n_rows, ...)."""
        shape = (self.shape[0] // (n_parts * n_rows), n_rows, *self.shape[1:])
        strides = (n_parts * n_rows * self.strides[0], *self.strides)
        return self._view(index * n_rows * self.strides[0], shape, strides)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its numbers: another process gets a copy of them."""
        return _of_bytes, (self.name, self.dtype, self.shape, self.strides, bytes(self.data))

    def _view(self, first: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
        """The same memory from its number `first` on."""
        n_spanned = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        item = ITEM_BYTES[self.dtype]
        return Tensor(self.name, self.dtype, shape, strides, self.data[first * item :][: n_spanned * item])

    def flat(self) -> Tensor:
        """Its numbers in one dimension; a copy where there are gaps between groups of them."""
        group_bytes = prod(self.shape[1:]) * ITEM_BYTES[self.dtype]
        step = self.strides[0] * ITEM_BYTES[self.dtype]
        groups = [self.data[i * step : i * step + group_bytes] for i in range(self.shape[0])]
        data = self.data if step == group_bytes else b"".join(groups)
        return Tensor.whole(self.name, self.dtype, (prod(self.shape),), data)


def _of_bytes(
    name: str, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...], data: bytes
) -> Tensor:
    return Tensor(name, dtype, shape, strides, memoryview(data))
