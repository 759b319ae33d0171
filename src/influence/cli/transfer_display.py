"""How a transfer is shown while it runs, by where it is shown.

    with display_for(as_json=False, quiet=False, doing="asking hf-mirror.com") as display:
        download(..., on_event=display.event)

a terminal    lines at the bottom that are drawn anew; finished files stay above them
none          a line for each finished file, and now and then one for the whole
--json        the events themselves, one object a line, on stdout
--quiet       nothing
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from influence.cli import output
from influence.cli.transfer_state import TransferState
from influence.hub.events import Event, Installed, Planned, Progress, Reading, Waiting

if TYPE_CHECKING:
    from types import TracebackType

_FRAME_S = 0.125
_MIN_REPORT_S, _MAX_REPORT_S = 0.5, 10.0
_REPORT_PERCENT = 10
Clock = Callable[[], float]


class Display:
    """Shows nothing; what the others have in common. Used from one thread, notes aside."""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """What is drawn is erased; what was told stays."""

    def doing(self, text: str) -> None:
        """What goes on while no event comes."""

    def event(self, event: Event) -> None:
        """What happens."""

    def wait(self, seconds: float, reason: str) -> None:
        """A wait of the client, as it tells it before each second."""
        self.event(Waiting(seconds, reason))

    def tell(self, text: str) -> None:
        """A line that stays."""

    def note(self, text: str) -> None:
        """What the user should know, though nothing is wrong; from any thread."""
        self.tell(f"note: {output.visible(text)}")


class JsonDisplay(Display):
    """{"event": "file_done", "path": "config.json", "size_bytes": 570}"""

    def event(self, event: Event) -> None:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
        write_line({"event": name, **asdict(event)})

    def tell(self, text: str) -> None:
        write_line({"event": "note", "text": text})

    def note(self, text: str) -> None:
        self.tell(text)


def write_line(record: dict[str, object]) -> None:
    """One JSON object on a line of its own, on stdout."""
    output.write(json.dumps(record, ensure_ascii=False) + "\n")


class LineDisplay(Display):
    """Whole lines on stderr, for a log: each tenth of the way, or after 10 s."""

    def __init__(self, doing: str, clock: Clock = time.monotonic) -> None:
        self._state, self._clock = TransferState(doing), clock
        self._told_at, self._told_tenth = self._clock(), 0
        self._told_reason = ""

    def doing(self, text: str) -> None:
        self._state.doing = text

    def event(self, event: Event) -> None:
        now = self._clock()
        kept = self._state.take(event, now)
        if kept:
            self.tell(kept)
        match event:
            case Planned() | Installed():
                self._told_at, self._told_tenth = now, self._tenth
            case Waiting(reason=reason):
                self._wait_told(reason, now)
            case Progress() | Reading() if self._is_due(now):
                self._told_at, self._told_tenth = now, self._tenth
                self.tell(self._state.report(now))

    @property
    def _tenth(self) -> int:
        return self._state.percent // _REPORT_PERCENT

    def _is_due(self, now: float) -> bool:
        since_s = now - self._told_at
        return since_s >= (_MIN_REPORT_S if self._tenth > self._told_tenth else _MAX_REPORT_S)

    def _wait_told(self, reason: str, now: float) -> None:
        if reason != self._told_reason or now - self._told_at >= _MAX_REPORT_S:
            self._told_reason, self._told_at = reason, now
            self.tell(self._state.waiting(now))

    def tell(self, text: str) -> None:
        output.say(text)


class LiveDisplay(Display):
    """Lines at the bottom of a terminal, drawn by a thread, so that time goes on where no event comes."""

    def __init__(self, doing: str, clock: Clock = time.monotonic) -> None:
        self._state, self._clock = TransferState(doing), clock
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._n_drawn = 0

    def __enter__(self) -> LiveDisplay:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._put([], [])

    def doing(self, text: str) -> None:
        with self._lock:
            self._state.doing = text

    def event(self, event: Event) -> None:
        now = self._clock()
        with self._lock:
            kept = self._state.take(event, now)
        if kept:
            self.tell(kept)

    def tell(self, text: str) -> None:
        self._draw(text)

    def _run(self) -> None:
        while not self._stopped.wait(_FRAME_S):
            self._draw()

    def _draw(self, kept: str = "") -> None:
        terminal = output.terminal_size(sys.stderr)
        with self._lock:
            lines = self._state.lines(self._clock(), terminal.columns)
            self._put([kept] if kept else [], lines[1 - terminal.lines :])

    def _put(self, kept: list[str], lines: list[str]) -> None:
        """Over what was drawn last: lines that stay, and below them those that are drawn over next time."""
        up = f"\x1b[{self._n_drawn}F" if self._n_drawn else "\r"
        text = up + "".join(f"{line}\x1b[K\n" for line in [*kept, *lines]) + "\x1b[J"
        self._n_drawn = len(lines)
        with suppress(OSError):  # a terminal that is gone shows nothing
            sys.stderr.write(text)
            sys.stderr.flush()


def display_for(*, as_json: bool, quiet: bool, doing: str) -> Display:
    """The display for these options and this stderr."""
    if as_json:
        return JsonDisplay()
    if quiet:
        return Display()
    return LiveDisplay(doing) if output.shows_escapes(sys.stderr) else LineDisplay(doing)
