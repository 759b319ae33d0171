"""What a transfer has come to: its events added up, and the lines that show it.

Knows no terminal: `lines` is told how wide one is, `report` is a line for none.
"""

from __future__ import annotations

import unicodedata
from collections import deque

from influence.cli.output import duration, one_line, size, visible
from influence.hub.events import (
    Event,
    FileDone,
    Installed,
    Planned,
    Progress,
    Reading,
    Restarted,
    Retrying,
    Unverified,
    Waiting,
)

_MAX_FILE_LINES = 8
_MIN_BAR_CELLS, _MAX_BAR_CELLS = 8, 24
_MAX_NAME_CELLS = 40
# What stands beside a name and its bar: the share, and at most "101.1 GB of 120.2 GB, checking its hash",
# and for the total "101.1 GB of 120.2 GB  38.2 MB/s  58 min 12 s left  16 connections".
_SHARE_CELLS = len("    7 %  ")
_FILE_CELLS, _TOTAL_CELLS = 41, 68
_MAX_LEFT_S = 100 * 3600.0  # a longer time would say only that nothing is known
_WAIT_SHOWN_S = 1.5  # a wait is told anew each second; one that is not is over


class Speed:
    """Bytes per second over the last quarter of a minute; bytes come in blocks, so less would jump."""

    _WINDOW_S = 15.0
    _LEAST_S = 0.5  # over less, it is chance

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, now: float, n_bytes: int) -> None:
        """So many bytes are there now, of which none came before the first call."""
        if not self._samples or n_bytes != self._samples[-1][1]:
            self._samples.append((now, n_bytes))
        while len(self._samples) > 2 and self._samples[1][0] < now - self._WINDOW_S:
            self._samples.popleft()

    def at(self, now: float) -> float:
        """0 while nothing is known."""
        if len(self._samples) < 2:
            return 0.0
        (began, before), (_, after) = self._samples[0], self._samples[-1]
        return (after - before) / (now - began) if now - began >= self._LEAST_S else 0.0


