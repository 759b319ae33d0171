"""Whether a downloaded model still is what was published, and how its damaged bytes alone come anew."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from influence.dataclass import dataclass
from influence.errors import ModelFilesMissing, WriteFailed
from influence.hub.clock import Clock, SystemClock
from influence.hub.events import OnEvent, Reading, ignore
from influence.hub.journal import Measured, Part, measure
from influence.hub.manifest import MANIFEST, FileRecord, Manifest, read_manifest, write_manifest
from influence.hub.safe_folder import SafeFolder, write_failed
from influence.hub.source import Source
from influence.hub.transfer import Options, Origin, download, finish_if_idle, finish_pending, locked


@dataclass(frozen=True)
class Damage:
    """One file that is not as it was when it was downloaded."""

    path: str
    problem: str  # "is missing", or what it is instead
    ranges: tuple[tuple[int, int], ...]  # the bytes of the blocks that differ, as (begin, end)

    @property
    def bad_bytes(self) -> int:
        return sum(end - begin for begin, end in self.ranges)


def manifest_of(path: Path) -> Manifest:
    """What a folder was downloaded as; ModelFilesMissing if nobody wrote that down."""
    with SafeFolder(path) as folder:
        finish_if_idle(folder)
        return _manifest(folder)


def verify(path: Path, *, clock: Clock | None = None, on_event: OnEvent = ignore) -> list[Damage]:
    """Read a downloaded model whole, and list what is not as published; empty if all is well.

    A manifest of sound files is written anew with the time of this check; a
    folder that this user may only read is checked, and left as it is. Raises
    ModelFilesMissing where there is no manifest to compare with.
    """
    clock = clock or SystemClock()
    with SafeFolder(path) as folder:
        _manifest(folder)  # before the lock makes a file in a folder that is not ours
        try:
            with locked(folder, clock, on_event):
                return _verified(folder, clock, on_event)
        except WriteFailed as error:
            if not _is_read_only(error):
                raise
            return _damages(folder, _manifest(folder), on_event)
        except OSError as error:
            raise write_failed(path, error) from error


def _is_read_only(error: WriteFailed) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def _verified(folder: SafeFolder, clock: Clock, on_event: OnEvent) -> list[Damage]:
    finish_pending(folder)
    manifest = _manifest(folder)
    damages = _damages(folder, manifest, on_event)
    if not damages:
        write_manifest(folder, _refreshed(folder, manifest, clock.wall()))
    return damages


def _damages(folder: SafeFolder, manifest: Manifest, on_event: OnEvent) -> list[Damage]:
    total = sum(record.size_bytes for record in manifest.files)
    done = 0
    damages = []
    for record in manifest.files:
        reader = _Reader(record.path, done, total, on_event)
        damages += _damage(folder, record, reader)
        done += record.size_bytes
    return damages


class _Reader:
    """Tells how far the reading of all files is; a file that grew does not count for more."""

    def __init__(self, path: str, done_bytes: int, total_bytes: int, on_event: OnEvent) -> None:
        self._path, self._done, self._total, self._on_event = path, done_bytes, total_bytes, on_event
        self(0)

    def __call__(self, n_bytes: int) -> None:
        self._done = min(self._done + n_bytes, self._total)
        self._on_event(Reading(self._path, self._done, self._total))


def repair(
    path: Path, source: Source, options: Options | None = None, on_event: OnEvent = ignore
) -> list[Damage]:
    """Fetch the damaged blocks of a downloaded model anew; what was damaged.

    `source` gives the manifest's own commit. Raises IntegrityError where what
    comes is not what was published, and what `download` raises.
    """
    options = options or Options()
    damages = verify(path, clock=options.clock, on_event=on_event)
    if not damages:
        return []
    with SafeFolder(path, system=options.system) as folder, locked(folder, options.clock, on_event):
        manifest = _manifest(folder)
        for record in manifest.files:
            if any(damage.path == record.path for damage in damages):
                _salvage(folder, manifest, record)
    origin = Origin(manifest.repo, manifest.revision, manifest.sha, manifest.endpoint)
    files = [record.remote for record in manifest.files]
    download(source, origin, files, path, on_event=on_event, options=options)
    return damages


def _manifest(folder: SafeFolder) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise ModelFilesMissing(
            folder.path,
            f"there is no {MANIFEST} to compare with",
            hint="only a model that influence downloaded can be verified: influence download -m ORG/NAME",
        )
    return manifest


def _damage(folder: SafeFolder, record: FileRecord, on_read: Callable[[int], None]) -> list[Damage]:
    measured = _measured(folder, record, on_read)
    if measured is None:
        return [Damage(record.path, "is missing", ((0, record.size_bytes),))]
    if measured.sha256 == record.sha256:
        return []
    if measured.size_bytes != record.size_bytes:
        problem = f"is {measured.size_bytes} bytes long, not {record.size_bytes}"
    else:
        problem = "has other bytes than were published"
    return [Damage(record.path, problem, _bad_ranges(measured, record))]


def _measured(
    folder: SafeFolder, record: FileRecord, on_read: Callable[[int], None] = lambda _: None
) -> Measured | None:
    """What the file is now; None if no ordinary file is there."""
    status = folder.status(record.path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return None
    file = folder.open(record.path)
    try:
        return measure(file, record.block_bytes, git=False, on_read=on_read)
    finally:
        os.close(file)


def _bad_ranges(measured: Measured, record: FileRecord) -> tuple[tuple[int, int], ...]:
    """The bytes that must come anew; none where a file has only become longer."""
    ranges: list[tuple[int, int]] = []
    for block in range(len(record.blocks)):
        if _is_sound(block, measured, record):
            continue
        begin, end = block * record.block_bytes, min((block + 1) * record.block_bytes, record.size_bytes)
        if ranges and ranges[-1][1] == begin:
            begin = ranges.pop()[0]
        ranges.append((begin, end))
    return tuple(ranges)


def _is_sound(block: int, measured: Measured, record: FileRecord) -> bool:
    """Whether all bytes of a block are there and right; in a longer file the last one's checksum is over more."""
    end = min((block + 1) * record.block_bytes, record.size_bytes)
    is_there = block < len(measured.blocks) and end <= measured.size_bytes
    return is_there and measured.blocks[block] == record.blocks[block]


def _salvage(folder: SafeFolder, manifest: Manifest, record: FileRecord) -> None:
    """Make a part of a damaged file's sound blocks, from which a download goes on, and remove the file."""
    measured = _measured(folder, record)
    if measured is not None:
        file = folder.open(record.path)
        part = Part(folder, record.remote, record.size_bytes, manifest.sha, record.block_bytes)
        try:
            _copy_sound_blocks(file, measured, record, part)
        finally:
            part.close()
            os.close(file)
    folder.remove(record.path)


def _copy_sound_blocks(file: int, measured: Measured, record: FileRecord, part: Part) -> None:
    for block, right in enumerate(record.blocks):
        if _is_sound(block, measured, record):
            begin = block * record.block_bytes
            length = min(record.block_bytes, record.size_bytes - begin)
            part.write(begin, os.pread(file, length, begin))
            part.block_done(block, right)


def _refreshed(folder: SafeFolder, manifest: Manifest, verified_at: float) -> Manifest:
    """The manifest of files that were just verified: a copy of the folder has other times."""
    files = []
    for record in manifest.files:
        status = folder.status(record.path)
        files.append(replace(record, modified_ns=status.st_mtime_ns) if status else record)
    return replace(manifest, verified_at=verified_at, files=tuple(files))
