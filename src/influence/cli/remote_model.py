"""A model that is still on a hub, read as far as a plan needs it.

    1. the files      of one commit, chosen and left out (hub/offer.py)
    2. config.json    a few kB
    3. the headers    of the weights, all at once: the first 8 bytes of each file, then exactly its header

No byte of the weights is asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from influence.cli.at_once import at_once
from influence.dataclass import dataclass
from influence.errors import InvalidAnswer, InvalidCheckpoint
from influence.hub.client import Hub
from influence.hub.names import RepoId
from influence.hub.offer import Offer, examine
from influence.hub.records import RemoteFile
from influence.hub.weights_index import MAX_INDEX_BYTES, shards_of
from influence.models.config import MAX_JSON_BYTES, Config
from influence.weights.folder import INDEX_NAME, only_weight_file
from influence.weights.safetensors import MAX_HEADER_BYTES, Header, TensorInfo, header_length, parse_header

_PREFIX_BYTES = 8
_N_CONNECTIONS = 8


@dataclass(frozen=True)
class RemoteModel:
    """A model on a hub at one commit; its methods ask the hub, each raising what the answers mean."""

    hub: Hub
    name: RepoId
    revision: str
    offer: Offer

    @classmethod
    def find(cls, hub: Hub, name: RepoId, revision: str) -> RemoteModel:
        """Raises HubError: ModelNotFound, NoSafeWeights, IncompleteModel, ..."""
        return cls(hub, name, revision, examine(hub, name, revision))

    @property
    def sha(self) -> str:
        return self.offer.revision.sha

    @property
    def files(self) -> Sequence[RemoteFile]:
        """What a download would fetch."""
        return self.offer.selection.chosen

    @property
    def size_bytes(self) -> int:
        """Of the files, as far as their sizes are told."""
        return sum(file.size_bytes or 0 for file in self.files)

    def config(self) -> Config:
        """Its config.json. Raises HubError (GatedModel, EntryNotFound, ...) or InvalidConfig."""
        content = self.hub.read_file(self.name, self.sha, "config.json", MAX_JSON_BYTES)
        return Config.parse(content, self._path("config.json"))

    def tensors(self) -> dict[str, TensorInfo]:
        """What the headers of all weight files list. Raises HubError or ModelError."""
        names = set(self._weight_files())
        files = [file for file in self.files if file.path in names]
        prefixes = at_once(self._prefix, files, _N_CONNECTIONS)
        self._check_lengths(files, prefixes)
        begun = list(zip(files, prefixes, strict=True))
        headers = at_once(lambda pair: self._header(*pair), begun, _N_CONNECTIONS)
        return _merged(zip(map(self._path_of, files), headers, strict=True))

    def _weight_files(self) -> Sequence[str]:
        names = [file.path for file in self.files]
        if INDEX_NAME not in names:
            return [only_weight_file(self._path(""), names)]
        try:
            return shards_of(self.hub.read_file(self.name, self.sha, INDEX_NAME, MAX_INDEX_BYTES))
        except ValueError as error:
            raise InvalidAnswer(self.hub.file_url(self.name, self.sha, INDEX_NAME), str(error)) from error

    def _prefix(self, file: RemoteFile) -> bytes:
        """The file's first bytes, which tell the length of its header."""
        return self._read(file, 0, min(_PREFIX_BYTES, _size(file)))

    def _check_lengths(self, files: Sequence[RemoteFile], prefixes: Sequence[bytes]) -> None:
        """No more is fetched than the header of one file may have."""
        claimed = sum(
            header_length(prefix, _size(file), self._path_of(file))
            for file, prefix in zip(files, prefixes, strict=True)
        )
        if claimed > MAX_HEADER_BYTES:
            problem = f"the headers of its {len(files)} weight files claim {claimed} bytes"
            raise InvalidCheckpoint(self._path(""), problem)

    def _header(self, file: RemoteFile, prefix: bytes) -> Header:
        end = _PREFIX_BYTES + header_length(prefix, _size(file), self._path_of(file))
        return parse_header(prefix + self._read(file, _PREFIX_BYTES, end), _size(file), self._path_of(file))

    def _read(self, file: RemoteFile, begin: int, end: int) -> bytes:
        return self.hub.read_range(self.name, self.sha, file.path, begin, end) if end > begin else b""

    def _path_of(self, file: RemoteFile) -> Path:
        return self._path(file.path)

    def _path(self, name: str) -> Path:
        """How errors name a file of the model."""
        return Path(str(self.name), name)


def _size(file: RemoteFile) -> int:
    """0, which is too short for weights, where nobody tells it."""
    return file.size_bytes or 0


def _merged(headers: Iterable[tuple[Path, Header]]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for path, header in headers:
        for name, info in header.tensors.items():
            if name in tensors:
                raise InvalidCheckpoint(path, "is in another of the weight files too", tensor=name)
            tensors[name] = info
    return tensors


def free_bytes(folder: Path) -> int:
    """On the disk where a folder is or, if it is not there yet, would be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free
