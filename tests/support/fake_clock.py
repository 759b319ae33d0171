"""A clock whose seconds cost nothing, and which remembers who slept."""

from __future__ import annotations


class FakeClock:
    """Time passes by `sleep` and `advance` alone; chance always says the same."""

    def __init__(self, *, wall: float = 1_700_000_000.0, chance: float = 0.0) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._wall, self._chance = wall, chance

    def monotonic(self) -> float:
        return self.now

    def processor(self) -> float:
        return 0.0

    def wall(self) -> float:
        return self._wall + self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def chance(self) -> float:
        return self._chance


class SteadyClock:
    """Goes on by the same at each look, so that every step seems to take as long. For one thread at a time."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        self._now_s += 2.0**-20  # whose sums are exact
        return self._now_s
