"""What a downloaded folder holds, and from where: `.influence/manifest.json`, the last thing that is written.

    model/
    ├── config.json
    ├── model.safetensors
    └── .influence/
        ├── manifest.json     all files are there, whole and verified
        ├── pending.json      the next manifest: its files are verified and being named (transfer.py)
        ├── lock              held (flock) by the process that downloads
        └── parts/            files on their way (journal.py)

A file's `blocks` are CRC-32s of its pieces of `block_bytes`. They only find
where damage lies; what is right, the published hash decides.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from influence.dataclass import dataclass
from influence.errors import HubError
from influence.hub import OWN_FOLDER
from influence.hub.names import check_file_names
from influence.hub.records import RemoteFile
from influence.hub.safe_folder import SafeFolder

MANIFEST = f"{OWN_FOLDER}/manifest.json"
PENDING = f"{OWN_FOLDER}/pending.json"
PARTS = f"{OWN_FOLDER}/parts"
LOCK = f"{OWN_FOLDER}/lock"
_MAX_MANIFEST_BYTES = 64 << 20
_FORMAT = 1


@dataclass(frozen=True)
class FileRecord:
    """One verified file."""

    path: str
    size_bytes: int
    sha256: str  # of the content, measured by us
    git_sha1: str | None  # where the Hub published this one
    modified_ns: int
    block_bytes: int
    blocks: tuple[int, ...]

    def is_of(self, file: RemoteFile) -> bool:
        """Whether this is the content that the Hub lists; a file listed without a hash never is."""
        if file.sha256:
            return self.sha256 == file.sha256
        return file.git_sha1 is not None and self.git_sha1 == file.git_sha1

    @property
    def remote(self) -> RemoteFile:
        return RemoteFile(self.path, self.size_bytes, self.sha256, self.git_sha1)


@dataclass(frozen=True)
class Manifest:
    """A whole model: one repository at one commit, by one host's word."""

    repo: str
    revision: str  # as the user named it
    sha: str  # the commit that it was
    endpoint: str
    verified_at: float  # seconds since 1970
    files: tuple[FileRecord, ...]

    def file(self, path: str) -> FileRecord | None:
        return next((file for file in self.files if file.path == path), None)


def read_manifest(folder: SafeFolder, name: str = MANIFEST) -> Manifest | None:
    """The manifest of a folder; None where there is none, or it is damaged."""
    content = folder.read(name, _MAX_MANIFEST_BYTES)
    if content is None:
        return None
    try:
        return _parsed(json.loads(content))
    except (ValueError, KeyError, TypeError, RecursionError, HubError):
        return None


def write_manifest(folder: SafeFolder, manifest: Manifest, name: str = MANIFEST) -> None:
    """Write it whole or not at all; WriteFailed."""
    content = {"format": _FORMAT, **asdict(manifest)}
    folder.write_whole(name, json.dumps(content, indent=1).encode())


def _parsed(content: Any) -> Manifest:
    if content.pop("format") != _FORMAT:
        raise ValueError("another format")
    if not all(isinstance(content[name], str) for name in ("repo", "revision", "sha", "endpoint")):
        raise ValueError("names that are not texts")
    files = tuple(_file_record(entry) for entry in content.pop("files"))
    check_file_names(file.path for file in files)
    return Manifest(files=files, **content)


def _file_record(entry: Any) -> FileRecord:
    record = FileRecord(**{**entry, "blocks": tuple(map(int, entry["blocks"]))})
    if record.size_bytes < 0 or record.block_bytes < 1:
        raise ValueError("sizes that can't be")
    if len(record.blocks) != -(-record.size_bytes // record.block_bytes):
        raise ValueError("another number of blocks than the size says")
    return record