class TransferState:
    """One transfer; `now` is always a monotonic time in seconds."""

    def __init__(self, doing: str) -> None:
        self.doing = doing  # while no bytes are counted
        self.done_bytes = 0
        self.total_bytes = 0
        self._files: tuple[tuple[str, int, int], ...] = ()
        self._n_connections = 0
        self._waiting = ("", 0.0)  # text, and when it was told
        self._speed = Speed()

    @property
    def is_counting(self) -> bool:
        return self.total_bytes > 0

    def take(self, event: Event, now: float) -> str:
        """Add an event; a line that is worth keeping, "" if it is not."""
        match event:
            case Planned():
                self._begin(event.kept_bytes, event.total_bytes, now)
                return _plan(event)
            case Progress():
                self._advance(event.done_bytes, event.total_bytes, now)
                self._files, self._n_connections = event.files, event.n_connections
            case Reading():
                if not self.is_counting or event.total_bytes != self.total_bytes:
                    self._begin(0, event.total_bytes, now)
                self._advance(event.done_bytes, event.total_bytes, now)
                self.doing = f"reading {_shown(event.path)}"
            case Waiting(seconds=seconds, reason=reason):
                until = "" if seconds is None else f" {max(round(seconds), 1)} s"
                self._waiting = (f"waiting{until}: {_shown(reason)}", now)
            case Retrying():
                self._waiting = (f"again, try {event.n_failed + 1}: {_shown(event.reason)}", now)
            case FileDone():
                return f"{_shown(event.path)}  {size(event.size_bytes)}"
            case Restarted():
                return f"{_shown(event.path)} came damaged: it comes again"
            case Unverified():
                return f"note: nobody tells a hash of {_shown(event.path)}: only its size can be checked"
            case Installed():
                self.total_bytes = 0
        return ""

    def _begin(self, done_bytes: int, total_bytes: int, now: float) -> None:
        self._speed = Speed()
        self._files = ()
        self._advance(done_bytes, total_bytes, now)

    def _advance(self, done_bytes: int, total_bytes: int, now: float) -> None:
        self.done_bytes, self.total_bytes = done_bytes, total_bytes
        self._speed.note(now, done_bytes)

    def waiting(self, now: float) -> str:
        """What keeps everything waiting, "" if nothing does."""
        text, told = self._waiting
        return text if text and now - told < _WAIT_SHOWN_S else ""

    @property
    def percent(self) -> int:
        """Rounded down: 100 is all."""
        return 100 * self.done_bytes // max(self.total_bytes, 1)

    def report(self, now: float) -> str:
        """All of it in one line."""
        if not self.is_counting:
            return self.waiting(now) or self.doing
        return ", ".join([f"{self.percent} %", *self._facts(now)])

    def _facts(self, now: float) -> list[str]:
        facts = [f"{size(self.done_bytes)} of {size(self.total_bytes)}"]
        speed = self._speed.at(now)
        left_bytes = self.total_bytes - self.done_bytes
        if speed and left_bytes:
            facts.append(f"{size(round(speed))}/s")
            if left_bytes < speed * _MAX_LEFT_S:
                facts.append(f"{duration(left_bytes / speed)} left")
        if self._n_connections and left_bytes:
            facts.append(f"{self._n_connections} connection{'s' if self._n_connections > 1 else ''}")
        return facts

    def lines(self, now: float, n_columns: int) -> list[str]:
        """All of it, a line for each file under way; none is wider than the terminal."""
        found = self._bars(now, n_columns) if self.is_counting else [self.doing]
        if waiting := self.waiting(now):
            found.append(waiting)
        return [clipped(line, n_columns - 1) for line in found]

    def _bars(self, now: float, n_columns: int) -> list[str]:
        """The total's bar is under the files' where there is room, and else gives way to its numbers."""
        files = [(_shown(path), done, total) for path, done, total in self._files[:_MAX_FILE_LINES]]
        widest = max((cells(name) for name, _, _ in files), default=0)
        width = max(min(widest, _MAX_NAME_CELLS, n_columns - _SHARE_CELLS - _FILE_CELLS), len("total"))
        n_total_bar = _bar_cells(n_columns - width - _TOTAL_CELLS)
        n_bar = n_total_bar or _bar_cells(n_columns - width - _FILE_CELLS)
        lines = [
            f"{_padded(clipped(name, width), width)}  {_bar(done, total, n_bar)}  {_file_state(done, total)}"
            for name, done, total in files
        ]
        if len(self._files) > len(files):
            lines.append(f"and {len(self._files) - len(files)} files more")
        name = _padded("total", width) if n_total_bar else "total"
        total_bar = _bar(self.done_bytes, self.total_bytes, n_total_bar)
        return [*lines, "  ".join([name, total_bar, *self._facts(now)])]


def _bar_cells(n_free: int) -> int:
    """How long a bar may be where it and the share have so many columns; 0 for none."""
    n_bar = n_free - _SHARE_CELLS
    return min(n_bar, _MAX_BAR_CELLS) if n_bar >= _MIN_BAR_CELLS else 0


def _shown(text: str) -> str:
    """What hosts and files say, on one line and without effect."""
    return visible(one_line(text))


def _plan(event: Planned) -> str:
    n_files = f"{event.n_files} file{'s' if event.n_files > 1 else ''}"
    kept = f", of which {size(event.kept_bytes)} are here" if event.kept_bytes else ""
    return f"{n_files}, {size(event.total_bytes)}{kept}"


def _file_state(done_bytes: int, total_bytes: int) -> str:
    if done_bytes >= total_bytes:
        return f"{size(total_bytes)}, checking its hash"
    return f"{size(done_bytes)} of {size(total_bytes)}"


def _bar(done: int, total: int, n_cells: int) -> str:
    """A bar of so many columns, and the share, rounded down."""
    n_full = n_cells * done // max(total, 1)
    bar = f"{'━' * n_full}{'─' * (n_cells - n_full)} " if n_cells else ""
    return f"{bar}{100 * done // max(total, 1):>3} %"


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(_cell(character) for character in text)


def _cell(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clipped(text: str, n_cells: int) -> str:
    """The text, or its beginning and end around "…", in at most `n_cells` columns."""
    if cells(text) <= n_cells:
        return text
    tail = text[-(n_cells // 3) :] if n_cells > 30 else ""
    head = ""
    for character in text:
        if cells(head) + _cell(character) + 1 + cells(tail) > n_cells:
            break
        head += character
    return f"{head}…{tail}"[: max(n_cells, 0)]


def _padded(text: str, n_cells: int) -> str:
    return text + " " * (n_cells - cells(text))
