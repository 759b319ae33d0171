"""Every way a command ends, as text and exit code."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from influence.cli import failure
from influence.errors import InvalidParameter, ModelFilesMissing

MISSING = ModelFilesMissing(Path("models/x"), "there is no config.json", hint="download it again")


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (MISSING, 1),
        (InvalidParameter("temperature", -1, "at least 0"), 2),
        (click.UsageError("no such option"), 2),
        (failure.BadUsage("what", hint="this"), 2),
        (OSError(28, "No space left on device"), 1),
        (MemoryError(), 1),
        (ZeroDivisionError("division by zero"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (SystemExit(143), 143),
        (click.exceptions.Exit(1), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_an_error_has_its_exit_code(error: BaseException, exit_code: int) -> None:
    assert failure.report(error, show_traceback=False) == exit_code


def said(capsys: pytest.CaptureFixture[str], error: BaseException, *, show_traceback: bool = False) -> str:
    failure.report(error, show_traceback=show_traceback)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_an_error_is_told_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, MISSING) == "error: models/x: there is no config.json\nhint: download it again\n"


def test_a_usage_error_points_to_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    context = click.Context(click.Command("doctor"), info_name="influence doctor")
    text = said(capsys, click.UsageError("no such option", ctx=context))
    assert text == "error: no such option\nhint: see `influence doctor --help`\n"


def test_a_bug_is_told_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, ZeroDivisionError("division by zero"))
    assert text.startswith("error: this is a bug in influence: ZeroDivisionError: division by zero\n")
    assert "--traceback" in text
    assert "Traceback (most recent call last)" not in text


def test_a_traceback_comes_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, ZeroDivisionError("division by zero"), show_traceback=True)
    assert text.startswith("ZeroDivisionError: division by zero")


def test_what_a_file_is_called_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = ModelFilesMissing(Path("models/\x1b[2Jx"), "is not there", hint="look at \x07")
    assert "\x1b" not in said(capsys, evil)


def test_being_interrupted_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, KeyboardInterrupt()) == ""


def test_an_operating_system_error_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, PermissionError(13, "Permission denied", "a/b")) == "error: a/b: Permission denied\n"
