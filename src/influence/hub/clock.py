"""Time, waiting and chance: the one object that all waits of the Hub's client go through."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol

# Told before each second of a wait: how many seconds are left, and why we wait.
OnWait = Callable[[float, str], None]


class Clock(Protocol):
    """What the client asks of time; a test gives one whose seconds cost nothing."""

    def monotonic(self) -> float:
        """Seconds that only grow; their zero means nothing."""

    def processor(self) -> float:
        """Seconds that all threads of this process have kept processors busy."""

    def wall(self) -> float:
        """Seconds since 1970, as other hosts count them."""

    def sleep(self, seconds: float) -> None:
        """Return after so long, or raise to give the whole operation up."""

    def chance(self) -> float:
        """A number in [0, 1), so that many clients do not come back at once."""


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def processor(self) -> float:
        return time.process_time()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def chance(self) -> float:
        return random.random()


def wait(clock: Clock, seconds: float, reason: str, on_wait: OnWait) -> None:
    """Sleep so long in steps of a second, telling `on_wait` before each what is left."""
    end = clock.monotonic() + seconds
    while (left := end - clock.monotonic()) > 0:
        on_wait(left, reason)
        clock.sleep(min(left, 1.0))
