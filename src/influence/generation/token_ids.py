"""Token ids as plain memory, which is cut and compared a thousand at a time."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TypeAlias

Ids: TypeAlias = "array[int]"  # of int64


def ids_of(token_ids: Iterable[int]) -> Ids:
    """The ids as one array; an array is taken as it is."""
    return token_ids if isinstance(token_ids, array) else array("q", token_ids)


def common_prefix(a: Ids, b: Ids) -> int:
    """How many leading ids are the same."""
    low, high = 0, min(len(a), len(b))
    middle = high  # all of them, most often
    while low < high:
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
        middle = (low + high + 1) // 2
    return low
