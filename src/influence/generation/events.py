"""What a caller of the generator holds and receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Literal, Self

from influence.engines.sampling import Sample
from influence.errors import InfluenceError

# "stop": an EOS token, a stop string, a complete constraint; "length": max_tokens or the context's end.
FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a request cost."""

    prompt_tokens: int
    cached_tokens: int  # of the prompt, taken from earlier requests instead of computed
    completion_tokens: int  # every token sampled; an EOS that ended the completion counts
    queue_s: float  # from submission until a place was free
    prefill_s: float  # from then until the first token
    decode_s: float  # from the first token until the last
    first_token_s: float | None  # from submission; None if there was no token
    drafted_tokens: int = 0  # guessed, and run on trial
    accepted_tokens: int = 0  # those of them that came true: so many steps were saved

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Prompt tokens computed per second; None where nothing was measured."""
        return (self.prompt_tokens - self.cached_tokens) / self.prefill_s if self.prefill_s > 0 else None

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens after the first per second; None where nothing was measured."""
        return (self.completion_tokens - 1) / self.decode_s if self.decode_s > 0 else None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of text: whole characters, never part of a stop string.

    `token_ids` are those sampled since the piece before, also where a stop
    string cut their text away; together all but an ending EOS. A piece may be
    empty at the very end.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[Sample, ...] = ()  # one a token, if they were asked for


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a completion; nothing follows it."""

    finish_reason: FinishReason
    statistics: Statistics
    stop_string: str | None = None  # the stop string that ended it, if one did
    eos: Sample | None = None  # the EOS token that ended it, if one did and logprobs were asked for


@dataclass(frozen=True, slots=True)
class PromptScored:
    """How likely each token of the prompt was after those before it; comes before any text.

    One entry a token. Nothing stands before the first, so that its entry is None.
    """

    logprobs: tuple[Sample | None, ...]


Event = TextDelta | PromptScored | Finished
OnEvent = Callable[[Event | InfluenceError], None]


@dataclass(frozen=True, slots=True)
class Completion:
    """All events of a request in one."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[Sample, ...]
    finish_reason: FinishReason
    statistics: Statistics
    stop_string: str | None
    prompt_logprobs: tuple[Sample | None, ...] = ()  # as in PromptScored, if they were asked for
    eos: Sample | None = None


class Stream:
    """The events of one request, in order: iterate it, from one thread.

    A PromptScored if it was asked for, any number of TextDelta, then one
    Finished or a raised InfluenceError. Its queue is unbounded, so that a
    caller who does not read never holds up the others; max_tokens bounds what
    can gather in it. Leaving its `with` block cancels what still runs.
    """

    def __init__(self, wake: Callable[[], None], on_event: OnEvent | None = None) -> None:
        """`wake` makes the generator look at `cancel_wanted`; `on_event` is given what is not to be queued."""
        self._queue: SimpleQueue[Event | InfluenceError] = SimpleQueue()
        self._wake = wake
        self._on_event = on_event
        self._ended = False
        self.cancel_wanted = False

    def put(self, event: Event | InfluenceError) -> None:
        """For the generator: hand over the next event."""
        if self._on_event is None:
            self._queue.put(event)
            return
        try:
            self._on_event(event)
        except Exception:  # whoever can't be told has left (his event loop is closed); others go on
            self._on_event = _forget
            self.cancel_wanted = True

    def cancel(self) -> None:
        """Ask for the end, from any thread; a Finished "cancelled" follows within a step.

        Unless it ended by itself before. Cancelling twice is allowed.
        """
        self.cancel_wanted = True
        self._wake()

    def collect(self) -> Completion:
        """Wait for the end; all of it as one."""
        events: list[Event] = []
        for event in self:
            events.append(event)
            if isinstance(event, Finished):
                return completion_of(events, event)
        raise InfluenceError("the events of this request were read before")

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if self._ended:
            raise StopIteration
        event = self._queue.get()
        self._ended = isinstance(event, (Finished, InfluenceError))
        if isinstance(event, InfluenceError):
            raise event
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


def completion_of(events: Sequence[Event], end: Finished) -> Completion:
    """What the events of one request say together; `end` is the last of them."""
    deltas = [event for event in events if isinstance(event, TextDelta)]
    scores = [event.logprobs for event in events if isinstance(event, PromptScored)]
    return Completion(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token_id for delta in deltas for token_id in delta.token_ids),
        logprobs=tuple(sample for delta in deltas for sample in delta.logprobs),
        finish_reason=end.finish_reason,
        statistics=end.statistics,
        stop_string=end.stop_string,
        prompt_logprobs=scores[0] if scores else (),
        eos=end.eos,
    )


def _forget(event: Event | InfluenceError) -> None:
    """In the place of a receiver that failed."""
