"""Small downloads into a folder, and what it holds then."""

from __future__ import annotations

from pathlib import Path

from influence.hub.manifest import Manifest
from influence.hub.records import RemoteFile
from influence.hub.transfer import Options, Origin, download
from support.memory_source import Fault, FreeClock, MemorySource, remote, some_bytes

ORIGIN = Origin("org/name", "main", "a" * 40, "https://hub.test")
NEWER = Origin("org/name", "main", "b" * 40, "https://hub.test")
BLOCK = 4096
CONTENT = some_bytes(50_001)
OLD = {"config.json": b"{}", "model.safetensors": some_bytes(30_000, seed=1), "gone.txt": b"old"}
NEW = {"config.json": b'{"a": 1}', "model.safetensors": some_bytes(40_000, seed=2), "sub/new.txt": b""}


def options(**changes: object) -> Options:
    facts: dict[str, object] = {
        "connections": 3,
        "smallest_block_bytes": BLOCK,
        "span_bytes": 4 * BLOCK,
        "clock": FreeClock(),
    }
    return Options(**{**facts, **changes})  # type: ignore[arg-type]


def listing(contents: dict[str, bytes]) -> list[RemoteFile]:
    return [remote(path, content, large=path.endswith(".safetensors")) for path, content in contents.items()]


def fetch(source: MemorySource, folder: Path, origin: Origin = ORIGIN, **changes: object) -> Manifest:
    return download(source, origin, listing(source.contents), folder, options=options(**changes))


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".influence" not in path.parts
    }


def own_files(folder: Path) -> set[str]:
    own = folder / ".influence"
    return {path.relative_to(own).as_posix() for path in own.rglob("*") if path.is_file()}


def one_file(*faults: Fault) -> MemorySource:
    return MemorySource({"model.safetensors": CONTENT}, *faults)
