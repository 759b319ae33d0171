"""A model is held to what was published, and only its damaged blocks come anew."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from influence.errors import IntegrityError, ModelFilesMissing
from influence.hub.events import Event, Installed, Reading
from influence.hub.manifest import Manifest, read_manifest
from influence.hub.safe_folder import FileSystem, SafeFolder
from influence.hub.verification import Damage, repair, verify
from support.downloads import BLOCK, CONTENT, NEW, content_of, fetch, one_file, options, own_files
from support.memory_source import MemorySource


def folder_with(tmp_path: Path, source: MemorySource) -> Path:
    fetch(source, tmp_path / "org_name")
    return tmp_path / "org_name"


def manifest_of(folder: Path) -> Manifest:
    with SafeFolder(folder) as safe:
        manifest = read_manifest(safe)
    assert manifest is not None
    return manifest


def test_a_sound_model_verifies_and_remembers_when(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, MemorySource(NEW))
    clock = options().clock
    clock.sleep(500.0)
    read: list[Event] = []
    assert verify(folder, clock=clock, on_event=read.append) == []
    assert manifest_of(folder).verified_at == clock.wall()
    assert [event for event in read if not isinstance(event, Reading)] == []
    assert list(dict.fromkeys(event.path for event in read if isinstance(event, Reading))) == list(NEW)
    total = sum(map(len, NEW.values()))
    shown = [event.done_bytes for event in read if isinstance(event, Reading) and event.total_bytes == total]
    assert shown == sorted(shown) and shown[-1] == total and len(shown) == len(read)


def test_a_folder_that_may_only_be_read_is_verified_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with(tmp_path, MemorySource(NEW))
    before = (folder / ".influence" / "manifest.json").read_bytes()
    open_file = FileSystem.open

    def read_only(system: FileSystem, name: str, flags: int, parent: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return open_file(system, name, flags, parent)

    monkeypatch.setattr(FileSystem, "open", read_only)
    assert verify(folder, clock=options().clock) == []
    (folder / "config.json").write_bytes(b"x")
    assert [damage.path for damage in verify(folder, clock=options().clock)] == ["config.json"]
    assert (folder / ".influence" / "manifest.json").read_bytes() == before


def damaged(folder: Path, at: int) -> None:
    """One bit flipped, with size and time as before."""
    path = folder / "model.safetensors"
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("at", [0, 2 * BLOCK + 1, len(CONTENT) - 1])
def test_one_wrong_bit_is_found_and_its_block_alone_comes_anew(tmp_path: Path, at: int) -> None:
    folder = folder_with(tmp_path, one_file())
    damaged(folder, at)
    begin = at // BLOCK * BLOCK
    end = min(begin + BLOCK, len(CONTENT))
    expected = Damage("model.safetensors", "has other bytes than were published", ((begin, end),))
    assert verify(folder, clock=options().clock) == [expected]
    again = one_file()
    events: list[Event] = []
    assert repair(folder, again, options(), events.append) == [expected]
    assert again.bytes_served == expected.bad_bytes == end - begin
    assert [event.done_bytes for event in events if isinstance(event, Reading)][-1] == len(CONTENT)
    assert isinstance(events[-1], Installed)
    assert content_of(folder) == again.contents
    assert own_files(folder) == {"manifest.json", "lock"}


@pytest.mark.parametrize("length", [0, 3 * BLOCK, 3 * BLOCK + 7, len(CONTENT) + 9])
def test_a_file_of_another_length_keeps_its_sound_blocks(tmp_path: Path, length: int) -> None:
    folder = folder_with(tmp_path, one_file())
    path = folder / "model.safetensors"
    path.write_bytes((CONTENT + bytes(9))[:length])
    again = one_file()
    [damage] = repair(folder, again, options())
    assert damage.problem == f"is {length} bytes long, not {len(CONTENT)}"
    n_sound = min(length, len(CONTENT)) // BLOCK * BLOCK
    assert damage.bad_bytes == again.bytes_served == len(CONTENT) - n_sound
    assert [begin for begin, _ in damage.ranges] == [n_sound]
    assert content_of(folder) == again.contents


def test_a_missing_file_is_named_and_comes_back(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, MemorySource(NEW))
    (folder / "config.json").unlink()
    again = MemorySource(NEW)
    assert repair(folder, again, options()) == [
        Damage("config.json", "is missing", ((0, len(NEW["config.json"])),))
    ]
    assert {path for path, _, _ in again.requests} == {"config.json"}
    assert content_of(folder) == NEW


def test_a_repair_from_a_wrong_source_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, one_file())
    damaged(folder, 0)
    wrong = MemorySource({"model.safetensors": bytes(len(CONTENT))})
    with pytest.raises(IntegrityError):
        repair(folder, wrong, options())
    assert content_of(folder) == {}


def test_a_users_own_folder_can_not_be_verified_and_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFilesMissing, match=r"manifest\.json"):
        verify(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
