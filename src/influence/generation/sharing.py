"""Prompts that begin alike and run at once: the younger ones wait a little and take what the oldest computed.

    A  |system prompt|question 1|        computes
    B  |system prompt|question 2|        forks A's session as soon as A has passed the system prompt
    C  |system prompt|question 2|        follows B, with which it has more in common

Whom a sequence may follow came before it, so that nobody waits in a circle,
and whoever came before is served before. The engine's law that forking changes
no logit makes the result the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from influence.dataclass import dataclass
from influence.generation.prefix_cache import PrefixCache, serves
from influence.generation.sequence import SequenceState
from influence.generation.token_ids import common_prefix
from influence.models.spec import ModelSpec

# Reading the weights costs as much as computing about this many tokens: fewer are not worth a wait.
MIN_SHARED = 16
# So many tokens are worth a step's wait, whatever part of the prompt they are.
MUCH_SHARED = 64


@dataclass(frozen=True)
class Lead:
    """An older sequence, and how many tokens of it a younger one can use."""

    sequence: SequenceState
    n_shared: int

    @property
    def n_ready(self) -> int:
        """Those of them that are computed."""
        return min(self.n_shared, self.sequence.n_run)

    @property
    def is_ready(self) -> bool:
        """Whether nothing more will come: all are computed, or the leader has ended."""
        return self.sequence.has_ended or self.n_ready == self.n_shared


def leads(follower: SequenceState, older: Sequence[SequenceState], spec: ModelSpec) -> list[Lead]:
    """What each of the `older` ones shares, or will share, with the follower.

    The follower's last token is left for it to run, so that there are logits.
    """
    wanted = follower.prompt[:-1]
    return [
        Lead(other, common_prefix(other.prompt, wanted))
        for other in older
        if other.salt == follower.salt and serves(spec, other.context, follower.context)
    ]


def is_worth_waiting(n_saved: int, n_to_run: int) -> bool:
    """Whether to wait for `n_saved` tokens of the `n_to_run` that must be run otherwise."""
    return n_saved >= MIN_SHARED and (n_saved >= MUCH_SHARED or 2 * n_saved >= n_to_run)


def open_or_wait(
    sequence: SequenceState, older: Sequence[SequenceState], cache: PrefixCache, spec: ModelSpec
) -> Lead | None:
    """Give the sequence a session with the longest prefix that is computed; or the lead to wait for instead.

    Without any prefix its session stays None, and nothing is to be waited for.
    """
    known = cache.find(sequence.prompt, sequence.context, sequence.salt)
    n_kept = known.n_tokens if known is not None else 0
    found = leads(sequence, older, spec)
    ready = max(found, key=lambda lead: lead.n_ready, default=None)
    later = max(found, key=lambda lead: lead.n_shared, default=None)
    n_now = max(n_kept, ready.n_ready if ready is not None else 0)
    if later is not None and is_worth_waiting(later.n_shared - n_now, sequence.n_prompt - n_now):
        return later
    if ready is not None and ready.sequence.session is not None and ready.n_ready > n_kept:
        sequence.session = ready.sequence.session.fork(ready.n_ready)
    elif known is not None:
        sequence.session = known.session.fork(n_kept)
    return None
