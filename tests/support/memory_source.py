"""A source of bytes in memory that misbehaves on request, and counts what it served."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from typing import Literal

from influence.errors import LineBroken, LinkExpired, RangeRefused
from influence.hub.records import RemoteFile
from influence.hub.wire import Room

Fault = Callable[["MemoryStream"], Iterator[bytes]]


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def remote(path: str, content: bytes, *, large: bool = True) -> RemoteFile:
    """The file as a listing names it: large ones with sha256, others with git's hash."""
    if large:
        return RemoteFile(path, len(content), hashlib.sha256(content).hexdigest(), None)
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return RemoteFile(path, len(content), None, git)


class FreeClock:
    """A clock whose seconds cost nothing."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        return self.now

    def processor(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1e9 + self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds

    def chance(self) -> float:
        return 0.0


class MemoryStream:
    """An answer with the bytes `begin` to `end` of a file."""

    def __init__(self, source: MemorySource, path: str, begin: int, end: int | None) -> None:
        self.source, self.path, self.begin = source, path, begin
        content = source.contents[path]
        self.kind: Literal["part", "whole", "nothing"] = "part"
        if source.ignores_ranges or (begin == 0 and end is None):
            self.kind, self.begin, end = "whole", 0, None
        self.data = content[self.begin : end]
        self.total_bytes: int | None = len(content) if source.tells_sizes else None

    def chunks(self, room: Room | None = None) -> Iterator[bytes]:
        for chunk in self._faulty():
            with self.source.lock:
                self.source.bytes_served += len(chunk)
            yield chunk

    def pieces(self) -> Iterator[bytes]:
        step = self.source.chunk_bytes
        yield from (self.data[at : at + step] for at in range(0, len(self.data), step))

    def _faulty(self) -> Iterator[bytes]:
        with self.source.lock:
            fault = self.source.faults.pop(0) if self.source.faults else None
        return fault(self) if fault else self.pieces()


class MemorySource:
    """`faults` are used up by the streams in their order; then all goes well."""

    def __init__(self, contents: dict[str, bytes], *faults: Fault) -> None:
        self.contents = contents
        self.faults = list(faults)
        self.ignores_ranges = False
        self.tells_sizes = True
        self.chunk_bytes = 1000
        self.bytes_served = 0
        self.requests: list[tuple[str, int, int | None]] = []
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def open(self, path: str, begin: int, end: int | None) -> Iterator[MemoryStream]:
        with self.lock:
            self.requests.append((path, begin, end))
        yield MemoryStream(self, path, begin, end)


def cut_after(n_bytes: int) -> Fault:
    """The line breaks after so many bytes."""

    def chunks(stream: MemoryStream) -> Iterator[bytes]:
        yield stream.data[:n_bytes]
        raise LineBroken(stream.path, "cut")

    return chunks


def expired(stream: MemoryStream) -> Iterator[bytes]:
    raise LinkExpired(stream.path, "expired")
    yield b""


def other_range(stream: MemoryStream) -> Iterator[bytes]:
    raise RangeRefused(stream.path, "other bytes came")
    yield b""


def too_much(stream: MemoryStream) -> Iterator[bytes]:
    """More than was asked for."""
    yield stream.data + b"x"


def clean_but_short(stream: MemoryStream) -> Iterator[bytes]:
    """Ends early as if that were all."""
    yield stream.data[: len(stream.data) // 2]


def flipped(stream: MemoryStream) -> Iterator[bytes]:
    """One bit of the first byte is wrong."""
    yield bytes([stream.data[0] ^ 1]) + stream.data[1:]
