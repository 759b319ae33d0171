"""Which tokens a sequence has, and how often it generated each: what penalties depend on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influence.generation.token_ids import Ids

Numbers = npt.NDArray[np.int64]


class TokenCounts:
    """Arrays for a Draw, which grow as tokens come."""

    def __init__(self, prompt: Ids) -> None:
        self.prompt_ids: Numbers = np.unique(np.asarray(prompt, np.int64))
        self._slots: dict[int, int] = {}  # token id -> its place in both arrays
        self._ids = np.zeros(64, np.int64)
        self._counts = np.zeros(64, np.int64)

    @property
    def ids(self) -> Numbers:
        """The distinct ids generated so far."""
        return self._ids[: len(self._slots)]

    @property
    def counts(self) -> Numbers:
        """How often each of them was."""
        return self._counts[: len(self._slots)]

    def add(self, token_id: int) -> None:
        slot = self._slots.setdefault(token_id, len(self._slots))
        if slot == self._ids.size:
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[slot] = token_id
        self._counts[slot] += 1
