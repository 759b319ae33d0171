"""The scheduler by table, and what must hold of any schedule."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.generation.scheduler import Pace, chunk_lengths, n_admitted, step_budget, within_rows

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
        ([20, 20], 8, [8, 0]),  # of equals the older
        ([20, 5], 8, [4, 4]),  # the oldest gets half, the shortest the rest
        ([20, 3, 9], 8, [4, 3, 1]),
        ([20, 9, 3], 8, [4, 1, 3]),
        ([20, 3], 8, [5, 3]),  # nothing is left over
        ([5, 20, 4], 8, [5, 0, 3]),  # nearly done is shortest
        ([20, 5, 1], 8, [4, 3, 1]),
        ([20, 5], 1, [1, 0]),  # who gets on with one token is the oldest
        ([1, 1, 1], 2, [1, 1, 1]),  # a decode never waits
        ([1, 1, 9], 2, [1, 1, 0]),
    ],
)
def test_decodes_come_first_then_the_oldest_prompt_and_the_shortest(
    n_pending: list[int], token_budget: int, lengths: list[int]
) -> None:
    assert chunk_lengths(n_pending, token_budget) == lengths


@PROPERTY
@given(st.lists(st.integers(1, 50), max_size=20), st.integers(21, 100))
def test_a_budget_above_the_number_of_sequences_is_spent_and_the_oldest_gets_on(
    pending: list[int], budget: int
) -> None:
    lengths = chunk_lengths(pending, budget)
    assert sum(lengths) == min(budget, sum(pending))
    assert all(0 <= n <= p for n, p in zip(lengths, pending, strict=True))
    assert all(n == 1 for n, p in zip(lengths, pending, strict=True) if p == 1)
    left = budget - pending.count(1)
    oldest = next((i for i, p in enumerate(pending) if p > 1), None)
    assert oldest is None or lengths[oldest] >= min(pending[oldest], left / 2)


def steps_until_done(pending: list[int], budget: int, i: int) -> int:
    """Steps until the i-th of them has run its prompt, while new prompts of 2 tokens never cease to come."""
    pending = list(pending)
    for n_steps in range(1, 10_000):
        pending = [p - n for p, n in zip(pending, chunk_lengths(pending, budget), strict=True)]
        if pending[i] == 0:
            return n_steps
        # The done ones leave; in their place come younger ones.
        n_before = sum(1 for p in pending[:i] if p == 0)
        pending = [p for p in pending if p > 0] + [2] * pending.count(0)
        i -= n_before
    raise AssertionError("starved")


@PROPERTY
@given(st.lists(st.integers(2, 300), min_size=1, max_size=8), st.integers(10, 60), st.data())
def test_nobody_starves_behind_younger_and_shorter_prompts(
    pending: list[int], budget: int, data: st.DataObject
) -> None:
    i = data.draw(st.integers(0, len(pending) - 1))
    # Half of each step goes to the oldest: he is done, then the next is the oldest.
    assert steps_until_done(pending, budget, i) <= sum(-(-p // (budget // 2)) for p in pending[: i + 1])


def test_a_short_prompt_behind_a_long_one_is_done_in_its_own_time() -> None:
    assert steps_until_done([4000, 100], 256, 1) == 1
    assert steps_until_done([4000, 100, 100, 100], 256, 3) == 3
    assert steps_until_done([4000], 256, 0) == 16


@pytest.mark.parametrize(
    ("n_decoding", "s_per_token", "budget"),
    [
        (0, None, 256),
        (3, None, 256),  # nothing is known yet
        (3, 0.0, 256),
        (3, 1e-6, 256),
        (0, 0.005, 200),  # a second's worth
        (3, 0.005, 103),  # half a second's worth beside the decodes
        (0, 0.1, 64),  # a slow machine: the least
        (3, 0.1, 67),
        (250, 0.1, 256),
    ],
)
def test_a_step_is_short_and_shorter_while_somebody_waits_for_his_next_token(
    n_decoding: int, s_per_token: float | None, budget: int
) -> None:
    assert step_budget(256, n_decoding, s_per_token) == budget


def test_the_pace_follows_large_steps_and_overlooks_small_ones() -> None:
    pace = Pace()
    pace.add(8, 5.0)
    assert pace.s_per_token is None
    pace.add(100, 10.0)
    assert pace.s_per_token == pytest.approx(0.1)
    for _ in range(20):
        pace.add(100, 1.0)
    assert pace.s_per_token == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(
    ("lengths", "scored", "row_budget", "cut"),
    [
        ([5, 5], [False, False], 1, [5, 5]),
        ([5, 5], [True, True], 20, [5, 5]),
        ([5, 5], [True, True], 7, [5, 2]),
        ([5, 5, 5], [True, False, True], 5, [5, 5, 0]),
    ],
)
def test_scored_chunks_keep_to_a_budget_of_rows_in_order(
    lengths: list[int], scored: list[bool], row_budget: int, cut: list[int]
) -> None:
    assert within_rows(lengths, scored, row_budget) == cut


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
