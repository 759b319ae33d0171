"""Calls to the disk that fail, and processes that die at them (D2, D3, D40, D42, D43).

The crash loop kills 20 processes. More, here 200, on demand:

    INFLUENCE_CRASHES=200 python -m pytest tests/hub/test_crashes.py
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from influence.errors import WriteFailed
from influence.hub.manifest import read_manifest
from influence.hub.safe_folder import FileSystem, SafeFolder
from influence.hub.transfer import finish_pending
from support.downloads import (
    BLOCK,
    NEW,
    NEWER,
    OLD,
    ORIGIN,
    content_of,
    fetch,
    own_files,
)
from support.memory_source import MemorySource, MemoryStream, some_bytes

N_CRASHES = int(os.environ.get("INFLUENCE_CRASHES", "20"))


class FailingSystem(FileSystem):
    """Fails the call of one number, or dies there; `n_calls` tells how many there were."""

    def __init__(self, fail_at: int, code: int) -> None:
        self.n_calls, self._fail_at, self._code = 0, fail_at, code
        self._lock = threading.Lock()

    def _call(self) -> None:
        with self._lock:
            self.n_calls += 1
            if self.n_calls == self._fail_at:
                raise OSError(self._code, os.strerror(self._code))

    def write(self, file: int, data: bytes) -> int:
        self._call()
        return super().write(file, data)

    def write_at(self, file: int, data: bytes | memoryview, position: int) -> int:
        self._call()
        return super().write_at(file, data, position)

    def truncate(self, file: int, size_bytes: int) -> None:
        self._call()
        super().truncate(file, size_bytes)

    def flush(self, file: int) -> None:
        self._call()  # without a loss of power nobody can tell that it does nothing

    def rename(self, old: str, old_folder: int, new: str, new_folder: int) -> None:
        self._call()
        super().rename(old, old_folder, new, new_folder)

    def unlink(self, name: str, folder: int) -> None:
        self._call()
        super().unlink(name, folder)


def test_any_call_to_the_disk_may_fail_and_the_next_run_makes_it_good_d3_d42_d43(tmp_path: Path) -> None:
    """Sweeps over all calls of an update; after each failure the folder is old, new, or made new offline."""
    code = {0: errno.ENOSPC, 1: errno.EIO, 2: errno.EDQUOT}
    fetch(MemorySource(OLD), tmp_path / "old")
    for fail_at in range(1, 1000):
        folder = shutil.copytree(tmp_path / "old", tmp_path / str(fail_at))
        system = FailingSystem(fail_at, code[fail_at % 3])
        try:
            fetch(MemorySource(NEW), folder, NEWER, system=system, connections=1)
        except WriteFailed as failure:
            assert failure.hint
        check_old_or_new(folder)
        if system.n_calls < fail_at:
            break
        fetch(MemorySource(NEW), folder, NEWER, system=FailingSystem(0, 0))
        assert content_of(folder) == NEW
        assert own_files(folder) == {"manifest.json", "lock"}
    assert 30 < fail_at < 999


def check_old_or_new(folder: Path) -> None:
    """What the next process sees, after the recovery that needs no network."""
    with SafeFolder(folder) as safe:
        finish_pending(safe)
        manifest = read_manifest(safe)
    assert manifest is not None
    assert content_of(folder) == (OLD if manifest.sha == ORIGIN.sha else NEW)


class CountingSource(MemorySource):
    """Counts what it served where a killed child's parent can read it."""

    def __init__(self, contents: dict[str, bytes], counter: mmap.mmap) -> None:
        super().__init__(contents)
        self.chunk_bytes, self._counter = BLOCK, counter

    @contextlib.contextmanager
    def open(self, path: str, begin: int, end: int | None) -> Iterator[MemoryStream]:
        with super().open(path, begin, end) as stream:
            pieces = stream.pieces

            def counted() -> Iterator[bytes]:
                for piece in pieces():
                    with self.lock:
                        self._counter[:8] = (total(self._counter) + len(piece)).to_bytes(8, "little")
                    yield piece

            stream.pieces = counted  # type: ignore[method-assign]
            yield stream


def total(counter: mmap.mmap) -> int:
    return int.from_bytes(counter[:8], "little")


class DyingSystem(FailingSystem):
    """Kills its own process at the call of one number, as kill -9 does."""

    def _call(self) -> None:
        self.n_calls += 1
        if self.n_calls == self._fail_at:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_download(folder: Path, content: bytes, counter: mmap.mmap, call: int) -> bool:
    """Run a download in a child that dies at a call to the disk; whether it did."""
    child = os.fork()
    if child == 0:
        source = CountingSource({"model.safetensors": content}, counter)
        try:
            fetch(source, folder, system=DyingSystem(call, 0), connections=2, span_bytes=1 << 20)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_kills_at_any_call_cost_few_bytes_and_leave_no_orphan_d2_d3_d40(tmp_path: Path) -> None:
    """Twenty kills to a file, at random calls to the disk, then a run to the end; as many files as are asked for."""
    n_files = -(-N_CRASHES // 20)
    for number in range(n_files):
        crash_loop(tmp_path / str(number), random.Random(number))


def crash_loop(folder: Path, chance: random.Random) -> None:
    content, counter, n_killed = some_bytes(4_000_001), mmap.mmap(-1, 8), 0
    for _ in range(20):
        n_killed += killed_download(folder, content, counter, chance.randrange(2, 80))
        assert content_of(folder) in ({}, {"model.safetensors": content})
    last = CountingSource({"model.safetensors": content}, counter)
    fetch(last, folder)
    assert n_killed == 20
    assert content_of(folder) == {"model.safetensors": content}
    assert own_files(folder) == {"manifest.json", "lock"}
    assert total(counter) <= 1.05 * len(content)


def test_a_kill_while_a_part_is_taken_up_again_loses_none_of_its_blocks_d2(tmp_path: Path) -> None:
    content, counter = some_bytes(400_001), mmap.mmap(-1, 8)
    assert killed_download(tmp_path / "half", content, counter, 100)
    n_missing = len(content) - total(counter)
    assert 0 < n_missing < len(content) - 20 * BLOCK
    for call in range(1, 15):
        folder = shutil.copytree(tmp_path / "half", tmp_path / str(call))
        counter[:8] = bytes(8)
        assert killed_download(folder, content, counter, call)
        fetch(CountingSource({"model.safetensors": content}, counter), folder)
        assert total(counter) <= n_missing + 6 * BLOCK  # two connections, three runs


def test_a_kill_at_any_call_of_an_update_leaves_the_old_model_or_the_new_one_d3_d44(tmp_path: Path) -> None:
    fetch(MemorySource(OLD), tmp_path / "old")
    for call in range(1, 1000):
        folder = shutil.copytree(tmp_path / "old", tmp_path / str(call))
        child = os.fork()
        if child == 0:
            try:
                fetch(MemorySource(NEW), folder, NEWER, system=DyingSystem(call, 0), connections=1)
            finally:
                os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        check_old_or_new(folder)
        if not killed:
            break
        fetch(MemorySource(NEW), folder, NEWER, system=FailingSystem(0, 0))
        assert content_of(folder) == NEW
        assert own_files(folder) == {"manifest.json", "lock"}
    assert 30 < call < 999
