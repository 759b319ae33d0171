"""Who gets how many tokens in a step, and who may begin: pure functions, no engine, no clock.

First come, first served, both for a place and for prompt chunks: nobody is
overtaken, so a large request is never starved by small ones. A sequence is
admitted only if the blocks it can need at its very end are there besides all
that the running ones can need, so that a running sequence never waits for
memory and nothing is ever taken back.
"""

from __future__ import annotations

from collections.abc import Sequence


def chunk_lengths(n_pending: Sequence[int], token_budget: int) -> list[int]:
    """How many tokens each running sequence runs in this step; 0 where it must wait.

    `n_pending`, oldest first: tokens that each has but did not run yet (at
    least 1). A single one (a decode, or the end of a prompt) always runs; what
    is left of the budget goes to longer prompts in order.
    """
    left = token_budget - sum(1 for pending in n_pending if pending == 1)
    lengths = []
    for pending in n_pending:
        length = 1 if pending == 1 else max(0, min(pending, left))
        left -= length if pending > 1 else 0
        lengths.append(length)
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
