"""What can be told of a generator at work, for metrics and for a watchdog."""

from __future__ import annotations

from collections import deque

from influence.dataclass import dataclass

# A refused client is told to come back after this long at least and at most, and where nothing is known.
RETRY_LEAST_S, RETRY_MOST_S, RETRY_UNKNOWN_S = 1.0, 60.0, 5.0
# Ends of requests that the rate is taken from: enough to smooth, few enough to follow the load.
_RECENT_ENDS = 32


@dataclass(frozen=True)
class LoopFacts:
    """The loop after its last step. Totals count from its beginning."""

    n_running: int  # admitted, and not ended
    n_waiting: int  # for a place or for KV blocks
    n_kv_blocks: int
    n_free_kv_blocks: int  # neither a sequence nor a kept prefix holds them
    n_reserved_kv_blocks: int  # the most that the running ones can come to hold
    n_kept_prefixes: int
    n_steps: int
    n_prompt_tokens: int  # computed
    n_cached_tokens: int  # of prompts, taken from others instead
    n_generated_tokens: int
    n_drafted_tokens: int  # guessed, and run on trial
    n_accepted_tokens: int  # those of them that came true


@dataclass(frozen=True)
class GeneratorFacts:
    """A generator now."""

    loop: LoopFacts
    n_unfinished: int  # submitted, and without a terminal event
    is_alive: bool  # False once closed, ended by a defect, or without its engine: every request fails
    stalled_s: float  # since a step was completed though there is work; 0 without work

    @property
    def is_busy(self) -> bool:
        return self.n_unfinished > 0


class EndRate:
    """How often requests end, to tell a refused client when a place will be free."""

    def __init__(self) -> None:
        self._ends_s: deque[float] = deque(maxlen=_RECENT_ENDS)

    def add(self, now_s: float) -> None:
        """A request ended."""
        self._ends_s.append(now_s)

    def retry_after_s(self, now_s: float) -> float:
        """When the next one may be expected to end: as long as one took lately, a silence since then included."""
        if not self._ends_s:
            return RETRY_UNKNOWN_S
        mean_s = (now_s - self._ends_s[0]) / len(self._ends_s)
        return min(max(mean_s, RETRY_LEAST_S), RETRY_MOST_S)
