"""What `-m` can name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from influence import demo
from influence.cli.model_path import find_model
from influence.errors import ModelFilesMissing


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
