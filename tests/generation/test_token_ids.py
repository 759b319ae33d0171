"""Token ids compared as memory."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.generation.token_ids import common_prefix, ids_of

IDS = st.lists(st.integers(0, 2), max_size=40)


def test_an_array_is_taken_as_it_is() -> None:
    ids = array("q", [1, 2])
    assert ids_of(ids) is ids
    assert ids_of([1, 2]) == ids


@pytest.mark.parametrize(
    ("a", "b", "n"),
    [([], [], 0), ([1], [], 0), ([1], [2], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 2, 4], 2)],
)
def test_the_common_prefix_ends_at_the_first_difference(a: list[int], b: list[int], n: int) -> None:
    assert common_prefix(ids_of(a), ids_of(b)) == n


@settings(derandomize=True, deadline=None)
@given(IDS, IDS, IDS)
def test_the_common_prefix_is_what_walking_finds(start: list[int], a: list[int], b: list[int]) -> None:
    a, b = start + a, start + b
    walked = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_prefix(ids_of(a), ids_of(b)) == walked
