"""bfloat16 for numpy, which has no such type: the uint16 of its bits."""

import numpy as np
import numpy.typing as npt


def to_bfloat16(x: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """The nearest bfloat16 of finite float32 numbers, ties to even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)
