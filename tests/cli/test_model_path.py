"""What `-m` can name."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from influence import demo
from influence.cli.model_path import find_model, unfinished_note
from influence.errors import ModelFilesMissing
from influence.hub.journal import done_name
from support.downloads import NEW, content_of, fetch, own_files
from support.memory_source import MemorySource


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_demo_is_the_model_that_comes_along(here: Path) -> None:
    (here / "demo").mkdir()
    assert find_model("demo") == demo.folder()
    assert find_model("./demo") == Path("demo")


def test_a_folder_is_itself(here: Path) -> None:
    (here / "mine").mkdir()
    assert find_model("mine") == Path("mine")
    assert find_model(str(here / "mine")) == here / "mine"


def test_a_name_of_the_hub_is_looked_up_among_the_downloaded(here: Path) -> None:
    (here / "models" / "some-org_Model-1.1B").mkdir(parents=True)
    assert find_model("some-org/Model-1.1B") == Path("models/some-org_Model-1.1B")


def test_a_folder_comes_before_a_downloaded_model(here: Path) -> None:
    (here / "models" / "org_name").mkdir(parents=True)
    (here / "org" / "name").mkdir(parents=True)
    assert find_model("org/name") == Path("org/name")


def test_a_link_to_a_folder_is_followed(here: Path) -> None:
    (here / "real").mkdir()
    (here / "link").symlink_to("real")
    assert find_model("link") == Path("link")


@pytest.mark.parametrize("name", ["nowhere", "org/name", "/no/such/folder", "org/../x", "../up", "a/b/c"])
def test_what_is_not_there_is_an_error_that_names_it(here: Path, name: str) -> None:
    with pytest.raises(ModelFilesMissing) as caught:
        find_model(name)
    assert name in caught.value.message
    assert "demo" in caught.value.hint


def test_a_downloaded_model_that_is_missing_says_where_it_was_looked_for(here: Path) -> None:
    with pytest.raises(ModelFilesMissing, match="models/org_name"):
        find_model("org/name")


def test_a_file_and_a_pipe_are_no_folders(here: Path) -> None:
    (here / "file").write_text("x")
    os.mkfifo(here / "pipe")
    for name in ("file", "pipe"):
        with pytest.raises(ModelFilesMissing, match="not a folder"):
            find_model(name)


def begun(folder: Path) -> Path:
    """A folder into which a download was begun."""
    (folder / ".influence" / "parts").mkdir(parents=True)
    (folder / ".influence" / "parts" / "x.part").write_bytes(b"")
    return folder


def test_a_download_that_has_hardly_begun_is_no_model_and_says_how_to_go_on(here: Path) -> None:
    begun(Path("models/org_name"))
    with pytest.raises(ModelFilesMissing, match="not complete") as caught:
        find_model("org/name")
    assert "influence download" in caught.value.hint


def test_what_was_there_before_an_unfinished_download_is_used_and_said(here: Path) -> None:
    folder = begun(Path("models/org_name"))
    (folder / "config.json").write_text("{}")
    assert find_model("org/name") == folder
    assert "what was there before is used" in unfinished_note(folder)
    (here / "mine").mkdir()
    assert unfinished_note(here / "mine") == ""


def test_a_download_that_only_lacked_its_names_is_made_good(here: Path) -> None:
    folder = Path("models/org_name")
    fetch(MemorySource(NEW), folder)
    (folder / ".influence" / "manifest.json").rename(folder / ".influence" / "pending.json")
    name = done_name("config.json", hashlib.sha256(NEW["config.json"]).hexdigest())
    (folder / ".influence" / "parts").mkdir(exist_ok=True)
    (folder / "config.json").rename(folder / name)
    assert find_model("org/name") == folder
    assert content_of(folder) == NEW
    assert own_files(folder) == {"manifest.json", "lock"}
