"""The events of requests, carried from the generator's thread into the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from influence.errors import InfluenceError
from influence.generation.events import Completion, Event, Finished, Stream, completion_of
from influence.server.errors import ApiError

Outcome = Event | InfluenceError | ApiError


class Mailbox:
    """What the generator's thread hands to one event loop: a step's events wake it once, not each."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[tuple[Run, int, Outcome]] = deque()
        self._is_called = False

    def put(self, run: Run, choice: int, event: Outcome) -> None:
        """For any thread; never blocks."""
        self._waiting.append((run, choice, event))
        if not self._is_called:
            self._is_called = True
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # Reset first: a put from now on either is seen by the loop below or calls again.
        self._is_called = False
        while self._waiting:
            run, choice, event = self._waiting.popleft()
            run.receive(choice, event)


class Run:
    """The choices of one request, as their events come: `async for choice, event in run`.

    An InfluenceError of a choice is raised and ends all. Leaving the
    `async with` block cancels what still runs. For one task of the loop it was
    made in.
    """

    def __init__(self, n_choices: int, on_end: Callable[[Run], None]) -> None:
        """`on_end` is called once, when the last choice has left the generator."""
        self.n_choices = n_choices
        self._on_end = on_end
        self._streams: list[Stream] = []
        self._events: deque[tuple[int, Outcome]] = deque()
        self._came = asyncio.Event()
        self._n_running = n_choices  # choices whose last event has not come
        self._n_unread = n_choices  # choices whose last event was not taken by the reader

    # The service's side.

    def add(self, stream: Stream) -> None:
        """The stream of the next choice; its events come through `receive`."""
        self._streams.append(stream)

    def receive(self, choice: int, event: Outcome) -> None:
        """The next event of a choice. In the loop."""
        self._events.append((choice, event))
        self._came.set()
        if isinstance(event, (Finished, InfluenceError)):
            self._n_running -= 1
            if self._n_running == 0:
                self._on_end(self)

    def abort(self, error: ApiError) -> None:
        """End all choices now; the reader gets the error after what already came."""
        self.cancel()
        self._events.append((0, error))
        self._came.set()

    # The reader's side.

    def cancel(self) -> None:
        """End what still runs, within a step. Cancelling twice is allowed."""
        for stream in self._streams:
            stream.cancel()

    @property
    def is_cancelled(self) -> bool:
        """Whether its end was asked for."""
        return any(stream.cancel_wanted for stream in self._streams)

    async def collect(self) -> list[Completion]:
        """Wait for the end; each choice as one, in their order."""
        events: list[list[Event]] = [[] for _ in range(self.n_choices)]
        ends: dict[int, Finished] = {}
        async for choice, event in self:
            events[choice].append(event)
            if isinstance(event, Finished):
                ends[choice] = event
        return [completion_of(events[choice], ends[choice]) for choice in range(self.n_choices)]

    def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        return self

    async def __anext__(self) -> tuple[int, Event]:
        if self._n_unread == 0:
            raise StopAsyncIteration
        while not self._events:
            self._came.clear()
            await self._came.wait()
        choice, event = self._events.popleft()
        if isinstance(event, (InfluenceError, ApiError)):
            self._n_unread = 0
            raise event
        if isinstance(event, Finished):
            self._n_unread -= 1
        return choice, event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
