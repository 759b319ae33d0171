"""The prompts of one request as one run.

A request may hold more prompts than the queue has places. So they wait here,
and take places as earlier ones of the same request leave theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from influence.errors import InfluenceError, ServerBusy
from influence.generation.events import Finished
from influence.server.errors import ApiError, ending
from influence.server.runs import Outcome, Run
from influence.server.service import CompletionRequest, Service

# Of one request at a time: enough to fill the engine's steps, and others still find places.
MAX_AT_ONCE = 32

_Waiting = tuple[int, CompletionRequest, int]  # place in the run, request, choice of that request


class Batch(Run):
    """A run whose choices are those of all requests, in their order; in the generator a few at a time."""

    def __init__(self, service: Service, requests: Sequence[CompletionRequest]) -> None:
        self._service = service
        choices = [(request, choice) for request in requests for choice in range(request.n)]
        self._waiting: deque[_Waiting] = deque(
            (place, request, choice) for place, (request, choice) in enumerate(choices)
        )
        self._n_inside = 0
        super().__init__(len(choices), service.run_ended)

    def receive(self, choice: int, event: Outcome) -> None:
        super().receive(choice, event)
        if isinstance(event, (Finished, InfluenceError)):
            self._n_inside -= 1
            try:
                self.fill()
            except (InfluenceError, ApiError) as error:
                self._events.append((choice, error))  # for the reader: it ends with this
                self._came.set()

    def cancel(self) -> None:
        """What has not begun never will."""
        self._n_running -= len(self._waiting)
        if self._waiting and self._n_running == 0:
            self._on_end(self)
        self._waiting.clear()
        super().cancel()

    def fill(self) -> None:
        """Submit what finds a place now. Raises as Service.submit if nothing did, and nothing else runs."""
        while self._waiting and self._n_inside < MAX_AT_ONCE:
            place, request, choice = self._waiting[0]
            try:
                stream = self._service.submit_choice(self, place, request, choice)
            except ServerBusy:
                if self._n_inside == 0:
                    raise
                return
            self._waiting.popleft()
            self._n_inside += 1
            self.add(stream)


def submit_all(service: Service, requests: Sequence[CompletionRequest]) -> Run:
    """One run of all requests: choice j of request i, each of n, is choice i * n + j. Raises as Service.submit."""
    if len(requests) == 1:
        return service.submit(requests[0])
    if service.is_draining:
        raise ending()
    batch = Batch(service, requests)
    try:
        batch.fill()
    except BaseException:
        batch.cancel()
        raise
    service.runs.add(batch)
    return batch
