"""The scheduler by table, and what must hold of any schedule."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.generation.scheduler import chunk_lengths, n_admitted

PROPERTY = settings(derandomize=True, deadline=None)


@pytest.mark.parametrize(
    ("n_pending", "token_budget", "lengths"),
    [
        ([], 8, []),
        ([1], 8, [1]),
        ([5], 8, [5]),
        ([20], 8, [8]),
        ([1, 1, 20], 8, [1, 1, 6]),
        ([20, 1, 1], 8, [6, 1, 1]),  # decodes first, wherever they stand
        ([5, 5], 8, [5, 3]),
        ([20, 5], 8, [8, 0]),  # the older prompt first
        ([20, 5, 1], 8, [7, 0, 1]),
        ([1, 1, 1], 2, [1, 1, 1]),  # a decode never waits
        ([1, 1, 9], 2, [1, 1, 0]),
    ],
)
def test_decodes_come_first_and_prompts_share_the_rest_in_order(
    n_pending: list[int], token_budget: int, lengths: list[int]
) -> None:
    assert chunk_lengths(n_pending, token_budget) == lengths


@PROPERTY
@given(st.lists(st.integers(1, 50), max_size=20), st.integers(21, 100))
def test_a_budget_above_the_number_of_sequences_is_kept_and_always_gets_on(
    pending: list[int], budget: int
) -> None:
    lengths = chunk_lengths(pending, budget)
    assert sum(lengths) == min(budget, sum(pending))
    assert all(0 <= n <= p for n, p in zip(lengths, pending, strict=True))
    assert all(n == 1 for n, p in zip(lengths, pending, strict=True) if p == 1)
    unfinished = [i for i, (n, p) in enumerate(zip(lengths, pending, strict=True)) if n < p]
    later = [n for i, n in enumerate(lengths) if unfinished and i > unfinished[0] and pending[i] > 1]
    assert not any(later), "a younger prompt ran before an older one was done"


@pytest.mark.parametrize(
    ("needs", "n_free_blocks", "n_free_places", "n"),
    [
        ([], 10, 4, 0),
        ([3, 3], 10, 4, 2),
        ([3, 3, 3, 3], 10, 4, 3),
        ([10], 10, 4, 1),
        ([11], 10, 4, 0),
        ([11, 1], 10, 4, 0),  # the small one does not overtake
        ([1, 11, 1], 10, 4, 1),
        ([1, 1, 1], 10, 2, 2),
        ([1], 10, 0, 0),
        ([1], 10, -1, 0),
    ],
)
def test_admission_is_in_order_and_by_what_is_free(
    needs: list[int], n_free_blocks: int, n_free_places: int, n: int
) -> None:
    assert n_admitted(needs, n_free_blocks, n_free_places) == n
