"""Downloads a model so that it is surely right: all files of one commit, whole, verified, or no change at all.

    1. one process per folder: others wait for its lock
    2. what an earlier run verified but could not name any more is named (`finish_pending`)
    3. files that are here and right are kept; the others come into .influence/parts (fetch.py)
    4. when all are verified: pending.json, the renames, manifest.json

Until step 4 an older version of the model stays as it is. A kill in step 4 is
made good by step 2 of any later run, without the network.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from influence.dataclass import dataclass
from influence.errors import DownloadFailed, WriteFailed
from influence.hub import OWN_FOLDER
from influence.hub.clock import Clock, SystemClock
from influence.hub.events import Installed, OnEvent, Planned, Unverified, Waiting, ignore
from influence.hub.fetch import Fetcher
from influence.hub.journal import Part, block_bytes_of, done_name, measure, part_key, path_key
from influence.hub.manifest import (
    LOCK,
    MANIFEST,
    PARTS,
    PENDING,
    FileRecord,
    Manifest,
    read_manifest,
    write_manifest,
)
from influence.hub.names import check_file_names
from influence.hub.records import RemoteFile
from influence.hub.safe_folder import SYSTEM, UNFINISHED, FileSystem, SafeFolder, write_failed
from influence.hub.source import Source

_MARGIN_BYTES = 64 << 20  # that stay free on the disk
_MAX_UNSIZED_BYTES = 1 << 30  # of a file whose size nobody tells
_LOCK_POLL_S = 0.5
# On a disk whose locks do nothing (some of the network) another process may name a
# file of ours first; the next run then finds it there.
_MOST_OVERTAKEN = 16


@dataclass(frozen=True)
class Origin:
    """From where a download comes: one commit."""

    repo: str
    revision: str
    sha: str
    endpoint: str


@dataclass(frozen=True)
class Options:
    """How to download; the defaults are the users'."""

    connections: int = 16
    tries: int = 5
    smallest_block_bytes: int = 1 << 20
    span_bytes: int = 64 << 20
    clock: Clock = SystemClock()
    system: FileSystem = SYSTEM


def download(
    source: Source,
    origin: Origin,
    files: Sequence[RemoteFile],
    path: Path,
    *,
    on_event: OnEvent = ignore,
    options: Options | None = None,
) -> Manifest:
    """Make the folder at `path` hold `files`, all of the commit that `source` gives.

    Raises UnsafeName before anything is written, WriteFailed, DownloadFailed,
    IntegrityError, and what the source raises. Whatever happens, whole blocks
    are kept for the next run and the old files stay until all new are verified.
    """
    check_file_names(file.path for file in files)
    options = options or Options()
    with (
        SafeFolder(path, create=True, system=options.system) as folder,
        locked(folder, options.clock, on_event),
    ):
        for _ in range(_MOST_OVERTAKEN):
            try:
                finish_pending(folder)
                manifest = _Download(source, origin, folder, on_event, options).run(files)
                if all(unchanged(folder, record) for record in manifest.files):
                    return manifest
                overtaken = WriteFailed(path, "another process changes its files", hint="let it end first")
            except WriteFailed as failure:
                if not isinstance(failure.__cause__, FileNotFoundError):
                    raise
                overtaken = failure
            except OSError as error:  # of a read: all writes have named their file already
                raise write_failed(path, error) from error
        raise overtaken


@contextmanager
def locked(folder: SafeFolder, clock: Clock, on_event: OnEvent = ignore) -> Iterator[None]:
    """Held by one process at a time; the system frees it if that dies."""
    file = folder.open(LOCK, write=True)
    try:
        while not _try_lock(file):
            on_event(Waiting(None, "another process is downloading into this folder"))
            clock.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def finish_if_idle(folder: SafeFolder) -> None:
    """`finish_pending`, unless there is nothing to finish or another process is at it."""
    if folder.status(PENDING) is None:
        return
    file = folder.open(LOCK, write=True)
    try:
        if _try_lock(file):
            finish_pending(folder)
    finally:
        os.close(file)


def finish_pending(folder: SafeFolder) -> None:
    """Name the files of a manifest that was complete when its process died; needs no network."""
    pending = read_manifest(folder, PENDING)
    if pending is None:
        folder.remove(PENDING)
        return
    for record in pending.files:
        waiting = done_name(record.path, record.sha256)
        if folder.status(waiting) is not None:
            folder.rename(waiting, record.path)
    old = read_manifest(folder)
    kept = {record.path for record in pending.files}
    for record in old.files if old else ():
        if record.path not in kept and unchanged(folder, record):
            folder.remove(record.path)
    folder.rename(PENDING, MANIFEST)


def unchanged(folder: SafeFolder, record: FileRecord) -> bool:
    """Whether the file looks as when it was verified: its size and time, without reading it."""
    status = folder.status(record.path)
    return (
        status is not None
        and stat.S_ISREG(status.st_mode)
        and (status.st_size, status.st_mtime_ns) == (record.size_bytes, record.modified_ns)
    )


def measured_record(folder: SafeFolder, name: str, file: RemoteFile, block_bytes: int) -> FileRecord | None:
    """The record of a file that lies under `name`, read whole; None if it is not the published one."""
    status = folder.status(name)
    if status is None or not stat.S_ISREG(status.st_mode) or file.size_bytes not in (None, status.st_size):
        return None
    fd = folder.open(name)
    try:
        modified_ns = os.fstat(fd).st_mtime_ns
        measured = measure(fd, block_bytes, git=file.git_sha1 is not None)
    finally:
        os.close(fd)
    if not file.published_hash or measured.problem(file):
        return None
    return measured.record(file, modified_ns, block_bytes)


