from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.hub.cleaning import clean_text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain text", "plain text"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x1b]0;title\x07shown", "shown"),
        ("\x1b]8;;https://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "31mred"),
        ("a\nb\tc\r\nd", "a b c d"),
        ("exe\u202etxt", "exetxt"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("\0\x07bell", "bell"),
        ("日本語 🤗", "日本語 🤗"),
        ("\ud800x", "x"),
    ],
)
def test_a_text_is_made_fit_for_a_line(text: str, clean: str) -> None:
    assert clean_text(text) == clean


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(st.text(st.characters()), st.integers(1, 50))
def test_a_clean_text_is_short_printable_and_clean_already(text: str, length: int) -> None:
    clean = clean_text(text, length)
    assert len(clean) <= length
    assert clean.isprintable()
    assert clean_text(clean, length) == clean
