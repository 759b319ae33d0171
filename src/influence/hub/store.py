"""The shelf: the models that lie in one folder, each whole in a folder of its own.

    models/
    ├── org_name/            downloaded: has .influence/manifest.json
    └── mine/                put there by the user: welcome, but nobody knows what it should be

Opens no socket, except that `verify` fetches damaged bytes anew where it is given a source.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from influence.errors import InfluenceError, IntegrityError, ModelFilesMissing
from influence.hub.clock import Clock, SystemClock
from influence.hub.events import OnEvent
from influence.hub.journal import Measured, Part, measure
from influence.hub.manifest import (
    MANIFEST,
    OWN_FOLDER,
    PARTS,
    PENDING,
    FileRecord,
    Manifest,
    read_manifest,
    write_manifest,
)
from influence.hub.names import RepoId
from influence.hub.safe_folder import SafeFolder, write_failed
from influence.hub.source import Source
from influence.hub.transfer import Options, Origin, download, finish_if_idle, finish_pending, locked

_CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder on the shelf."""

    path: Path
    manifest: Manifest | None  # None: the user's own, or one whose download never ended
    is_partial: bool  # a download, the first or an update, was begun and is not complete
    size_bytes: int

    @property
    def name(self) -> str:
        """ORG/NAME where the manifest says it, else the folder's name."""
        return self.manifest.repo if self.manifest else self.path.name


def entries(shelf: Path) -> list[Entry]:
    """All models on the shelf, by folder name; none where there is no shelf."""
    try:
        folders = sorted(path for path in shelf.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry for path in folders if (entry := entry_of(path)) is not None]


def entry_of(path: Path) -> Entry | None:
    """The model in a folder; None if it holds neither a model nor the beginning of one."""
    try:
        with SafeFolder(path) as folder:
            finish_if_idle(folder)
            manifest = read_manifest(folder)
            begun = bool(folder.names(PARTS))
            if manifest is None and not begun and folder.status(_CONFIG) is None:
                return None
    except InfluenceError:  # a folder that this user may not read is no entry
        return None
    return Entry(path, manifest, begun, _size_bytes(path))


def find(shelf: Path, name: str) -> Entry:
    """The entry that ORG/NAME, or a folder's name, means. ModelFilesMissing if there is none."""
    with contextlib.suppress(InfluenceError):
        name = RepoId.parse(name).folder
    is_name = name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
    entry = entry_of(shelf / name) if is_name else None
    if entry is None:
        raise ModelFilesMissing(
            shelf / name if is_name else shelf,
            "there is no such model",
            hint="`influence list` shows what is there; `influence download -m ORG/NAME` gets one",
        )
    return entry


def remove(entry: Entry, on_event: OnEvent = lambda _: None) -> int:
    """Remove a model's folder with all in it; the bytes that it held.

    A link is removed itself, not what it leads to. Where the removal is
    interrupted, the manifest is gone first, so that nobody takes the rest for whole.
    Waits, and tells so, while a download into it runs. Raises WriteFailed.
    """
    try:
        if entry.path.is_symlink():
            entry.path.unlink()
            return 0
        _unlist(entry.path, on_event)
        shutil.rmtree(entry.path)  # does not follow links
    except OSError as error:
        raise write_failed(entry.path, error) from error
    return entry.size_bytes


