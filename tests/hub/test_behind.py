"""What is woken is worked on: once for many wakes, never twice at once, and never forgotten."""

from __future__ import annotations

import threading

from influence.hub.behind import Behind


def no_failure(error: BaseException) -> None:
    raise AssertionError("nothing fails here") from error


def test_a_thing_that_is_woken_at_work_is_worked_on_again_and_never_twice_at_once() -> None:
    begun, may_end = threading.Semaphore(0), threading.Semaphore(0)
    n_at_once, most_at_once = 0, 0

    def work(thing: str) -> None:
        nonlocal n_at_once, most_at_once
        n_at_once += 1
        most_at_once = max(most_at_once, n_at_once)
        begun.release()
        assert may_end.acquire(timeout=10)
        n_at_once -= 1

    behind = Behind(work, no_failure, 2)
    behind.wake("a")
    assert begun.acquire(timeout=10)
    for _ in range(5):
        behind.wake("a")
    may_end.release()
    assert begun.acquire(timeout=10)
    may_end.release()
    behind.close()
    assert most_at_once == 1
    assert not begun.acquire(blocking=False)


def test_different_things_are_worked_on_at_once() -> None:
    together, met = threading.Barrier(3), []

    def work(thing: str) -> None:
        together.wait(10)
        met.append(thing)

    behind = Behind(work, no_failure, 2)
    behind.wake("a")
    behind.wake("b")
    together.wait(10)
    behind.close()
    assert sorted(met) == ["a", "b"]


def test_an_error_is_told() -> None:
    told: list[BaseException] = []
    heard = threading.Event()

    def fail(_: str) -> None:
        raise ValueError("no")

    def note(error: BaseException) -> None:
        told.append(error)
        heard.set()

    behind = Behind(fail, note, 1)
    behind.wake("a")
    assert heard.wait(10)
    behind.close()
    assert [str(error) for error in told] == ["no"]
