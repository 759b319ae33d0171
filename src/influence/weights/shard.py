"""One safetensors file: its header at once, its data as a mapping when first asked for."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from influence.errors import InvalidCheckpoint, UnsupportedModel
from influence.weights.files import FileIdentity, open_regular
from influence.weights.safetensors import Header, TensorInfo, read_header_of
from influence.weights.tensor import ITEM_BYTES, Tensor

# Of an array, as every library that could be asked for one has them.
_MAX_DIMENSIONS = 64
_MAX_SIZE = (1 << 63) - 1


class Shard:
    """A file of tensors. Not thread-safe while it maps, which `tensor` does once.

    Tensors that were handed out keep the mapping, and with it the file's bytes,
    even after the file was deleted or this object is gone.
    """

    def __init__(self, path: Path) -> None:
        """Reads and checks the header; ModelFilesMissing or InvalidCheckpoint."""
        self.path = path
        with open_regular(path) as file:
            self._identity = FileIdentity.of(os.fstat(file.fileno()))
            self.header: Header = read_header_of(file, path)
        self._bytes: memoryview | None = None  # the whole file, set by the first `tensor`

    def tensor(self, info: TensorInfo) -> Tensor:
        """The tensor that this shard's header calls `info`, as a view of the file.

        A file whose header leaves its data on an odd address (no writer of
        today makes one) gives an aligned copy, as kernels need it.
        """
        if info.dtype not in ITEM_BYTES:
            raise UnsupportedModel(
                self.path,
                f"tensor {info.name!r} is {info.dtype}; this engine runs F32, F16 and BF16",
                hint="use the model's original weights, before they were quantised or converted",
            )
        if len(info.shape) > _MAX_DIMENSIONS or max(info.shape, default=0) > _MAX_SIZE:  # beside a zero
            raise InvalidCheckpoint(self.path, "its shape can't be an array", tensor=info.name)
        start, end = self.header.data_start + info.begin, self.header.data_start + info.end
        data = self._map()[start:end]
        is_aligned = start % ITEM_BYTES[info.dtype] == 0
        return Tensor.whole(info.name, info.dtype, info.shape, data if is_aligned else bytes(data))

    def _map(self) -> memoryview:
        if self._bytes is None:
            with open_regular(self.path) as file:
                self._check_identity(os.fstat(file.fileno()))
                mapping = mmap.mmap(file.fileno(), self.header.file_size, access=mmap.ACCESS_READ)
            self._bytes = memoryview(mapping)
        return self._bytes

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self._identity.size

    @property
    def modified_ns(self) -> int:
        return self._identity.modified_ns

    def sample(self, info: TensorInfo, n_bytes: int) -> bytes:
        """Up to `n_bytes` from the middle of a tensor. Raises InvalidCheckpoint as `tensor` does for a file that changed.

        Read, not mapped: one look through the mapping can bring in two megabytes of it.
        """
        middle = self.header.data_start + (info.begin + info.end) // 2
        begin = max(self.header.data_start + info.begin, middle - n_bytes // 2)
        end = min(self.header.data_start + info.end, begin + n_bytes)
        with open_regular(self.path) as file:
            self._check_identity(os.fstat(file.fileno()))
            return os.pread(file.fileno(), end - begin, begin)

    @property
    def mapping(self) -> memoryview | None:
        """The bytes of the mapped file; None before the first `tensor`."""
        return self._bytes

    def unmap(self) -> None:
        """Lets go of the mapping; tensors that were handed out still hold it."""
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
