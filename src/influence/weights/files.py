"""Opens a file that must be an ordinary one, whatever lies under its name."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from influence.dataclass import dataclass
from influence.errors import InvalidCheckpoint, ModelFilesMissing

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


@dataclass(frozen=True)
class FileIdentity:
    """Which file this is, and that nobody wrote to it since."""

    device: int
    inode: int
    size: int  # bytes
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def open_regular(path: Path) -> BinaryIO:
    """The file at `path` for reading, at once.

    Raises ModelFilesMissing where there is none, InvalidCheckpoint for a
    folder, pipe, socket or device (none of which is waited for) and for a file
    that may not be read.
    """
    try:
        _check_kind(path, path.stat().st_mode)
        # Without O_NONBLOCK a pipe put there since the check would wait for a writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    except FileNotFoundError as error:
        raise ModelFilesMissing(path, "is not there", hint="download the model again") from error
    except PermissionError as error:
        raise InvalidCheckpoint(
            path, "may not be read by this user", hint=f"allow it: chmod u+r {path}, or change its owner"
        ) from error
    except OSError as error:
        raise InvalidCheckpoint(path, f"can't be opened: {error.strerror}") from error
    try:
        _check_kind(path, os.fstat(file.fileno()).st_mode)
    except InvalidCheckpoint:
        file.close()
        raise
    return file


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no ordinary file")
        raise InvalidCheckpoint(path, f"is {kind}, not a file", hint="remove it and download the model again")
