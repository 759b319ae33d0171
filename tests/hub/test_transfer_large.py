"""A file of 60 GB: its far bytes land where they belong, in little memory (D49)."""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from influence.hub import events
from influence.hub.journal import block_bytes_of, part_key
from influence.hub.records import RemoteFile
from influence.hub.transfer import download
from influence.hub.wire import Room
from support.downloads import ORIGIN, options
from support.memory_source import MemorySource, MemoryStream

SIZE = 60_000_000_123
BLOCK = block_bytes_of(SIZE)
LAST = -(-SIZE // BLOCK) - 1
FAR = (300, LAST)  # behind 5 GB, and the last
FILE = RemoteFile("model.safetensors", SIZE, "0" * 64)


class Enough(Exception):
    """The far blocks are there."""


def formula(begin: int, end: int) -> bytes:
    """Bytes that say where they belong: each 8 of them their own place in the file."""
    numbers = b"".join(place.to_bytes(8, "little") for place in range(begin // 8 * 8, end, 8))
    return numbers[begin % 8 :][: end - begin]


class FormulaSource(MemorySource):
    """Serves the formula; the first block only once all is `over`, so that the hash of 60 GB does not begin."""

    def __init__(self) -> None:
        super().__init__({})
        self.over = threading.Event()

    @contextlib.contextmanager
    def open(self, path: str, begin: int, end: int | None) -> Iterator[MemoryStream]:
        assert end is not None
        self.requests.append((path, begin, end))
        yield FormulaStream(self, begin, end)


class FormulaStream(MemoryStream):
    def __init__(self, source: FormulaSource, begin: int, end: int) -> None:
        self.kind, self.total_bytes, self.begin = "part", SIZE, begin
        self._over, self._end = source.over, end

    def chunks(self, room: Room | None = None) -> Iterator[bytes]:
        if self.begin == 0:
            assert self._over.wait(60)
        step = 256 << 10
        for begin in range(self.begin, self._end, step):
            yield formula(begin, min(begin + step, self._end))


def leave_part(folder: Path) -> Path:
    """As of a run that was killed with three blocks to go: zeros, sparse, so that they take no space."""
    parts = folder / ".influence" / "parts"
    parts.mkdir(parents=True)
    part = parts / f"{part_key(FILE, SIZE, ORIGIN.sha)}.part"
    with part.open("wb") as file:
        file.truncate(SIZE)
    crc = zlib.crc32(bytes(BLOCK))
    lines = [f"{block} {crc:08x}\n" for block in range(1, LAST) if block not in FAR]
    part.with_suffix(".journal").write_text(f"influence 1 {SIZE} {BLOCK}\n" + "".join(lines))
    return part


def test_the_far_bytes_of_60_gb_land_where_they_belong_in_little_memory_d49(tmp_path: Path) -> None:
    part, source, process = leave_part(tmp_path), FormulaSource(), psutil.Process()
    before, grown = process.memory_info().rss, [0]

    def watch(event: events.Event) -> None:
        grown.append(process.memory_info().rss - before)
        if isinstance(event, events.Progress) and event.done_bytes == SIZE - BLOCK:
            source.over.set()
            raise Enough

    with pytest.raises(Enough):
        users = options(smallest_block_bytes=1 << 20, span_bytes=64 << 20)
        download(source, ORIGIN, [FILE], tmp_path, on_event=watch, options=users)
    asked = sorted((begin, end) for _, begin, end in source.requests)
    assert asked == [(0, BLOCK), (300 * BLOCK, 301 * BLOCK), (LAST * BLOCK, SIZE)]
    with part.open("rb") as file:
        for block in FAR:
            begin, end = block * BLOCK, min((block + 1) * BLOCK, SIZE)
            assert os.pread(file.fileno(), end - begin, begin) == formula(begin, end)
        assert os.pread(file.fileno(), 16, 301 * BLOCK) == bytes(16)
    assert max(grown) < 100 << 20
