"""Log lines on stderr that hold up nobody."""

from __future__ import annotations

import logging
import os
import queue
import threading
from contextlib import suppress

_STDERR = 2
_MAX_WAITING = 10_000  # lines of some 100 bytes; a reader so far behind loses the newest
_LAST_WORDS_S = 1.0


class LineHandler(logging.Handler):
    """Writes from a thread of its own: a reader that pauses (a pager, a full pipe) does not pause the server.

    Past the interpreter's own buffer, whose lock would be held while the pipe is full.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._write, name="influence-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self._lines.put_nowait(self.format(record))

    def close(self) -> None:
        """Write what waits, unless nobody reads it for a second."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(_LAST_WORDS_S)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            content = line.encode("utf-8", "backslashreplace") + b"\n"
            with suppress(OSError):  # nobody listens, and nobody is left to be told so
                while content:
                    content = content[os.write(_STDERR, content) :]
