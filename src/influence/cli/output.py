"""What goes to the user: data to stdout, everything said along the way to stderr.

Without a terminal there is no colour and no animation. On a terminal, control
characters that a model (or a file) made up are shown, never obeyed.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, TextIO

# All of C0 and C1 but tab and newline.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
# A wait shorter than this shows nothing: a flash of text is noise.
_SPINNER_DELAY_S = 0.3
_SPINNER_PERIOD_S = 0.1
_ERASE_LINE = "\r\x1b[K"


def prepare_streams() -> None:
    """Make every character printable: text is UTF-8 unless a terminal says otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def write(text: str) -> None:
    """Put data on stdout, at once. Raises OSError where it can't be written."""
    if sys.stdout is None:
        raise OSError("stdout is closed: there is nowhere to write to")
    sys.stdout.write(visible(text) if is_terminal(sys.stdout) else text)
    sys.stdout.flush()


class TextLine:
    """Text that grows on stdout; the end of the block ends it with one newline.

    Nothing is written at all where an error comes before any text, or `shown` is false.
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._begun = False

    def add(self, text: str) -> None:
        if self._shown and text:
            self._begun = True
            write(text)

    def __enter__(self) -> TextLine:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        if self._shown and (self._begun or exc_type is None):
            write("\n")


def write_json(data: Any) -> None:
    """Put one JSON document on stdout."""
    import json

    write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def say(text: str) -> None:
    """Tell the user something beside the data, on stderr."""
    if sys.stderr is not None:
        with suppress(OSError):  # nobody listens, and nobody is left to be told so
            print(text, file=sys.stderr, flush=True)


def discard_the_rest() -> None:
    """Let the interpreter's last flush of stdout go nowhere: the reader has left."""
    if sys.stdout is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def visible(text: str) -> str:
    """`text` with control characters written out, so that a terminal does not act on them."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def emphasized(text: str) -> str:
    """`text` in red for a terminal that shows colour."""
    return f"\x1b[31m{text}\x1b[0m" if shows_escapes(sys.stderr) and "NO_COLOR" not in os.environ else text


def shows_escapes(stream: TextIO | None) -> bool:
    """Whether lines on it can be erased and drawn again."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") != "dumb"


def terminal_size(stream: TextIO | None) -> os.terminal_size:
    """Columns and lines of the terminal that a stream is; 80 by 24 if it is none, or does not say."""
    with suppress(OSError, ValueError):
        found = os.get_terminal_size(stream.fileno()) if stream is not None else None
        if found and found.columns and found.lines:
            return found
    return os.terminal_size((80, 24))


def size(n_bytes: int) -> str:
    """A number of bytes for people, in decimal units: "2.2 GB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes} byte{'' if n_bytes == 1 else 's'}"


def count(n: int) -> str:
    """A large number for people: "1.1 B", "135.0 M"."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return str(n)


def duration(seconds: float) -> str:
    """A time for people: "0.4 s", "12 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, smaller, scale in (("h", "min", 3600), ("min", "s", 60)):
        if whole >= scale:
            rest = whole % scale * 60 // scale
            return f"{whole // scale} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def one_line(text: str) -> str:
    """`text` without line breaks and tabs, which would tear a table."""
    return " ".join(text.split()) if text.strip() else repr(text)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text with aligned columns; the last column is as long as it is."""
    if not rows:
        return ""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


class Spinner:
    """A line on stderr that turns while the user waits; nothing where there is no terminal."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        if shows_escapes(sys.stderr):
            self._thread = threading.Thread(target=self._turn, daemon=True)
            self._thread.start()

    @property
    def is_shown(self) -> bool:
        return self._thread is not None

    def show(self, text: str) -> None:
        """Turn beside another text from now on."""
        self._text = visible(text)

    def say(self, text: str) -> None:
        """Tell the user something on a line of its own, above the spinner's."""
        say(f"{_ERASE_LINE}{text}" if self._thread is not None else text)

    def stop(self) -> None:
        """Erase the line. Stopping twice is allowed."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _turn(self) -> None:
        turn = 0
        pause_s = _SPINNER_DELAY_S
        while not self._stopped.wait(pause_s):
            # A line that wraps could not be erased.
            text = self._text[: terminal_size(sys.stderr).columns - 3]
            sign = _SPINNER[turn % len(_SPINNER)]
            print(f"{_ERASE_LINE}{sign} {text}", end="", file=sys.stderr, flush=True)
            turn += 1
            pause_s = _SPINNER_PERIOD_S
        if turn:
            print(_ERASE_LINE, end="", file=sys.stderr, flush=True)


@contextmanager
def spinner(text: str) -> Iterator[Spinner]:
    """Show a spinner until the block ends or stops it."""
    shown = Spinner(text)
    try:
        yield shown
    finally:
        shown.stop()
