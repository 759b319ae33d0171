"""What reaches the user's terminal or pipe."""

from __future__ import annotations

import io
import os
import sys

import pytest

from influence.cli import output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_control_characters_are_written_out_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    output.write("a\x1b[2Jb\tc\né\x9b")
    assert sys.stdout.getvalue() == "a\\x1b[2Jb\tc\né\\x9b"


def test_a_pipe_gets_the_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.write("a\x1b[2Jb")
    assert capsys.readouterr().out == "a\x1b[2Jb"


def test_writing_to_a_closed_stdout_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OSError, match="stdout is closed"):
        output.write("text")


def test_a_line_of_text_ends_with_one_newline(capsys: pytest.CaptureFixture[str]) -> None:
    with output.TextLine(shown=True) as line:
        line.add("once")
        line.add("")
        line.add(" upon\n")
    assert capsys.readouterr().out == "once upon\n\n"


def test_a_line_that_an_error_cut_ends_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), output.TextLine(shown=True) as line:
        line.add("once")
        raise ValueError
    assert capsys.readouterr().out == "once\n"


def test_an_error_before_any_text_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), output.TextLine(shown=True):
        raise ValueError
    assert capsys.readouterr().out == ""


def test_no_spinner_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with output.spinner("loading") as spinner:
        assert spinner._thread is None
    assert capsys.readouterr().err == ""


def test_a_spinner_erases_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(output, "_SPINNER_DELAY_S", 0.0)
    spinner = output.Spinner("loading")
    while "loading" not in sys.stderr.getvalue():
        pass
    spinner.stop()
    spinner.stop()
    assert sys.stderr.getvalue().endswith("\r\x1b[K")


def test_a_spinner_is_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that wraps can't be erased."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(output, "terminal_size", lambda _: os.terminal_size((40, 24)))
    monkeypatch.setattr(output, "_SPINNER_DELAY_S", 0.0)
    spinner = output.Spinner("asking")
    spinner.show("\x1b[31m" + "x" * 200)
    while "x" not in sys.stderr.getvalue():
        pass
    spinner.stop()
    frames = sys.stderr.getvalue().split("\r\x1b[K")
    assert max(map(len, frames)) == 39
    assert not any("\x1b" in frame for frame in frames)


@pytest.mark.parametrize(
    ("term", "no_color", "coloured"), [("xterm", None, True), ("dumb", None, False), ("xterm", "1", False)]
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, term: str, no_color: str | None, coloured: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    assert ("\x1b[" in output.emphasized("error:")) is coloured


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_240_000_000, "2.2 GB")]
)
def test_sizes_read_in_decimal_units(n_bytes: int, text: str) -> None:
    assert output.size(n_bytes) == text


def test_columns_align() -> None:
    assert output.columns([("a", "1"), ("long", "22")]) == "a     1\nlong  22"
    assert output.columns([]) == ""


def test_a_note_stands_above_the_spinner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with output.spinner("loading") as spinner:
        spinner.say("note: something")
    assert sys.stderr.getvalue().startswith("\r\x1b[Knote: something\n")


def test_a_note_without_a_terminal_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with output.spinner("loading") as spinner:
        spinner.say("note: something")
    assert capsys.readouterr().err == "note: something\n"


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0 k"), (134_515_008, "134.5 M"), (8_030_261_248, "8.0 B")],
)
def test_a_count_reads_in_thousands(n: int, text: str) -> None:
    assert output.count(n) == text


def test_a_cell_of_a_table_has_no_line_breaks() -> None:
    assert output.one_line("a\nb\t c") == "a b c"
    assert output.one_line("\n") == "'\\n'"
