"""What a file of the fake hub holds: bytes, a file on disk, or as many made-up bytes as one likes."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

_BLOCK_BYTES = 1 << 20


class Content(Protocol):
    @property
    def size_bytes(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    @property
    def git_sha1(self) -> str: ...

    def read(self, begin: int, end: int) -> bytes: ...


class _Hashed:
    """The two hashes that the Hub lists, computed when first asked for."""

    size_bytes: int

    def read(self, begin: int, end: int) -> bytes:
        raise NotImplementedError

    @cached_property
    def sha256(self) -> str:
        return self._digest(hashlib.sha256())

    @cached_property
    def git_sha1(self) -> str:
        return self._digest(hashlib.sha1(b"blob %d\0" % self.size_bytes))

    def _digest(self, digest: hashlib._Hash) -> str:
        for begin in range(0, self.size_bytes, _BLOCK_BYTES):
            digest.update(self.read(begin, min(begin + _BLOCK_BYTES, self.size_bytes)))
        return digest.hexdigest()


class Plain(_Hashed):
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)

    def read(self, begin: int, end: int) -> bytes:
        return self.data[begin:end]


class OnDisk(_Hashed):
    """A file that is read as it is served."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = path.stat().st_size

    def read(self, begin: int, end: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)


@dataclass(frozen=True)
class Virtual:
    """`size_bytes` bytes that follow from `seed`; no two blocks of 1 MiB are alike, so that a misplaced one shows.

    Hashing many gigabytes takes long: `known_sha256` is listed unread.
    """

    size_bytes: int
    seed: int = 0
    known_sha256: str = ""

    @cached_property
    def _base(self) -> bytes:
        return random.Random(self.seed).randbytes(_BLOCK_BYTES)

    def read(self, begin: int, end: int) -> bytes:
        pieces = []
        while begin < (end := min(end, self.size_bytes)):
            index, offset = divmod(begin, _BLOCK_BYTES)
            pieces.append(self._slice(index, offset, min(offset + end - begin, _BLOCK_BYTES)))
            begin += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _slice(self, index: int, begin: int, end: int) -> bytes:
        """Bytes of one block, which begins with its own number."""
        number = index.to_bytes(8, "little")[begin:end]
        return number + self._base[begin + len(number) : end]

    @cached_property
    def sha256(self) -> str:
        return self.known_sha256 or _Reader(self).sha256

    @cached_property
    def git_sha1(self) -> str:
        return _Reader(self).git_sha1


class _Reader(_Hashed):
    def __init__(self, content: Virtual) -> None:
        self.size_bytes = content.size_bytes
        self.read = content.read  # type: ignore[method-assign]


def content_of(value: bytes | str | Path | Content) -> Content:
    match value:
        case bytes():
            return Plain(value)
        case str():
            return Plain(value.encode())
        case Path():
            return OnDisk(value)
    return value
