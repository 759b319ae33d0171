"""What a download tells while it runs, in the order in which it happens, in the caller's thread."""

from __future__ import annotations

from collections.abc import Callable

from influence.dataclass import dataclass


@dataclass(frozen=True)
class Planned:
    """Everything is known: what will come, and what is here already."""

    n_files: int
    total_bytes: int
    kept_bytes: int  # of total_bytes, from this folder and earlier runs
    sha: str


@dataclass(frozen=True)
class Unverified:
    """Nobody tells a hash of this file: that its bytes are right rests on the connection and the size alone."""

    path: str


@dataclass(frozen=True)
class FileStarted:
    """The first bytes of a file are asked for."""

    path: str
    size_bytes: int
    kept_bytes: int


@dataclass(frozen=True)
class Progress:
    """Whole blocks on the disk, never fewer than the last time, never one that was thrown away twice counted."""

    done_bytes: int
    total_bytes: int
    n_connections: int
    files: tuple[tuple[str, int, int], ...]  # (path, done_bytes, size_bytes) of those under way


@dataclass(frozen=True)
class FileDone:
    """A file is whole, and verified unless it was said to be Unverified; it gets its name when all are."""

    path: str
    size_bytes: int


@dataclass(frozen=True)
class Waiting:
    """Nothing moves on purpose, for so many more seconds (None: until another process is done)."""

    seconds: float | None
    reason: str


@dataclass(frozen=True)
class Retrying:
    """A try for a file failed; the next one begins."""

    path: str
    n_failed: int
    reason: str


@dataclass(frozen=True)
class Restarted:
    """All bytes of a file were there but not as published: it comes anew."""

    path: str


@dataclass(frozen=True)
class Reading:
    """Files that are here are read, to be compared with what was published."""

    path: str
    done_bytes: int  # of all files that are to be read
    total_bytes: int


@dataclass(frozen=True)
class Installed:
    """All files have their names, and the manifest is written."""

    n_files: int
    total_bytes: int


Event = (
    Planned
    | Unverified
    | FileStarted
    | Progress
    | FileDone
    | Waiting
    | Retrying
    | Restarted
    | Reading
    | Installed
)
OnEvent = Callable[[Event], None]


def ignore(_: Event) -> None:
    """For callers who do not look on."""
