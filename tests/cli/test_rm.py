"""`influence rm`: it asks, says what goes, and touches nothing outside of the shelf."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cli import Outcome
from support.downloads import NEW, fetch
from support.memory_source import MemorySource

Run = Callable[..., Outcome]
FOLDER = Path("models/org_name")


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shelf with one downloaded model."""
    monkeypatch.chdir(tmp_path)
    fetch(MemorySource(NEW), FOLDER)
    return tmp_path / "models"


class Keyboard(io.StringIO):
    """Somebody who types an answer."""

    def isatty(self) -> bool:
        return True


def answering(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(sys, "stdin", Keyboard(f"{answer}\n"))


@pytest.mark.parametrize("named", ["org/name", "org_name", "models/org_name", "./models/org_name/"])
def test_a_model_is_removed_by_any_of_its_names(influence: Run, shelf: Path, named: str) -> None:
    outcome = influence("rm", named, "--yes")
    assert outcome.exit_code == 0
    assert "org/name at aaaaaaaaaaaa" in outcome.stderr
    assert "are free again" in outcome.stderr
    assert list(shelf.iterdir()) == []


@pytest.mark.parametrize(("answer", "code", "stays"), [("y", 0, False), ("n", 1, True), ("", 1, True)])
def test_it_asks_and_does_as_it_is_told(
    influence: Run, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, stays: bool
) -> None:
    answering(monkeypatch, answer)
    outcome = influence("rm", "org/name")
    assert (outcome.exit_code, FOLDER.exists()) == (code, stays)
    assert outcome.stdout == ""
    assert ("nothing was removed" in outcome.stderr) == stays


def test_where_nobody_can_be_asked_it_needs_the_yes(influence: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    outcome = influence("rm", "org/name")
    assert (outcome.exit_code, FOLDER.exists()) == (2, True)
    assert "hint: without a terminal, give --yes" in outcome.stderr


def test_what_nobody_can_give_back_is_said(influence: Run, shelf: Path) -> None:
    (FOLDER / "my notes.txt").write_text("x")
    assert "what was not downloaded: my notes.txt" in influence("rm", "org/name", "--yes").stderr
    (shelf / "mine").mkdir()
    (shelf / "mine" / "model.safetensors").write_bytes(b"x")
    outcome = influence("rm", "mine", "--yes")
    assert outcome.exit_code == 0
    assert "influence did not download it" in outcome.stderr


def test_the_beginning_of_a_download_can_be_removed(influence: Run, shelf: Path) -> None:
    (shelf / "org_begun" / ".influence" / "parts").mkdir(parents=True)
    (shelf / "org_begun" / ".influence" / "parts" / "x.part").write_bytes(b"x")
    outcome = influence("rm", "org/begun", "--yes")
    assert (outcome.exit_code, "not complete" in outcome.stderr) == (0, True)
    assert not (shelf / "org_begun").exists()


@pytest.mark.parametrize(
    "named", ["org/other", "nowhere", "", ".", "..", "models", "models/", "/", "outside", "models/../outside"]
)
def test_what_is_not_on_the_shelf_is_refused(influence: Run, shelf: Path, named: str) -> None:
    outside = shelf.parent / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    outcome = influence("rm", named, "--yes")
    assert outcome.exit_code == 1
    assert "there is no model" in outcome.stderr and "hint: " in outcome.stderr
    assert (outside / "config.json").exists() and FOLDER.exists()


def test_a_link_out_of_the_shelf_is_refused_and_one_within_goes_alone(influence: Run, shelf: Path) -> None:
    outside = shelf.parent / "outside"
    outside.mkdir()
    (shelf / "away").symlink_to(outside)
    (shelf / "alias").symlink_to("org_name")
    outcome = influence("rm", "away", "--yes")
    assert (outcome.exit_code, (shelf / "away").is_symlink()) == (1, True)
    assert f"a link to {outside}" in outcome.stderr
    outcome = influence("rm", "alias", "--yes")
    assert (outcome.exit_code, (shelf / "alias").is_symlink(), FOLDER.exists()) == (0, False, True)
