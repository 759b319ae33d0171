"""How many connections help: decided from the last moments alone, without a clock.

    climbing   doubled as long as the speed grows by a quarter
    falling    where more were slower, or after a rest: halved as long as nothing is lost;
               straight to one where the processors are the limit, as on a very fast line
    settled    left alone; after a rest one step up or down is tried, in turn, and the
               next rest is longer if that was in vain, but short if the speed slumps

A host that asks us to wait, and many failed tries, halve the number at once.
"""

from __future__ import annotations

from typing import Literal

from influence.dataclass import dataclass

_FIRST = 4
_GAIN = 1.25  # the least that a doubling must bring
_LOSS = 0.95  # the most that a halving may leave away
_BUSY_LOSS = 0.5  # the same where the processors are the limit: what outran the hash has yet to be paid for
_PATIENCE = 2  # moments that a new number gets at least to show itself
_SLOW_START = 12  # and at most, while connections are opening or becoming faster
_GROWTH = 1.05  # from one moment to the next
_SLUMP = 0.5  # of the speed once settled at: the line is another one now
_FIRST_REST, _LONGEST_REST = 10, 120  # settled moments before the next attempt


@dataclass(frozen=True)
class Moment:
    """What the connections did in the last stretch of time."""

    bytes_per_s: float
    n_flowing: int  # connections that carried something
    n_failed: int = 0  # tries
    was_limited: bool = False  # whether the host asked us to wait
    is_busy: bool = False  # whether we need so much of the processors that they may be the limit


class Tuner:
    """Call `observe` after every `moment_s`; `n_connections` is how many may work in the next one."""

    def __init__(self, most: int) -> None:
        self.n_connections = min(_FIRST, most)
        self._most = most
        self._stage: Literal["climbing", "falling", "settled"] = "climbing"
        self._best, self._n_best = 0.0, self.n_connections  # bytes/s, and with how many
        self._n_moments, self._last = 0, 0.0  # with this number; bytes/s of the last
        self._rest, self._next_is_up = _FIRST_REST, True
        self._n_settled = 0  # the number of the last rest

    @property
    def moment_s(self) -> float:
        """How long to look before the next call: short while much is to be won by being quick."""
        return 1.0 if self._stage == "settled" else 0.125

    def observe(self, moment: Moment) -> None:
        self._n_moments += 1
        if moment.was_limited or moment.n_failed >= max(self.n_connections // 2, 2):
            self._settle(max(self.n_connections // 2, 1), 0.0)
        elif not moment.bytes_per_s:
            return
        elif self._stage == "climbing":
            self._climb(moment)
        elif self._stage == "falling":
            self._fall(moment)
        else:
            self._stay(moment.bytes_per_s)
        self._last = moment.bytes_per_s

    def _climb(self, moment: Moment) -> None:
        is_opening = moment.n_flowing < self.n_connections or not (self._last or moment.is_busy)
        is_growing = moment.bytes_per_s > self._last * _GROWTH
        if moment.bytes_per_s >= self._best * _GAIN and not is_opening:
            self._best, self._n_best = moment.bytes_per_s, self.n_connections
            if moment.is_busy and self.n_connections > 1:
                self._stage = "falling"
                self._try(1)
            else:
                self._step_up()
        elif self._n_moments < (_SLOW_START if is_opening or is_growing else _PATIENCE):
            return
        elif moment.bytes_per_s < self._best * _LOSS and self._n_best > 1:
            self._stage = "falling"
            self._try(self._n_best // 2)
        else:
            self._settle(self._n_best, self._best)

    def _fall(self, moment: Moment) -> None:
        if moment.n_flowing > self.n_connections:  # some have not left yet
            return
        if moment.bytes_per_s >= self._best * (_BUSY_LOSS if moment.is_busy else _LOSS):
            self._best, self._n_best = max(moment.bytes_per_s, self._best), self.n_connections
            self._step_down()
        elif self._n_moments >= _PATIENCE:
            self._settle(self._n_best, self._best)

    def _stay(self, bytes_per_s: float) -> None:
        slumped = bytes_per_s < self._best * _SLUMP
        self._next_is_up = self._next_is_up or slumped
        if self._n_moments >= (_FIRST_REST if slumped else self._rest):
            self._look_around(bytes_per_s)

    def _look_around(self, bytes_per_s: float) -> None:
        """The line may have changed since: try one step further."""
        self._best, self._n_best = bytes_per_s, self.n_connections
        goes_up, self._next_is_up = self._next_is_up, not self._next_is_up
        if goes_up and self.n_connections < self._most:
            self._stage = "climbing"
            self._step_up()
        else:
            self._stage = "falling"
            self._step_down()

    def _step_up(self) -> None:
        if self.n_connections == self._most:
            self._settle(self._most, self._best)
        else:
            self._try(min(2 * self.n_connections, self._most))

    def _step_down(self) -> None:
        if self.n_connections == 1:
            self._settle(1, self._best)
        else:
            self._try(self.n_connections // 2)

    def _try(self, n_connections: int) -> None:
        self.n_connections, self._n_moments = n_connections, 0

    def _settle(self, n_connections: int, bytes_per_s: float) -> None:
        self._stage, self._best, self._n_best = "settled", bytes_per_s, n_connections
        was_in_vain = n_connections == self._n_settled
        self._rest = min(2 * self._rest, _LONGEST_REST) if was_in_vain else _FIRST_REST
        self._n_settled = n_connections
        self._try(n_connections)
