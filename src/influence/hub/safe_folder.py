"""One folder that is written to, and nothing outside of it, whatever lies or appears inside.

Every name is walked from the folder's descriptor, part by part, without
following a link (openat(2) with O_NOFOLLOW): a link that is planted or swapped
in while we work leads nowhere. The folder itself is the user's choice and may be
a link.

What must survive a loss of power is written in one order: the file's bytes are
flushed, then it gets its name, then the folder that holds the name is flushed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from influence.errors import WriteFailed

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
UNFINISHED = ".new"  # ends the name of a file that is being written whole
_LINK_ERRORS = (errno.ELOOP, errno.ENOTDIR)


class FileSystem:
    """The calls that change a disk, in one place, so that a test can let any of them fail."""

    def open(self, name: str, flags: int, folder: int) -> int:
        return os.open(name, flags, 0o644, dir_fd=folder)

    def mkdir(self, name: str, folder: int) -> None:
        os.mkdir(name, 0o755, dir_fd=folder)

    def write(self, file: int, data: bytes) -> int:
        return os.write(file, data)

    def write_at(self, file: int, data: bytes | memoryview, position: int) -> int:
        return os.pwrite(file, data, position)

    def truncate(self, file: int, size_bytes: int) -> None:
        os.ftruncate(file, size_bytes)

    def flush(self, file: int) -> None:
        os.fsync(file)

    def rename(self, old: str, old_folder: int, new: str, new_folder: int) -> None:
        os.rename(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)

    def unlink(self, name: str, folder: int) -> None:
        os.unlink(name, dir_fd=folder)


SYSTEM = FileSystem()


class SafeFolder:
    """A folder by its descriptor; names in it are relative, with "/", and were checked by names.py.

    All methods raise WriteFailed, naming the file and what to do. Usable from
    several threads.
    """

    def __init__(self, path: Path, *, create: bool = False, system: FileSystem = SYSTEM) -> None:
        self.path = path
        self.system = system
        try:
            if create:
                path.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, _FOLDER & ~os.O_NOFOLLOW)
        except OSError as error:
            raise write_failed(path, error) from error

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> SafeFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _parent(self, name: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """The descriptor of the folder that holds `name`, and the last part of the name."""
        *folders, last = name.split("/")
        folder = os.dup(self._fd)
        try:
            for part in folders:
                below = self._subfolder(part, folder, create)
                os.close(folder)
                folder = below
            yield folder, last
        except OSError as error:
            raise write_failed(self.path / name, error) from error
        finally:
            os.close(folder)

    def _subfolder(self, part: str, folder: int, create: bool) -> int:
        try:
            return self.system.open(part, _FOLDER, folder)
        except FileNotFoundError:
            if not create:
                raise
        try:
            self.system.mkdir(part, folder)
            self.system.flush(folder)
        except FileExistsError:  # another process was quicker
            pass
        return self.system.open(part, _FOLDER, folder)

    def open(self, name: str, *, write: bool = False, append: bool = False, new: bool = False) -> int:
        """A descriptor of the ordinary file `name`; `write` makes it if need be, `new` insists on making it."""
        flags = _FILE | (os.O_RDWR | os.O_CREAT if write else os.O_RDONLY)
        flags |= (os.O_EXCL if new else 0) | (os.O_APPEND if append else 0)
        with self._parent(name, create=write) as (folder, last):
            file = self.system.open(last, flags, folder)
            if not stat.S_ISREG(os.fstat(file).st_mode):
                os.close(file)
                raise OSError(errno.EINVAL, "is no ordinary file")
            return file

    def status(self, name: str) -> os.stat_result | None:
        """What lies under `name`, itself a link or not; None for nothing, or no way to it."""
        try:
            with self._parent(name) as (folder, last):
                return os.stat(last, dir_fd=folder, follow_symlinks=False)
        except WriteFailed:
            return None

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """The content of a small file; None where there is none, or it is larger."""
        status = self.status(name)
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            return None
        with (
            self._parent(name) as (folder, last),
            os.fdopen(os.open(last, _FILE, dir_fd=folder), "rb") as file,
        ):
            return file.read(max_bytes)

    def names(self, folder_name: str) -> list[str]:
        """The names in a folder of ours; empty if it is not there."""
        try:
            with self._parent(f"{folder_name}/.") as (folder, _):
                return sorted(os.listdir(folder))  # noqa: PTH208  (a descriptor, not a path)
        except WriteFailed:
            return []

    def write_whole(self, name: str, content: bytes) -> None:
        """A file with this content, or no change at all, even if the power fails."""
        temporary = f"{name}.{secrets.token_hex(4)}{UNFINISHED}"
        file = self.open(temporary, write=True, new=True)
        try:
            try:
                write_all(self.system, file, content)
                self.system.flush(file)
            finally:
                os.close(file)
            self.rename(temporary, name)
        except (OSError, WriteFailed) as error:
            self.remove(temporary)
            if isinstance(error, WriteFailed):
                raise
            raise write_failed(self.path / name, error) from error

    def rename(self, old: str, new: str) -> None:
        """Give a flushed file its final name, replacing a file or a link of that name, and flush the folder."""
        with self._parent(old) as (old_folder, old_last), self._parent(new, create=True) as (folder, last):
            self.system.rename(old_last, old_folder, last, folder)
            self.system.flush(folder)

    def remove(self, name: str) -> bool:
        """Remove a file, or a link without what it leads to; False where there was none."""
        if self.status(name) is None:
            return False
        with self._parent(name) as (folder, last), contextlib.suppress(FileNotFoundError):
            self.system.unlink(last, folder)
        return True

    def free_bytes(self) -> int:
        """What this user may still write on the disk."""
        disk = os.fstatvfs(self._fd)
        return disk.f_bavail * disk.f_frsize


def write_all(system: FileSystem, file: int, content: bytes) -> None:
    """All of it: write(2) may take less."""
    view = memoryview(content)
    while view:
        view = view[system.write(file, bytes(view)) :]


def write_all_at(system: FileSystem, file: int, content: bytes | memoryview, position: int) -> None:
    """All of it, at a place of the file."""
    view = memoryview(content)
    while view:
        n_written = system.write_at(file, view, position)
        view, position = view[n_written:], position + n_written


def write_failed(path: Path, error: OSError) -> WriteFailed:
    """The error of the system as one that says what to do; all that was flushed is kept."""
    again = "then run the same command again: what was downloaded is kept"
    if error.errno in _LINK_ERRORS:
        return WriteFailed(path, "a link or a file is where a folder or file must be", hint="remove it")
    if error.errno == errno.ENOSPC:
        return WriteFailed(path, "the disk is full", hint=f"free some space, {again}")
    if error.errno == errno.EDQUOT:
        return WriteFailed(path, "the user's disk quota is used up", hint=f"free some space, {again}")
    if error.errno == errno.EROFS:
        return WriteFailed(path, "the disk is read-only", hint="choose another folder with --output")
    if error.errno in (errno.EACCES, errno.EPERM):
        return WriteFailed(path, "this user may not write there", hint="choose another folder with --output")
    if error.errno == errno.EIO:
        return WriteFailed(path, "the disk reports an error", hint=f"check the disk, {again}")
    return WriteFailed(path, error.strerror or str(error), hint="")
