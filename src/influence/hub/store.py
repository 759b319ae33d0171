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
from pathlib import Path

from influence.dataclass import dataclass
from influence.errors import InfluenceError, ModelFilesMissing, WriteFailed
from influence.hub import OWN_FOLDER
from influence.hub.clock import SystemClock
from influence.hub.events import OnEvent, ignore
from influence.hub.journal import block_bytes_of
from influence.hub.manifest import (
    MANIFEST,
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
# Ends of the names of files in PARTS (journal.py):
_SPARSE = ".part"  # takes less space than it is long
_CONTENT = (_SPARSE, ".done")  # holds bytes of the model, and no notes of ours


@dataclass(frozen=True)
class Entry:
    """One folder on the shelf, whatever it holds."""

    path: Path
    manifest: Manifest | None  # None: the user's own, or one whose first download never ended
    is_partial: bool  # a download, the first or an update, was begun and is not complete
    size_bytes: int

    @property
    def name(self) -> str:
        """ORG/NAME where the manifest says it, else the folder's name."""
        return self.manifest.repo if self.manifest else self.path.name

    @property
    def received_bytes(self) -> int:
        """Of the model's own bytes, how many a download that is not complete has brought so far."""
        return _size_bytes(self.path / PARTS, _CONTENT)

    @property
    def is_only_begun(self) -> bool:
        """Whether nothing is here but the beginning of a first download."""
        return self.is_partial and self.manifest is None and not (self.path / _CONFIG).exists()


def entries(shelf: Path) -> list[Entry]:
    """All folders on the shelf but hidden ones, by name; none where there is no shelf."""
    try:
        paths = sorted(path for path in shelf.iterdir() if path.is_dir() and not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry_of(path) for path in paths]


def entry_of(path: Path) -> Entry:
    """What a folder is. A download that only lacked its last renames is made good."""
    manifest, is_partial = None, False
    with contextlib.suppress(InfluenceError), SafeFolder(path) as folder:  # or this user may not read it
        finish_if_idle(folder)
        manifest = read_manifest(folder)
        is_partial = bool(folder.names(PARTS))
    return Entry(path, manifest, is_partial, _size_bytes(path))


def find(shelf: Path, name: str) -> Entry:
    """The entry that ORG/NAME, or a folder's name, means. ModelFilesMissing if there is none."""
    asked = name
    with contextlib.suppress(InfluenceError):
        name = RepoId.parse(name).folder
    is_name = name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
    if not is_name or not (shelf / name).is_dir():
        raise ModelFilesMissing(
            shelf,
            f"there is no model {asked!r}",
            hint="`influence list` shows what is there; `influence download -m ORG/NAME` gets one",
        )
    return entry_of(shelf / name)


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


def _size_bytes(path: Path, ends: tuple[str, ...] = ("",)) -> int:
    """Of all files whose names end so, our own too; of a part what is there of it; what vanishes meanwhile does not count."""
    size = 0
    for parent, _, names in os.walk(path):
        for name in (name for name in names if name.endswith(ends)):
            with contextlib.suppress(OSError):
                status = (Path(parent) / name).lstat()
                is_part = name.endswith(_SPARSE)
                size += min(status.st_size, 512 * status.st_blocks) if is_part else status.st_size
    return size
