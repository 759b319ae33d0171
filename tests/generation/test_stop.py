"""Stop strings cut exactly, wherever tokens cut the text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.generation.stop import CompletionText, StopMatcher, find_stop, held_length
from support.fake_engine import PIECES, FakeDetokenizer, whole_text

PROPERTY = settings(derandomize=True, deadline=None, max_examples=300)
TEXT = st.text("ab€", max_size=20)
STOPS = st.lists(st.text("ab€", min_size=1, max_size=5), max_size=4)
IDS = st.lists(st.integers(0, len(PIECES) - 1), max_size=30)


def brute_force(text: str, stops: list[str]) -> tuple[int, str] | None:
    """Character by character: where is some stop string complete first, and the longest such."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return end - len(longest), longest
    return None


@PROPERTY
@given(TEXT, STOPS)
def test_the_stop_string_that_is_complete_first_counts(text: str, stops: list[str]) -> None:
    assert find_stop(text, stops) == brute_force(text, stops)


@PROPERTY
@given(TEXT, STOPS)
def test_what_is_held_back_is_the_longest_beginning_of_a_stop_string(text: str, stops: list[str]) -> None:
    beginnings = [stop[:n] for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    assert held_length(text, stops) == max(map(len, beginnings), default=0)


@PROPERTY
@given(st.lists(TEXT, max_size=8), STOPS)
def test_however_the_text_is_cut_it_ends_at_the_same_place(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = "".join([matcher.push(piece) for piece in pieces]) + matcher.flush()
    found = brute_force("".join(pieces), stops)
    assert matcher.matched == (found and found[1])
    assert shown == ("".join(pieces) if found is None else "".join(pieces)[: found[0]])


@PROPERTY
@given(st.lists(TEXT, max_size=8), STOPS)
def test_text_that_can_not_begin_a_stop_string_is_not_held_back(pieces: list[str], stops: list[str]) -> None:
    matcher, shown, pushed = StopMatcher(stops), "", ""
    for piece in pieces:
        shown += matcher.push(piece)
        pushed += piece
        if matcher.matched is None:
            assert pushed == shown + pushed[len(pushed) - held_length(pushed, stops) :]


@PROPERTY
@given(IDS, st.lists(st.text("abé€ the", min_size=1, max_size=4), max_size=3))
def test_streamed_tokens_give_the_text_of_all_at_once(token_ids: list[int], stops: list[str]) -> None:
    text = CompletionText(FakeDetokenizer(), stops)
    shown = "".join([text.push(token_id) for token_id in token_ids]) + text.flush()
    whole = whole_text(token_ids)
    found = brute_force(whole, stops)
    assert shown == (whole if found is None else whole[: found[0]])


def test_a_stop_string_inside_a_character_of_several_tokens_never_leaks() -> None:
    first, second, third = (PIECES.index("€".encode()[i : i + 1]) for i in range(3))
    text = CompletionText(FakeDetokenizer(), ["a€"])
    assert [text.push(i) for i in (1, 0, first, second, third, 2)] == ["b", "", "", "", "", ""]
    assert (text.flush(), text.matched) == ("", "a€")


def test_an_unfinished_character_becomes_one_replacement_at_the_end() -> None:
    first, second = (PIECES.index("€".encode()[i : i + 1]) for i in range(2))
    text = CompletionText(FakeDetokenizer(), [])
    assert [text.push(first), text.push(second), text.flush()] == ["", "", "�"]


@pytest.mark.parametrize("stop", ["a" * 511 + "b", "ab" * 256])
def test_text_that_almost_matches_again_and_again_is_passed_on_quickly(stop: str) -> None:
    matcher = StopMatcher([stop] * 32)
    shown = "".join([matcher.push(stop[:-1]) for _ in range(50)]) + matcher.flush()
    assert shown == stop[:-1] * 50
