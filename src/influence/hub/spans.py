"""What connections bring: files under way, and spans of them.

A file of 1 GB comes in spans of 16 MB, in order, so that its hash can follow
closely; one of 4 GB and more in spans of 64 MB, so that requests stay few. Who
finds none left takes over the second half of the largest under way: the last
bytes come over all connections too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from influence.hub.hashing import RunningHash
from influence.hub.journal import Part
from influence.hub.memory import BlockMemory

_SPANS_PER_FILE = 64
_SMALLEST_SPAN_BYTES = 4 << 20
SMALLEST_SPLIT_BYTES = 4 << 20  # less is brought to its end by whom it was given to


@dataclass(eq=False)
class Job:
    """One file's part, and how it fares."""

    part: Part
    memory: BlockMemory
    n_failed: int = 0  # tries since the last new block
    n_restarts: int = 0
    is_started: bool = False
    is_done: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.hash = RunningHash(self.part, self.memory)

    @property
    def path(self) -> str:
        return self.part.file.path

    def spans(self, most_bytes: int) -> list[Span]:
        """All that is missing."""
        fitting = max(self.part.size_bytes // _SPANS_PER_FILE, _SMALLEST_SPAN_BYTES)
        missing = self.part.missing(min(fitting, most_bytes))
        return [Span(self, begin, end) for begin, end in missing]


class Span:
    """The bytes from `position` to `end` of a file, brought by one connection; both ends move."""

    def __init__(self, job: Job, begin: int, end: int) -> None:
        self.job, self.position, self.end = job, begin, end
        self._lock = threading.Lock()

    @property
    def n_left(self) -> int:
        return self.end - self.position

    def claim(self, n_bytes: int) -> int:
        """How many of the next bytes that came are still this span's; they are taken as brought."""
        with self._lock:
            n_bytes = min(n_bytes, self.n_left)
            self.position += n_bytes
            return n_bytes

    def rest(self) -> Span:
        """What is left, from the beginning of a block that was not finished."""
        block = self.job.part.block_bytes
        return Span(self.job, self.position // block * block, self.end)

    def split(self) -> Span | None:
        """The second half, for another connection; None if that is less than a block."""
        block = self.job.part.block_bytes
        with self._lock:
            middle = -(-(self.position + self.n_left // 2) // block) * block
            if middle >= self.end:
                return None
            rest = Span(self.job, middle, self.end)
            self.end = middle
            return rest


def split_largest(under_way: Iterable[Span], smallest_bytes: int) -> Span | None:
    """Half of the span with most bytes left, if that is worth a connection."""
    largest = max(under_way, key=lambda span: span.n_left, default=None)
    return largest.split() if largest and largest.n_left >= smallest_bytes else None
