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
