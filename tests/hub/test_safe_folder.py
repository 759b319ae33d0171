"""Nothing is written outside the folder, and what has a name is whole (D4, D36 to D38, D43)."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import threading
from pathlib import Path

import pytest

from influence.errors import WriteFailed
from influence.hub.manifest import FileRecord, Manifest, read_manifest, write_manifest
from influence.hub.safe_folder import FileSystem, SafeFolder


class RecordingSystem(FileSystem):
    """Notes the order of flushes and renames, and fails the call of one number."""

    def __init__(self, fail_at: int = 0, code: int = errno.EIO) -> None:
        self.calls: list[str] = []
        self._fail_at, self._code = fail_at, code

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if len(self.calls) == self._fail_at:
            raise OSError(self._code, os.strerror(self._code))

    def write(self, file: int, data: bytes) -> int:
        self._note("write")
        return super().write(file, data[:3])  # short writes are legal

    def flush(self, file: int) -> None:
        self._note("flush folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "flush file")
        super().flush(file)

    def rename(self, old: str, old_folder: int, new: str, new_folder: int) -> None:
        self._note("rename")
        super().rename(old, old_folder, new, new_folder)


def test_a_file_is_flushed_then_named_then_its_folder_flushed_d4(tmp_path: Path) -> None:
    system = RecordingSystem()
    with SafeFolder(tmp_path, system=system) as folder:
        folder.write_whole("config.json", b"12345")
    assert system.calls == ["write", "write", "flush file", "rename", "flush folder"]
    assert (tmp_path / "config.json").read_bytes() == b"12345"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("fail_at", [1, 2, 3, 4])
def test_a_failed_call_leaves_the_old_file_and_nothing_else_d43(
    tmp_path: Path, fail_at: int, code: int
) -> None:
    (tmp_path / "config.json").write_bytes(b"old")
    with (
        SafeFolder(tmp_path, system=RecordingSystem(fail_at, code)) as folder,
        pytest.raises(WriteFailed, match=r"config\.json") as failure,
    ):
        folder.write_whole("config.json", b"12345")
    assert failure.value.hint
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"config.json": b"old"}


@pytest.mark.parametrize("name", ["link/file", "link", "inner/link/file"])
def test_a_planted_link_is_not_followed_d37(tmp_path: Path, name: str) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "model"
    outside.mkdir()
    (inside / "inner").mkdir(parents=True)
    (inside / "link").symlink_to(outside if "/" in name else outside / "file")
    (inside / "inner" / "link").symlink_to(outside)
    with SafeFolder(inside) as folder, pytest.raises(WriteFailed, match="link"):
        folder.open(name, write=True)
    assert list(outside.iterdir()) == []


def test_writing_whole_replaces_a_link_and_not_what_it_leads_to_d37(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").symlink_to(tmp_path / "precious")
    with SafeFolder(tmp_path / "model") as folder:
        folder.write_whole("config.json", b"new")
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert (tmp_path / "model" / "config.json").read_bytes() == b"new"


def test_a_folder_swapped_for_a_link_while_we_write_leads_nowhere_d38(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "model"
    outside.mkdir()
    (inside / "sub").mkdir(parents=True)
    stop, swaps = threading.Event(), list[int]()

    def swap() -> None:
        sub = inside / "sub"
        for number in itertools.count():
            with contextlib.suppress(OSError):  # the writer makes the folder again in between
                sub.rename(inside / f"real-{number}")
                sub.symlink_to(outside)
                swaps.append(number)
                sub.unlink()
            if stop.is_set():
                return

    swapper = threading.Thread(target=swap)
    swapper.start()
    with SafeFolder(inside) as folder:
        for number in range(1000):
            with contextlib.suppress(WriteFailed):
                os.close(folder.open(f"sub/{number}", write=True))
    stop.set()
    swapper.join()
    assert swaps
    assert list(outside.iterdir()) == []


def test_a_pipe_in_place_of_a_file_is_refused_at_once_f20(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with SafeFolder(tmp_path) as folder:
        with pytest.raises(WriteFailed, match="ordinary"):
            folder.open("pipe", write=True)
        assert folder.read("pipe", 100) is None


RECORD = FileRecord("a/b.json", 3, "0" * 64, "1" * 40, 5, 2, (7, 8))
MANIFEST = Manifest("org/name", "main", "2" * 40, "https://hub.test", 12.5, (RECORD,))


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    with SafeFolder(tmp_path) as folder:
        assert read_manifest(folder) is None
        write_manifest(folder, MANIFEST)
        assert read_manifest(folder) == MANIFEST


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"a/b.json"', '"../b.json"'),
        ("[", "{"),
        ('"size_bytes": 3', '"size_bytes": 30'),
        ('"format": 1', '"x": 1'),
    ],
)
def test_a_damaged_manifest_counts_as_none_d36(tmp_path: Path, right: str, wrong: str) -> None:
    with SafeFolder(tmp_path) as folder:
        write_manifest(folder, MANIFEST)
        path = tmp_path / ".influence" / "manifest.json"
        assert right in path.read_text()
        path.write_text(path.read_text().replace(right, wrong, 1))
        assert read_manifest(folder) is None
