"""All tensors of a model folder, mapped read-only where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

from influence.errors import InvalidCheckpoint
from influence.weights.folder import INDEX_NAME, weight_files
from influence.weights.safetensors import TensorInfo
from influence.weights.shard import Shard
from influence.weights.tensor import Tensor

_SAMPLE_BYTES = 4096


class Checkpoint:
    """The tensors of a folder by name; knows files, not what a tensor is for.

    Opening reads headers only. A shard is mapped when its first tensor is asked
    for, and stays mapped as long as this object or an array of it lives.
    """

    def __init__(self, folder: Path, shards: tuple[Shard, ...]) -> None:
        """Raises InvalidCheckpoint if two shards hold a tensor of one name."""
        self.folder = folder
        self._shards = shards
        self._shard_of = _shard_of_each(shards)
        self._infos = {name: shard.header.tensors[name] for name, shard in self._shard_of.items()}
        self._closed = False

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """The checkpoint in `folder`, every header checked, no data read.

        Raises ModelFilesMissing (no folder, no weights, a shard is missing),
        UnsupportedModel (weights of another format only), InvalidCheckpoint.
        """
        paths, index = weight_files(folder)
        checkpoint = cls(folder, tuple(Shard(path) for path in paths))
        if index is not None:
            checkpoint._check_index(index)
        return checkpoint

    def _check_index(self, index: Mapping[str, Path]) -> None:
        """A tensor that only a shard lists is taken: the shard's header is what the data obeys."""
        for name, path in index.items():
            shard = self._shard_of.get(name)
            if shard is None or shard.path != path:
                where = f"it is in {shard.path.name}" if shard else "it is in no shard"
                problem = f"the index says that it is in {path.name}, but {where}"
                raise InvalidCheckpoint(self.folder / INDEX_NAME, problem, tensor=name)

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(shard.path for shard in self._shards)

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Every tensor, of any dtype; offsets count within its own file."""
        return MappingProxyType(self._infos)

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.size_bytes for info in self._infos.values())

    def file_of(self, name: str) -> Path:
        return self._shard(name).path

    def tensor(self, name: str) -> Tensor:
        """A read-only view of one tensor, which stays valid after `close`.

        Raises InvalidCheckpoint if there is none of this name or its file
        changed since `open`, UnsupportedModel if it is not F32, F16 or BF16.
        """
        if self._closed:
            raise ValueError("the checkpoint is closed")
        return self._shard(name).tensor(self._infos[name])

    def _shard(self, name: str) -> Shard:
        if name not in self._shard_of:
            raise InvalidCheckpoint(
                self.folder,
                "the weights do not have it",
                tensor=name,
                hint="config.json and the weights do not match",
            )
        return self._shard_of[name]

    def mapped_files(self) -> list[tuple[Path, memoryview]]:
        """What is mapped now: each file, and its bytes.

        Reading there after someone truncates the file raises SIGBUS; whoever
        guards against it needs to know which addresses are files.
        """
        mappings = ((shard.path, shard.mapping) for shard in self._shards)
        return [(path, mapping) for path, mapping in mappings if mapping is not None]

    def fingerprint(self) -> str:
        """A hash that tells these weights from others without reading them all.

        Of each file its name, size and time; of each tensor what its header
        says and up to 4 KiB from its middle. Hex.
        """
        import hashlib  # loads OpenSSL, which a plain start has no use for

        hashed = hashlib.sha256()
        for shard in self._shards:
            hashed.update(f"{shard.path.name} {shard.size_bytes} {shard.modified_ns}\n".encode())
        for name, info in sorted(self._infos.items()):
            hashed.update(f"{name} {info.dtype} {info.shape} {info.begin}\n".encode())
            hashed.update(self._shard(name).sample(info, _SAMPLE_BYTES))
        return hashed.hexdigest()

    def check_unchanged(self) -> None:
        """InvalidCheckpoint if a file was replaced, truncated, written to or removed since `open`."""
        for shard in self._shards:
            shard.check_unchanged()

    def close(self) -> None:
        """Hands out no more tensors; a mapping ends when the last tensor of it goes."""
        self._closed = True
        for shard in self._shards:
            shard.unmap()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _shard_of_each(shards: Iterable[Shard]) -> dict[str, Shard]:
    shard_of: dict[str, Shard] = {}
    for shard in shards:
        for name in shard.header.tensors:
            first = shard_of.setdefault(name, shard)
            if first is not shard:
                raise InvalidCheckpoint(shard.path, f"is in {first.path.name} too", tensor=name)
    return shard_of
