"""Guesses by table: where the end of a text stood before, what followed, and when running it pays."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.generation.drafting import (
    MAX_CANDIDATES,
    MAX_DRAFT,
    MAX_MATCH,
    NGRAM,
    Drafter,
    Match,
    NgramIndex,
    StepCosts,
    draft_lengths,
)

PROPERTY = settings(derandomize=True, deadline=None)


@pytest.mark.parametrize(
    ("token_ids", "match"),
    [
        ([], None),
        ([1, 2], None),
        ([1, 2, 3], None),  # the end itself is no earlier occurrence
        ([1, 2, 3, 9, 1, 2, 3], Match(3, 3)),
        ([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], Match(7, 3)),  # of equals the latest
        ([5, 1, 2, 3, 9, 1, 2, 3, 8, 5, 1, 2, 3], Match(4, 4)),  # the longest, though older
        ([7, 7, 7, 7], Match(3, 3)),  # it may overlap the end
        ([1, 2, 9, 1, 2], Match(2, 2)),
        ([3, 1, 2, 9, 3, 8, 2], Match(3, 1)),
        ([1, 2, 3, 9, 4, 3, 8, 1, 2, 3], Match(3, 3)),  # not the latest 3, whose 2 is another
    ],
)
def test_the_longest_earlier_occurrence_of_the_end_is_found(
    token_ids: list[int], match: Match | None
) -> None:
    assert NgramIndex(token_ids).find() == match


def longest_by_search(token_ids: list[int]) -> int:
    """The length of the longest earlier occurrence of the end that something follows, by trying all."""
    lengths = [
        next(
            (n for n in range(place) if token_ids[place - 1 - n] != token_ids[-1 - n]),
            place,
        )
        for place in range(1, len(token_ids))
    ]
    return max((min(n, MAX_MATCH) for n in lengths), default=0)


@PROPERTY
@given(st.lists(st.integers(0, 3), max_size=40))
def test_an_index_that_grew_token_by_token_finds_what_a_search_finds(token_ids: list[int]) -> None:
    grown: list[int] = []
    index = NgramIndex(grown)
    for token_id in token_ids:
        grown.append(token_id)
        found = index.find()
        occurrences = [
            place for place in range(NGRAM, len(grown)) if grown[place - NGRAM : place] == grown[-NGRAM:]
        ]
        assert (found is not None) == (token_id in grown[:-1])
        if found is not None:
            assert grown[found.begin - found.n_tokens : found.begin] == grown[-found.n_tokens :]
            if len(occurrences) <= MAX_CANDIDATES:
                assert found.n_tokens == longest_by_search(grown)


@pytest.mark.parametrize(
    ("token_ids", "guess"),
    [
        ([1, 2, 3, 9, 8, 1, 2, 3], [9, 8]),
        ([1, 2, 3, 9, 1, 2, 3], [9, 1, 2, 3, 9, 1]),  # behind the end it repeats
        ([7, 7, 7, 7], [7, 7, 7]),
    ],
)
def test_a_guess_is_what_followed_and_then_its_repetition(token_ids: list[int], guess: list[int]) -> None:
    drafter = Drafter(token_ids)
    drafter.look()
    assert drafter.guess(len(guess)) == guess


def test_a_drafter_without_an_earlier_occurrence_guesses_nothing() -> None:
    drafter = Drafter([1, 2, 3, 4])
    assert drafter.look() == []


def test_a_drafter_learns_from_guesses_that_nobody_ran() -> None:
    token_ids = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3]
    drafter = Drafter(token_ids)
    first = drafter.look()
    assert drafter.guess(3) == [4, 5, 6]
    token_ids.append(9)  # it was wrong
    assert drafter.look() == []
    token_ids += [1, 2, 3]
    assert drafter.look()[0] < first[0]


def test_a_token_that_came_true_speaks_for_those_behind_as_many_equal_ones() -> None:
    token_ids = [1, 2, 3, 4, 5, 6, 7, 8, 1]
    drafter = Drafter(token_ids)
    before = drafter.look()
    token_ids += [2, 9, 1]  # right behind one equal token, wrong behind two
    after = drafter.look()
    assert after[0] > before[0]
    assert after[1] / after[0] < before[1] / before[0]


def test_the_chances_of_a_guess_fall_with_its_length() -> None:
    chances = Drafter([7] * 50).look()
    assert len(chances) == MAX_DRAFT
    assert chances == sorted(chances, reverse=True)


def test_tokens_that_are_hardly_ever_right_are_not_offered() -> None:
    assert 0 < len(Drafter([1, 2, 3, 1]).look()) < 4


def test_a_guess_is_never_longer_than_a_draft_may_be() -> None:
    drafter = Drafter([7] * 50)
    drafter.look()
    assert drafter.guess(MAX_DRAFT) == [7] * MAX_DRAFT


def costs(by_width: dict[int, float]) -> StepCosts:
    """As after many steps of these widths, in turns."""
    made = StepCosts()
    for _ in range(40):
        for width, took_s in by_width.items():
            for _ in range(2):
                made.add(width, took_s)
    return made


def falling(chance: float | None) -> list[float]:
    """Of a guess each of whose tokens is as likely, behind a right one; None: there is no guess."""
    return [] if chance is None else [chance**k for k in range(1, 1 + MAX_DRAFT)]


FREE = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 16: 1.0, 32: 1.0}
BY_THE_ROW = {width: float(width) for width in FREE}


@pytest.mark.parametrize(
    ("chances", "limits", "by_width", "lengths"),
    [
        ([None], [15], FREE, [0]),
        ([0.9], [15], FREE, [15]),
        ([0.9], [0], FREE, [0]),  # the end of the completion is near
        ([0.9], [5], FREE, [5]),
        ([0.02], [15], FREE, [0]),  # what a step brings more is less than noise
        ([0.99], [15], BY_THE_ROW, [0]),  # a row more costs what a token brings
        ([0.9], [15], {1: 1.0, 2: 1.1, 4: 1.3, 8: 2.5, 16: 9.0}, [3]),
        ([0.9, None], [15, 15], {2: 1.0, 4: 1.0, 8: 1.0, 16: 9.0}, [6, 0]),
        ([0.9, 0.9], [15, 15], {2: 1.0, 4: 1.0, 8: 1.0, 16: 9.0}, [3, 3]),
        ([0.6, 0.9], [15, 15], {2: 1.0, 4: 1.0, 8: 1.0, 16: 9.0}, [1, 5]),
    ],
)
def test_drafts_are_as_long_as_pays(
    chances: list[float | None], limits: list[int], by_width: dict[int, float], lengths: list[int]
) -> None:
    assert draft_lengths([falling(chance) for chance in chances], limits, costs(by_width)) == lengths


def test_a_full_batch_has_no_drafts() -> None:
    assert draft_lengths([falling(0.9)] * 40, [15] * 40, costs(FREE)) == [0] * 40
    assert sum(draft_lengths([falling(0.9)] * 6, [15] * 6, costs(FREE), max_rows=8)) == 2


def test_a_width_is_tried_after_half_of_it_was() -> None:
    made, tried = StepCosts(), []
    for _ in range(6):
        [n] = draft_lengths([falling(0.99)], [15], made)
        tried.append(1 + n)
        made.add(1 + n, 1.0)
    assert tried == [1, 2, 4, 8, 16, 16]


@PROPERTY
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, MAX_DRAFT)), min_size=1, max_size=40),
    st.integers(1, 32),
)
def test_lengths_keep_to_every_limit(asked: list[tuple[float, int]], max_rows: int) -> None:
    chances, limits = [falling(chance or None) for chance, _ in asked], [limit for _, limit in asked]
    lengths = draft_lengths(chances, limits, costs(FREE), max_rows)
    assert all(0 <= n <= limit for n, limit in zip(lengths, limits, strict=True))
    assert all(n == 0 for n, own in zip(lengths, chances, strict=True) if not own)
    assert sum(lengths) <= max(0, max_rows - len(asked))


def relative(made: StepCosts, width: int) -> float:
    return made.cost(width) / made.cost(1)


def test_costs_are_learnt_from_the_steps_that_ran() -> None:
    made = costs({1: 1.0, 8: 1.5})
    assert relative(made, 8) == pytest.approx(1.5, rel=0.01)
    assert 1.5 < relative(made, 16) < 5  # wider than what was run: at least as much


def test_a_deeper_sequence_or_a_busier_machine_changes_no_ratio() -> None:
    made = costs({1: 1.0, 8: 1.5})
    for i in range(200):
        made.add(8, 1.5 * (1 + i / 20))  # only wide steps, ever slower
    assert relative(made, 8) == pytest.approx(1.5, rel=0.05)


def test_one_step_that_the_machine_held_up_is_soon_made_good() -> None:
    made = costs({1: 1.0, 8: 1.5})
    made.add(1, 1.0)
    made.add(8, 100.0)
    assert relative(made, 8) < 4
    for _ in range(12):
        made.add(1, 1.0)
        made.add(8, 1.5)
    assert relative(made, 8) == pytest.approx(1.5, rel=0.1)


def test_a_width_that_looked_dear_is_tried_again_one_day() -> None:
    made = costs({1: 1.0, 8: 50.0})
    assert relative(made, 8) > 10
    for _ in range(600):
        made.add(1, 1.0)
    assert relative(made, 8) < 3


def test_a_width_that_looked_dear_once_is_tried_again_soon() -> None:
    made = StepCosts()
    made.add(1, 1.0)
    made.add(2, 100.0)  # the machine was away
    assert relative(made, 2) > 3
    for _ in range(40):
        made.add(1, 1.0)
    assert relative(made, 2) < 1.5


def test_a_width_that_is_tried_again_is_believed_at_once() -> None:
    made = costs({1: 1.0, 8: 50.0})
    for _ in range(600):
        made.add(1, 1.0)
    made.add(8, 1.5)
    assert relative(made, 8) == pytest.approx(1.5, rel=0.01)


def test_a_width_that_was_never_run_lies_on_the_line_through_those_that_were() -> None:
    made = costs({1: 1.0, 2: 1.1, 4: 1.3})
    assert relative(made, 8) == pytest.approx(1.7, rel=0.02)


def test_a_clock_that_stands_still_teaches_nothing() -> None:
    made = StepCosts()
    made.add(1, 0.0)
    made.add(8, 0.0)
    assert relative(made, 8) == StepCosts().cost(8)
