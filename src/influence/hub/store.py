"""The shelf: the models that lie in one folder, each whole in a folder of its own.

    models/
    ├── org_name/            downloaded: has .influence/manifest.json
    └── mine/                put there by the user: welcome, but nobody knows what it should be

Opens no socket.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from influence.errors import InfluenceError, ModelFilesMissing, WriteFailed
from influence.hub.clock import SystemClock
from influence.hub.events import OnEvent, ignore
from influence.hub.journal import block_bytes_of
from influence.hub.manifest import (
    MANIFEST,
    OWN_FOLDER,
    PARTS,
    PENDING,
    Manifest,
    read_manifest,
)
from influence.hub.names import RepoId
from influence.hub.records import RemoteFile
from influence.hub.safe_folder import SafeFolder, write_failed
from influence.hub.transfer import (
    finish_if_idle,
    locked,
    measured_record,
    unchanged,
)

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
            shelf,
            f"there is no model {name!r}",
            hint="`influence list` shows what is there; `influence download -m ORG/NAME` gets one",
        )
    return entry


def strangers(entry: Entry) -> list[str]:
    """The files in a downloaded model's folder that did not come with it, by path."""
    own = {record.path for record in entry.manifest.files} if entry.manifest else set()
    paths = (path.relative_to(entry.path) for path in entry.path.rglob("*") if not path.is_dir())
    return sorted(
        path.as_posix() for path in paths if path.parts[0] != OWN_FOLDER and path.as_posix() not in own
    )


def check_free(path: Path, repo: str, files: Sequence[RemoteFile]) -> None:
    """Raises WriteFailed where a download of `files` would replace what is not its own.

    That is another model, or a file of the same name that the user put there.
    """
    if not path.is_dir():
        return
    with SafeFolder(path) as folder:
        finish_if_idle(folder)
        manifest = read_manifest(folder)
        if manifest is not None and manifest.repo != repo:
            raise WriteFailed(
                path,
                f"holds another model, {manifest.repo}",
                hint=f"name another folder with --output, or first remove that one: influence rm {manifest.repo}",
            )
        if manifest is None and not folder.names(PARTS):
            _check_own_files(folder, files)


def _check_own_files(folder: SafeFolder, files: Sequence[RemoteFile]) -> None:
    for file in files:
        block_bytes = block_bytes_of(file.size_bytes or 0)
        is_other = measured_record(folder, file.path, file, block_bytes) is None
        if folder.status(file.path) is not None and is_other:
            raise WriteFailed(
                folder.path / file.path,
                "is not the file that was published, and was not downloaded by influence",
                hint="move it away, or name another folder with --output",
            )


def bytes_here(path: Path, files: Sequence[RemoteFile]) -> int:
    """Of the files that an earlier download verified, and that look unchanged."""
    if not path.is_dir():
        return 0
    with SafeFolder(path) as folder:
        manifest = read_manifest(folder)
        records = [manifest.file(file.path) for file in files] if manifest else []
        return sum(
            record.size_bytes
            for file, record in zip(files, records, strict=False)
            if record and record.is_of(file) and unchanged(folder, record)
        )


def remove(entry: Entry, on_event: OnEvent = ignore) -> int:
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


def _size_bytes(path: Path) -> int:
    """Of all files, our own too; what vanishes meanwhile does not count."""
    size = 0
    for parent, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                size += (Path(parent) / name).lstat().st_size
    return size
