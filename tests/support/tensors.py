"""Arrays of numpy as the tensors of a checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from influence.weights.tensor import DType, Tensor


def tensor_of(name: str, dtype: DType, array: npt.NDArray[Any]) -> Tensor:
    """The memory of a contiguous array, not a copy: what is written to one is seen in the other."""
    return Tensor.whole(name, dtype, array.shape, memoryview(array.reshape(-1).view(np.uint8)))
