"""Threads that do for each of many things what came up, while others go on making more of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Behind(Generic[T]):
    """Calls `work(thing)` soon after each `wake(thing)`: never twice at once for the same, once for many wakes.

    An error of `work` goes to `failed`, and its thread ends.
    """

    def __init__(
        self, work: Callable[[T], None], failed: Callable[[BaseException], None], n_threads: int
    ) -> None:
        self._work, self._failed = work, failed
        self._changed = threading.Condition()
        self._waiting: deque[T] = deque()
        self._marked: set[T] = set()  # waiting, or woken while at work
        self._at_work: set[T] = set()
        self._closed = False
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(n_threads)]
        for thread in self._threads:
            thread.start()

    def wake(self, thing: T) -> None:
        with self._changed:
            if thing in self._marked:
                return
            self._marked.add(thing)
            if thing not in self._at_work:
                self._waiting.append(thing)
                self._changed.notify()

    def close(self, timeout_s: float | None = None) -> None:
        """Begin nothing more, and wait so long for what is at work."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while (thing := self._take()) is not None:
                self._work(thing)
                self._put_back(thing)
        except BaseException as error:
            self._failed(error)

    def _take(self) -> T | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting)
            if self._closed:
                return None
            thing = self._waiting.popleft()
            self._marked.discard(thing)
            self._at_work.add(thing)
            return thing

    def _put_back(self, thing: T) -> None:
        with self._changed:
            self._at_work.discard(thing)
            if thing in self._marked:
                self._waiting.append(thing)
                self._changed.notify()
