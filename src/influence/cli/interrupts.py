"""Ctrl-C and SIGTERM while a reply streams: the reply ends in order, with what there is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from influence.generation.events import Stream

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether a signal came, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def exit_code(self) -> int:
        return 128 + self.signal if self.signal is not None else 0


@contextmanager
def cancelling(stream: Stream) -> Iterator[Interruption]:
    """The first signal cancels `stream`, so that its last event comes; a second one acts as ever.

    For the main thread, which alone may set handlers.
    """
    interruption = Interruption()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def cancel(number: int, frame: FrameType | None) -> None:
        interruption.signal = number
        restore()
        stream.cancel()

    for number in _SIGNALS:
        signal.signal(number, cancel)
    try:
        yield interruption
    finally:
        restore()