class _Download:
    """One run, under the lock."""

    def __init__(
        self, source: Source, origin: Origin, folder: SafeFolder, on_event: OnEvent, options: Options
    ) -> None:
        self._source, self._origin, self._folder = source, origin, folder
        self._on_event, self._options = on_event, options
        self._old = read_manifest(folder)

    def run(self, files: Sequence[RemoteFile]) -> Manifest:
        kept = {file.path: record for file in files if (record := self._present(file))}
        wanted = [self._sized(file) for file in files if file.path not in kept]
        self._remove_unwanted(wanted, waiting=False)
        with ExitStack() as stack:
            parts = [self._part(file, stack) for file in wanted]
            self._plan(files, parts, kept)
            fetched = self._fetch(parts, kept)
        records = tuple((kept | fetched)[file.path] for file in files)
        return self._install(records)

    def _present(self, file: RemoteFile) -> FileRecord | None:
        """The record of a file that is here already and right, under its name or waiting for it."""
        record = self._old.file(file.path) if self._old else None
        if record and unchanged(self._folder, record):
            same_commit = self._old is not None and self._old.sha == self._origin.sha
            if record.is_of(file) or (same_commit and not file.published_hash):
                return record
        for name in (file.path, *self._waiting(file.path)):
            block_bytes = block_bytes_of(file.size_bytes or 0, self._options.smallest_block_bytes)
            found = measured_record(self._folder, name, file, block_bytes)
            if found:
                return found
        return None

    def _waiting(self, path: str) -> list[str]:
        start = f"{path_key(path)}-"
        return [f"{PARTS}/{name}" for name in self._folder.names(PARTS) if name.startswith(start)]

    def _sized(self, file: RemoteFile) -> RemoteFile:
        if file.size_bytes is not None:
            return file
        with self._source.open(file.path, 0, None) as stream:
            size = stream.total_bytes
            if size is None:
                size = _counted(file.path, stream.chunks())
        return RemoteFile(file.path, size, file.sha256, file.git_sha1)

    def _part(self, file: RemoteFile, stack: ExitStack) -> Part:
        size = file.size_bytes or 0
        block_bytes = block_bytes_of(size, self._options.smallest_block_bytes)
        part = Part(self._folder, file, size, self._origin.sha, block_bytes)
        stack.callback(part.close)
        return part

    def _plan(self, files: Sequence[RemoteFile], parts: list[Part], kept: dict[str, FileRecord]) -> None:
        """Say what will come, and that there is room for it."""
        base = sum(record.size_bytes for record in kept.values())
        total = base + sum(part.size_bytes for part in parts)
        here = base + sum(part.done_bytes for part in parts)
        self._on_event(Planned(len(files), total, here, self._origin.sha))
        for file in files:
            if not file.published_hash:
                self._on_event(Unverified(file.path))
        self._check_space(total - here)

    def _fetch(self, parts: list[Part], kept: dict[str, FileRecord]) -> dict[str, FileRecord]:
        if not parts:
            return {}
        base = sum(record.size_bytes for record in kept.values())
        total = base + sum(part.size_bytes for part in parts)
        options = self._options
        fetcher = Fetcher(
            self._source,
            parts,
            clock=options.clock,
            on_event=self._on_event,
            connections=options.connections,
            tries=options.tries,
            span_bytes=options.span_bytes,
        )
        return fetcher.run(base, total)

    def _check_space(self, needed_bytes: int) -> None:
        free = self._folder.free_bytes()
        if needed_bytes and needed_bytes + _MARGIN_BYTES > free:
            raise WriteFailed(
                self._folder.path,
                f"{needed_bytes} bytes are to come, but the disk has only {free} free",
                hint="free some space, or choose another folder with --output; what is here is kept",
            )

    def _install(self, records: tuple[FileRecord, ...]) -> Manifest:
        origin = self._origin
        manifest = Manifest(
            origin.repo,
            origin.revision,
            origin.sha,
            origin.endpoint,
            self._options.clock.wall(),
            self._merged(records),
        )
        write_manifest(self._folder, manifest, PENDING)
        finish_pending(self._folder)
        self._remove_unwanted((), waiting=True)
        self._remove_unfinished_writes()
        self._on_event(Installed(len(records), sum(record.size_bytes for record in records)))
        return manifest

    def _merged(self, records: tuple[FileRecord, ...]) -> tuple[FileRecord, ...]:
        """With the files of the same commit that earlier downloads chose."""
        old = self._old
        if old is None or (old.repo, old.sha) != (self._origin.repo, self._origin.sha):
            return records
        new = {record.path for record in records}
        others = (record for record in old.files if record.path not in new)
        return records + tuple(record for record in others if unchanged(self._folder, record))

    def _remove_unwanted(self, wanted: Sequence[RemoteFile], *, waiting: bool) -> None:
        """Remove parts of contents that nobody wants any more; with `waiting`, verified files without a name too."""
        keys = {part_key(file, file.size_bytes or 0, self._origin.sha) for file in wanted}
        for name in self._folder.names(PARTS):
            if name.split(".")[0] not in keys and (waiting or not name.endswith(".done")):
                self._folder.remove(f"{PARTS}/{name}")

    def _remove_unfinished_writes(self) -> None:
        """What `write_whole` had not named when its process was killed."""
        for name in self._folder.names(OWN_FOLDER):
            if name.endswith(UNFINISHED):
                self._folder.remove(f"{OWN_FOLDER}/{name}")


def _counted(path: str, chunks: Iterator[bytes | memoryview]) -> int:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > _MAX_UNSIZED_BYTES:
            raise DownloadFailed(
                path, "nobody says how large it is, and it does not end", hint="leave it out"
            )
    return size
