"""One safetensors file: its header at once, its data as a mapping when first asked for."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from influence.errors import InvalidCheckpoint, UnsupportedModel
from influence.weights.files import FileIdentity, open_regular
from influence.weights.safetensors import Header, TensorInfo, read_header_of
from influence.weights.tensor import NUMPY_DTYPES, Tensor


class Shard:
    """A file of tensors. Not thread-safe while it maps, which `tensor` does once.

    Arrays that were handed out keep the mapping, and with it the file's bytes,
    even after the file was deleted or this object is gone.
    """

    def __init__(self, path: Path) -> None:
        """Reads and checks the header; ModelFilesMissing or InvalidCheckpoint."""
        self.path = path
        with open_regular(path) as file:
            self._identity = FileIdentity.of(os.fstat(file.fileno()))
            self.header: Header = read_header_of(file, path)
        self._bytes: npt.NDArray[np.uint8] | None = None  # (file size,), set by the first `tensor`

    def tensor(self, info: TensorInfo) -> Tensor:
        """The tensor that this shard's header calls `info`, as a view of the file.

        A file whose header leaves its data on an odd address (no writer of
        today makes one) gives an aligned copy, as kernels need it.
        """
        if info.dtype not in NUMPY_DTYPES:
            raise UnsupportedModel(
                self.path,
                f"tensor {info.name!r} is {info.dtype}; this engine runs F32, F16 and BF16",
                hint="use the model's original weights, before they were quantised or converted",
            )
        start = self.header.data_start
        array = self._map()[start + info.begin : start + info.end].view(NUMPY_DTYPES[info.dtype])
        return Tensor(info.name, info.dtype, self._shaped(_aligned(array), info))

    def _shaped(self, array: npt.NDArray[Any], info: TensorInfo) -> npt.NDArray[Any]:
        try:
            return array.reshape(info.shape)
        except (ValueError, OverflowError) as error:  # too many dimensions, or one beyond 2**63 beside a zero
            raise InvalidCheckpoint(self.path, "its shape can't be an array", tensor=info.name) from error

    def _map(self) -> npt.NDArray[np.uint8]:
        if self._bytes is None:
            with open_regular(self.path) as file:
                self._check_identity(os.fstat(file.fileno()))
                mapping = mmap.mmap(file.fileno(), self.header.file_size, access=mmap.ACCESS_READ)
            self._bytes = np.frombuffer(mapping, dtype=np.uint8)
        return self._bytes

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self._identity.size

    @property
    def modified_ns(self) -> int:
        return self._identity.modified_ns

    def sample(self, info: TensorInfo, n_bytes: int) -> bytes:
        """Up to `n_bytes` from the middle of a tensor."""
        middle = self.header.data_start + (info.begin + info.end) // 2
        begin = max(self.header.data_start + info.begin, middle - n_bytes // 2)
        end = min(self.header.data_start + info.end, begin + n_bytes)
        return self._map()[begin:end].tobytes()

    def mapped_range(self) -> tuple[int, int] | None:
        """Address and length in bytes of the mapping; None before the first `tensor`."""
        if self._bytes is None:
            return None
        return int(self._bytes.ctypes.data), int(self._bytes.nbytes)

    def unmap(self) -> None:
        """Lets go of the mapping; arrays that were handed out still hold it."""
        self._bytes = None

    def check_unchanged(self) -> None:
        """InvalidCheckpoint if the file is not as it was when its header was read."""
        try:
            self._check_identity(self.path.stat())
        except OSError as error:
            raise InvalidCheckpoint(
                self.path, f"was there when the model was opened and now is not: {error.strerror}"
            ) from error

    def _check_identity(self, status: os.stat_result) -> None:
        if FileIdentity.of(status) != self._identity:
            raise InvalidCheckpoint(
                self.path,
                "was replaced, cut or written to while the model was open",
                hint="wait until nothing writes to the model's folder, then start again",
            )


def _aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.flags.aligned:
        return array
    copy = array.copy()
    copy.flags.writeable = False
    return copy
