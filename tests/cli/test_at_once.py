"""Several calls at once: their order, their errors, and that nobody waits for what is no longer wanted."""

from __future__ import annotations

import queue
import threading

import pytest

from influence.cli.at_once import at_once


@pytest.mark.parametrize("n_threads", [1, 3, 50])
def test_results_come_in_the_order_of_the_items(n_threads: int) -> None:
    assert at_once(lambda n: n * n, range(20), n_threads) == [n * n for n in range(20)]
    assert at_once(lambda n: n * n, [], n_threads) == []


def test_they_run_at_once() -> None:
    """Each call waits until all three have begun."""
    barrier = threading.Barrier(3, timeout=30)
    assert sorted(at_once(lambda _: barrier.wait(), range(3), 3)) == [0, 1, 2]


@pytest.mark.parametrize("error", [ValueError("no"), queue.Empty()])
def test_the_first_error_is_raised_and_no_other_call_waited_for(error: Exception) -> None:
    never = threading.Event()
    begun: list[int] = []

    def call(n: int) -> None:
        begun.append(n)
        if n == 1:
            raise error
        never.wait()

    with pytest.raises(type(error)) as caught:
        at_once(call, range(10), 2)
    assert caught.value is error
    assert sorted(begun) == [0, 1]
    never.set()