def _unlist(path: Path, on_event: OnEvent) -> None:
    with SafeFolder(path) as folder:
        if folder.status(OWN_FOLDER) is None:
            return
        with locked(folder, SystemClock(), on_event):
            folder.remove(PENDING)
            folder.remove(MANIFEST)


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not as it was when it was downloaded."""

    path: str
    problem: str  # "is missing", or what it is instead
    bad_bytes: int  # of the blocks that differ


def verify(
    path: Path,
    *,
    clock: Clock | None = None,
    on_file: Callable[[FileRecord], None] = lambda _: None,
) -> list[Damage]:
    """Read a downloaded model whole, and list what is not as published; empty if all is well.

    A manifest of sound files is written anew with the time of this check.
    Raises ModelFilesMissing where there is no manifest to compare with.
    """
    clock = clock or SystemClock()
    with SafeFolder(path) as folder:
        _manifest_of(folder)  # before the lock makes a file in a folder that is not ours
        with locked(folder, clock):
            try:
                return _verified(folder, clock, on_file)
            except OSError as error:
                raise write_failed(path, error) from error


def _verified(folder: SafeFolder, clock: Clock, on_file: Callable[[FileRecord], None]) -> list[Damage]:
    finish_pending(folder)
    manifest = _manifest_of(folder)
    damages = []
    for record in manifest.files:
        on_file(record)
        damages += _damage(folder, record)
    if not damages:
        write_manifest(folder, _refreshed(folder, manifest, clock.wall()))
    return damages


def repair(path: Path, source: Source, options: Options | None = None) -> list[Damage]:
    """Fetch the damaged blocks of a downloaded model anew; what was damaged.

    `source` gives the manifest's own commit. Raises IntegrityError where the
    result is still not as published, and what `download` raises.
    """
    options = options or Options()
    damages = verify(path, clock=options.clock)
    if not damages:
        return []
    with SafeFolder(path, system=options.system) as folder:
        manifest = _manifest_of(folder)
        with locked(folder, options.clock):
            for damage in damages:
                _salvage(folder, manifest, damage.path)
    origin = Origin(manifest.repo, manifest.revision, manifest.sha, manifest.endpoint)
    download(source, origin, [record.remote for record in manifest.files], path, options=options)
    left = verify(path, clock=options.clock)
    if left:
        raise IntegrityError(left[0].path, left[0].problem, "the content in the manifest")
    return damages


def _manifest_of(folder: SafeFolder) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise ModelFilesMissing(
            folder.path,
            f"there is no {MANIFEST} to compare with",
            hint="only a model that influence downloaded can be verified: influence download -m ORG/NAME",
        )
    return manifest


def _damage(folder: SafeFolder, record: FileRecord) -> list[Damage]:
    measured = _measured(folder, record)
    if measured is None:
        return [Damage(record.path, "is missing", record.size_bytes)]
    if measured.sha256 == record.sha256:
        return []
    if measured.size_bytes != record.size_bytes:
        problem = f"is {measured.size_bytes} bytes long, not {record.size_bytes}"
    else:
        problem = "has other bytes than were published"
    return [Damage(record.path, problem, _bad_bytes(measured, record))]


def _measured(folder: SafeFolder, record: FileRecord) -> Measured | None:
    """What the file is now; None if no ordinary file is there."""
    status = folder.status(record.path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return None
    file = folder.open(record.path)
    try:
        return measure(file, record.block_bytes, git=False)
    finally:
        os.close(file)


def _bad_bytes(measured: Measured, record: FileRecord) -> int:
    n_good = sum(found == right for found, right in zip(measured.blocks, record.blocks, strict=False))
    return max(record.size_bytes - n_good * record.block_bytes, 0)


def _salvage(folder: SafeFolder, manifest: Manifest, path: str) -> None:
    """Make a part of a damaged file's sound blocks, from which a download goes on, and remove the file."""
    record = next(record for record in manifest.files if record.path == path)
    measured = _measured(folder, record)
    if measured is not None:
        file = folder.open(path)
        part = Part(folder, record.remote, record.size_bytes, manifest.sha, record.block_bytes)
        try:
            _copy_sound_blocks(file, measured, record, part)
        finally:
            part.close()
            os.close(file)
    folder.remove(path)


def _copy_sound_blocks(file: int, measured: Measured, record: FileRecord, part: Part) -> None:
    pairs = zip(measured.blocks, record.blocks, strict=False)
    for block, (found, right) in enumerate(pairs):
        begin = block * record.block_bytes
        length = min(record.block_bytes, record.size_bytes - begin)
        if found == right and begin + length <= measured.size_bytes:
            part.write(begin, os.pread(file, length, begin))
            part.block_done(block, right)


def _refreshed(folder: SafeFolder, manifest: Manifest, verified_at: float) -> Manifest:
    """The manifest of files that were just verified: a copy of the folder has other times."""
    files = []
    for record in manifest.files:
        status = folder.status(record.path)
        files.append(replace(record, modified_ns=status.st_mtime_ns) if status else record)
    return replace(manifest, verified_at=verified_at, files=tuple(files))


def _size_bytes(path: Path) -> int:
    """Of all files, our own too; what vanishes meanwhile does not count."""
    size = 0
    for parent, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                size += (Path(parent) / name).lstat().st_size
    return size
