"""Who gets how many tokens in a step, and who may begin: no engine, no clock.

Places are given first come, first served: nobody is overtaken, so a large
request is never starved by small ones. A sequence is admitted only if the
blocks it can need at its very end are there besides all that the running ones
can need, so that a running sequence never waits for memory and nothing is ever
taken back.
"""

from __future__ import annotations

from collections.abc import Sequence

# How long a step should take at most while somebody waits for his next token: a
# pause that a reader still takes for flow.
STEP_S = 0.5
# And while nobody does: a cancel, or a short prompt that comes now, waits for the step's end.
PROMPT_STEP_S = 1.0
# Prompt tokens that a step takes even then. Reading the weights takes as long as computing 16
# to 32 tokens: with 64 a third of the time at most is lost to it, and all prompts wait less.
MIN_PROMPT_TOKENS = 64


class Pace:
    """What a prompt's token takes, learnt from the steps so far."""

    def __init__(self) -> None:
        self.s_per_token: float | None = None

    def add(self, n_tokens: int, took_s: float) -> None:
        """A step of `n_tokens` took so long. Only large ones tell: small ones pay for reading the weights."""
        if n_tokens < MIN_PROMPT_TOKENS:
            return
        latest = took_s / n_tokens
        before = latest if self.s_per_token is None else self.s_per_token
        self.s_per_token = before + (latest - before) / 4  # follows the load in a few steps


def step_budget(most: int, n_decoding: int, s_per_token: float | None) -> int:
    """The tokens of the next step: `most`, or fewer so that it stays short.

    `s_per_token`: what a prompt's token has taken lately; None: not known yet.
    """
    if s_per_token is None or s_per_token <= 0:
        return most
    wanted = int((STEP_S if n_decoding else PROMPT_STEP_S) / s_per_token)
    return min(most, n_decoding + max(MIN_PROMPT_TOKENS, wanted))


def chunk_lengths(n_pending: Sequence[int], token_budget: int) -> list[int]:
    """How many tokens each running sequence runs in this step; 0 where it must wait.

    `n_pending`, oldest first: tokens that each has but did not run yet (at
    least 1). A single one (a decode, or the end of a prompt) always runs. Of
    what is left of the budget the oldest prompt gets half, so that it always
    gets on, and the rest goes to those that are done soonest, itself among
    them: a short prompt does not wait behind a long one, and equal ones still
    finish one after the other, which makes their mean wait the shortest.
    """
    lengths = [1 if pending == 1 else 0 for pending in n_pending]
    left = token_budget - sum(lengths)
    prompts = [i for i, pending in enumerate(n_pending) if pending > 1]
    if not prompts or left <= 0:
        return lengths
    oldest = prompts[0]
    lengths[oldest] = min(n_pending[oldest], -(-left // 2))
    left -= lengths[oldest]
    for i in sorted(prompts, key=lambda i: n_pending[i] - lengths[i]):
        more = min(n_pending[i] - lengths[i], left)
        lengths[i] += more
        left -= more
    return lengths


def within_rows(lengths: Sequence[int], scored: Sequence[bool], row_budget: int) -> list[int]:
    """The lengths, cut so that scored chunks, which give a row of logits a token, keep to `row_budget` rows.

    In order: a younger one waits until the older ones leave some of it.
    """
    cut = []
    for length, is_scored in zip(lengths, scored, strict=True):
        cut.append(min(length, row_budget) if is_scored else length)
        row_budget -= cut[-1] if is_scored else 0
    return cut


def n_admitted(needs: Sequence[int], n_free_blocks: int, n_free_places: int) -> int:
    """How many of the waiting, oldest first, may begin now.

    `needs`: the most blocks each can come to hold. `n_free_blocks`: those that
    no running sequence can come to need.
    """
    n = 0
    for need in needs[: max(0, n_free_places)]:
        n_free_blocks -= need
        if n_free_blocks < 0:
            break
        n += 1
    return n
