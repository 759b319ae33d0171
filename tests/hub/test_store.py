"""The shelf shows what is there, finds what is damaged, and mends just that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from influence.errors import DownloadFailed, ModelFilesMissing, WriteFailed
from influence.hub.store import bytes_here, check_free, entries, find, remove, strangers
from support.downloads import NEW, content_of, fetch, listing
from support.memory_source import MemorySource, MemoryStream, cut_after

FOLDER = "org_name"


def whole(stream: MemoryStream) -> Iterator[bytes]:
    yield stream.data


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
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "file").write_text("")
    found = {entry.name: (entry.manifest is not None, entry.is_partial) for entry in entries(tmp_path)}
    assert found == {
        "org/name": (True, False),
        "mine": (False, False),
        "no model": (False, False),
        "begun": (False, True),
    }
    assert [entry.name for entry in entries(tmp_path) if entry.is_only_begun] == ["begun"]
    assert entries(tmp_path / "nowhere") == []


def test_a_download_that_was_hardly_begun_has_brought_nothing_whatever_its_notes_take(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed):
        fetch(MemorySource(NEW, *[cut_after(0)] * 100), tmp_path / "begun")
    (begun,) = entries(tmp_path)
    assert begun.size_bytes > 0
    assert begun.received_bytes == 0


def test_what_a_download_has_brought_counts_where_it_waits_for_its_name_too(tmp_path: Path) -> None:
    files = {"a.bin": bytes(range(256)) * 64, "b.bin": b"x"}
    with pytest.raises(DownloadFailed):
        fetch(MemorySource(files, whole, *[cut_after(0)] * 100), tmp_path / "begun", connections=1)
    (begun,) = entries(tmp_path)
    assert begun.received_bytes == len(files["a.bin"])


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


def test_a_removed_model_is_gone_and_a_link_to_one_takes_nothing_with_it(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    folder = shelf_with(shelf, MemorySource(NEW))
    (shelf / "link").symlink_to(folder)
    assert remove(find(shelf, "link")) == 0
    assert content_of(folder) == NEW
    assert remove(find(shelf, "org/name")) > sum(map(len, NEW.values()))
    assert list(shelf.iterdir()) == []


def test_files_that_did_not_come_with_a_model_are_known(tmp_path: Path) -> None:
    folder = shelf_with(tmp_path, MemorySource(NEW))
    assert strangers(find(tmp_path, FOLDER)) == []
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("x")
    assert strangers(find(tmp_path, FOLDER)) == ["notes/mine.txt"]


def test_a_folder_of_another_model_is_not_free(tmp_path: Path) -> None:
    folder = shelf_with(tmp_path, MemorySource(NEW))
    check_free(folder, "org/name", [])
    check_free(tmp_path / "nowhere", "org/name", listing(NEW))
    with pytest.raises(WriteFailed, match="another model, org/name"):
        check_free(folder, "org_na/me", [])


def test_a_users_own_file_is_not_replaced_but_the_published_one_is_welcome(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(NEW["config.json"])
    (tmp_path / "notes.txt").write_text("mine")
    check_free(tmp_path, "org/name", listing(NEW))
    (tmp_path / "config.json").write_bytes(b'{"a": 2}')
    with pytest.raises(WriteFailed, match=r"config\.json: is not the file"):
        check_free(tmp_path, "org/name", listing(NEW))
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(WriteFailed, match=r"config\.json: is not the file"):
        check_free(tmp_path, "org/name", listing(NEW))


def test_what_is_here_counts_while_it_is_as_it_was_verified(tmp_path: Path) -> None:
    folder = shelf_with(tmp_path, MemorySource(NEW))
    total = sum(map(len, NEW.values()))
    assert bytes_here(folder, listing(NEW)) == total
    (folder / "config.json").write_bytes(b'{"a": 22}')
    assert bytes_here(folder, listing(NEW)) == total - len(NEW["config.json"])
    assert bytes_here(tmp_path / "nowhere", listing(NEW)) == 0
