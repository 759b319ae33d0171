"""A function of several things at once, by threads that an interrupted user need not wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(function: Callable[[Item], Result], items: Sequence[Item], n_threads: int) -> list[Result]:
    """The results, in the order of the items.

    The first error is raised when it happens, and no further item is begun. On
    it, and on Ctrl-C, calls under way are left to themselves: the threads are
    daemons, which a ThreadPoolExecutor's are not.
    """
    waiting = queue.SimpleQueue[tuple[int, Item]]()
    done = queue.SimpleQueue[tuple[int, Result] | BaseException]()
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            try:
                index, item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((index, function(item)))
            except BaseException as error:
                done.put(error)
                return

    for pair in enumerate(items):
        waiting.put(pair)
    for _ in range(min(n_threads, len(items))):
        threading.Thread(target=work, daemon=True).start()
    try:
        return _collected(done, len(items))
    finally:
        stopped.set()


def _collected(done: queue.SimpleQueue[tuple[int, Result] | BaseException], n_items: int) -> list[Result]:
    results: dict[int, Result] = {}
    while len(results) < n_items:
        outcome = done.get()
        if isinstance(outcome, BaseException):
            raise outcome
        index, result = outcome
        results[index] = result
    return [results[index] for index in range(n_items)]
