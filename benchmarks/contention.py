"""How much of the processors went to anybody else while we measured.

Engines whose threads wait for each other by spinning lose many times what a
neighbour takes, since a thread that waits keeps the core from the one it waits
for. Ratios of a busy machine are therefore not ratios of the engines.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil

# Above this the numbers of a case are marked: two idle desktops stay below.
NOTABLE = 0.03


@dataclass(frozen=True, slots=True)
class Moment:
    """CPU seconds spent so far."""

    wall_s: float
    by_all_s: float  # everything that was not idle, and what a hypervisor gave to others
    by_us_s: float  # this process and its children

    @classmethod
    def now(cls) -> Moment:
        times = psutil.cpu_times()
        waiting = times.idle + getattr(times, "iowait", 0.0)
        # On Linux a guest's time is part of user time: counted once.
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return cls(time.monotonic(), sum(times) - waiting - guest, _tree_s())


def share_of_others(before: Moment, after: Moment) -> float:
    """The part of all processors' time, 0 to 1, that other programs had in between."""
    capacity = (after.wall_s - before.wall_s) * (os.cpu_count() or 1)
    others = (after.by_all_s - before.by_all_s) - (after.by_us_s - before.by_us_s)
    return min(max(others / capacity, 0.0), 1.0)


def _tree_s() -> float:
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return float(sum(spent.user + spent.system for spent in times))
