"""The shelf shows what is there, finds what is damaged, and mends just that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from influence.errors import DownloadFailed, IntegrityError, ModelFilesMissing
from influence.hub.store import Damage, entries, find, remove, repair, verify
from support.downloads import BLOCK, CONTENT, NEW, content_of, fetch, one_file, options, own_files
from support.memory_source import MemorySource, cut_after

FOLDER = "org_name"


def shelf_with(tmp_path: Path, source: MemorySource) -> Path:
    fetch(source, tmp_path / FOLDER)
    return tmp_path / FOLDER


def test_downloaded_own_and_unfinished_models_are_told_apart(tmp_path: Path) -> None:
    shelf_with(tmp_path, MemorySource(NEW))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    (tmp_path / "no model").mkdir()
    with pytest.raises(DownloadFailed):
        fetch(MemorySource(NEW, *[cut_after(0)] * 100), tmp_path / "begun")
    found = {entry.name: (entry.manifest is not None, entry.is_partial) for entry in entries(tmp_path)}
    assert found == {"org/name": (True, False), "mine": (False, False), "begun": (False, True)}
    assert entries(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ["org/name", FOLDER])
def test_a_model_is_found_by_its_name_or_its_folder(tmp_path: Path, name: str) -> None:
    shelf_with(tmp_path, MemorySource(NEW))
    assert find(tmp_path, name).path == tmp_path / FOLDER


@pytest.mark.parametrize("name", ["org/other", "", ".", "..", "../shelf", "/", "a\0b"])
def test_a_name_of_nothing_is_not_found_and_leads_nowhere(tmp_path: Path, name: str) -> None:
    shelf = tmp_path / "shelf"
    shelf_with(shelf, MemorySource(NEW))
    (shelf / "config.json").write_text("{}")
    with pytest.raises(ModelFilesMissing):
        find(shelf, name)


def test_a_sound_model_verifies_and_remembers_when(tmp_path: Path) -> None:
    folder = shelf_with(tmp_path, MemorySource(NEW))
    clock = options().clock
    clock.sleep(500.0)
    read: list[str] = []
    assert verify(folder, clock=clock, on_file=lambda record: read.append(record.path)) == []
    manifest = find(tmp_path, FOLDER).manifest
    assert manifest is not None and manifest.verified_at == clock.wall()
    assert read == list(NEW)


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
    source = one_file()
    folder = shelf_with(tmp_path, source)
    damaged(folder, at)
    expected = Damage("model.safetensors", "has other bytes than were published", source.bytes_served)
    [damage] = verify(folder, clock=options().clock)
    assert (damage.path, damage.problem) == (expected.path, expected.problem)
    again = one_file()
    repair(folder, again, options())
    last_block = len(CONTENT) % BLOCK
    assert again.bytes_served == (last_block if at == len(CONTENT) - 1 else BLOCK)
    assert content_of(folder) == again.contents
    assert own_files(folder) == {"manifest.json", "lock"}


@pytest.mark.parametrize("length", [0, 3 * BLOCK, 3 * BLOCK + 7, len(CONTENT) + 9])
def test_a_file_of_another_length_keeps_its_sound_blocks(tmp_path: Path, length: int) -> None:
    folder = shelf_with(tmp_path, one_file())
    path = folder / "model.safetensors"
    path.write_bytes((CONTENT + bytes(9))[:length])
    again = one_file()
    [damage] = repair(folder, again, options())
    assert damage.problem == f"is {length} bytes long, not {len(CONTENT)}"
    n_sound = min(length, len(CONTENT)) // BLOCK * BLOCK
    assert again.bytes_served <= len(CONTENT) - n_sound
    assert content_of(folder) == again.contents


def test_a_missing_file_is_named_and_comes_back(tmp_path: Path) -> None:
    folder = shelf_with(tmp_path, MemorySource(NEW))
    (folder / "config.json").unlink()
    again = MemorySource(NEW)
    assert repair(folder, again, options()) == [Damage("config.json", "is missing", len(NEW["config.json"]))]
    assert {path for path, _, _ in again.requests} == {"config.json"}
    assert content_of(folder) == NEW


def test_a_repair_from_a_wrong_source_is_refused(tmp_path: Path) -> None:
    folder = shelf_with(tmp_path, one_file())
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


def test_a_removed_model_is_gone_and_a_link_to_one_takes_nothing_with_it(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    folder = shelf_with(shelf, MemorySource(NEW))
    (shelf / "link").symlink_to(folder)
    assert remove(find(shelf, "link")) == 0
    assert content_of(folder) == NEW
    assert remove(find(shelf, "org/name")) > sum(map(len, NEW.values()))
    assert list(shelf.iterdir()) == []
