"""A transfer on a terminal, in a log, as JSON, and not at all."""

from __future__ import annotations

import io
import json
import sys

import pytest

from influence.cli.transfer_display import Display, JsonDisplay, LineDisplay, LiveDisplay, display_for
from influence.hub.events import FileDone, Installed, Planned, Progress, Waiting
from support.fake_clock import FakeClock

SHA = "a" * 40
TOTAL = 1_000_000


class Terminal(io.StringIO):
    """Looks like a terminal; `screen` is what a viewer sees of it in the end."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        lines, row = [""], 0
        for piece in self.getvalue().replace("\x1b", "\0\x1b").replace("\n", "\0\n").split("\0"):
            if piece.startswith("\n"):
                row += 1
                lines += [""] * (row + 1 - len(lines))
                lines[row] = piece[1:]
            elif piece.startswith("\x1b[K"):
                assert piece == "\x1b[K"
            elif piece.startswith("\x1b[J"):
                lines[row:] = [piece[3:]]
            elif piece.startswith("\x1b["):
                number, text = piece[2:].split("F", 1)
                row -= int(number)
                assert row >= 0
                lines[row] = text
            else:
                lines[row] = piece.strip("\r")
        return lines


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """From now on stderr is this; not in a fixture, after which pytest puts its own stderr back."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    return made


def progress(done: int) -> Progress:
    return Progress(done, TOTAL, 2, (("model.safetensors", done, TOTAL),))


def test_on_a_terminal_finished_files_stay_and_the_rest_is_erased(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = use_terminal(monkeypatch)
    with display_for(as_json=False, quiet=False, doing="asking") as display:
        assert isinstance(display, LiveDisplay)
        display.event(Planned(2, TOTAL, 0, SHA))
        display.event(progress(500_000))
        display.event(FileDone("config.json", 570))
        shown = terminal.screen()
        assert shown[:2] == ["2 files, 1.0 MB", "config.json  570 bytes"]
        assert shown[2].startswith("model.safetensors") and shown[3].startswith("total")
        display.note("a \x1b[31mmirror")
        assert terminal.screen()[2] == "note: a \\x1b[31mmirror"
    assert terminal.screen() == ["2 files, 1.0 MB", "config.json  570 bytes", "note: a \\x1b[31mmirror", ""]


def test_a_terminal_that_can_not_draw_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    use_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(display_for(as_json=False, quiet=False, doing=""), LineDisplay)


def test_a_terminal_that_is_gone_does_not_end_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)

    def gone(text: str) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(terminal, "write", gone)
    with LiveDisplay("asking") as display:
        display.event(Planned(2, TOTAL, 0, SHA))


def test_without_a_terminal_a_line_comes_each_tenth_or_ten_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = FakeClock()
    with LineDisplay("asking", clock.monotonic) as display:
        display.event(Planned(1, TOTAL, 0, SHA))
        for done in range(0, TOTAL + 1, 1000):
            clock.advance(0.01)
            display.event(progress(done))
        display.event(FileDone("model.safetensors", TOTAL))
        display.event(Installed(1, TOTAL))
    first, *reports, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("1 file, 1.0 MB", "model.safetensors  1.0 MB")
    assert [line.split()[0] for line in reports] == [str(n) for n in range(10, 101, 10)]
    with LineDisplay("asking", clock.monotonic) as display:
        display.event(Planned(1, TOTAL, 0, SHA))
        for _ in range(300):
            clock.advance(0.1)
            display.event(progress(1000))
    assert len(capsys.readouterr().err.splitlines()) == 1 + 3


def test_a_wait_without_a_terminal_is_said_once_and_again_after_ten_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = FakeClock()
    with LineDisplay("asking", clock.monotonic) as display:
        clock.advance(100.0)
        for left in range(15, 0, -1):
            display.wait(float(left), "too many requests")
            clock.advance(1.0)
        display.event(Waiting(None, "another process is downloading"))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "waiting 15 s: too many requests",
        "waiting 5 s: too many requests",
        "waiting: another process is downloading",
    ]


def test_as_json_every_event_is_an_object_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with display_for(as_json=True, quiet=False, doing="asking") as display:
        assert isinstance(display, JsonDisplay)
        display.event(FileDone("config.json", 570))
        display.event(progress(7))
        display.wait(3.0, "busy\nline")
        display.note("we follow")
    said = capsys.readouterr()
    done, moved, waiting, note = map(json.loads, said.out.splitlines())
    assert done == {"event": "file_done", "path": "config.json", "size_bytes": 570}
    assert (moved["event"], moved["done_bytes"]) == ("progress", 7)
    assert waiting == {"event": "waiting", "seconds": 3.0, "reason": "busy\nline"}
    assert note == {"event": "note", "text": "we follow"}
    assert said.err == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with display_for(as_json=False, quiet=True, doing="asking") as display:
        assert type(display) is Display
        display.event(FileDone("config.json", 570))
        display.wait(3.0, "busy")
        display.note("we follow")
    assert capsys.readouterr() == ("", "")
