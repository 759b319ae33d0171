"""Stop strings: the text that may be shown, cut exactly, however tokens cut it.

A completion ends at the first position where some stop string is complete; of
those complete there, the longest counts. This depends on the text alone, so
that streamed and whole, one token or many at a time, end at the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """Token ids in, whole characters out (`text.stream.IncrementalDetokenizer`)."""

    def push(self, token_id: int) -> str: ...
    def flush(self) -> str: ...


class StopMatcher:
    """Passes text through until a stop string; holds back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None  # the stop string that ended the text

    def push(self, text: str) -> str:
        """The text that is now certain to belong to the completion; "" once matched."""
        if self.matched is not None:
            return ""
        text = self._held + text
        found = find_stop(text, self._stops)
        if found is not None:
            start, self.matched = found
            self._held = ""
            return text[:start]
        n_held = held_length(text, self._stops)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def flush(self) -> str:
        """What was held back, at the end of a completion that no stop string ended."""
        text, self._held = self._held, ""
        return text


class CompletionText:
    """One sequence's way from token ids to text: detokenizer, then stop strings."""

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str]) -> None:
        self._detokenizer = detokenizer
        self._matcher = StopMatcher(stops)

    @property
    def matched(self) -> str | None:
        """The stop string that ended the text; None while none has."""
        return self._matcher.matched

    def push(self, token_id: int) -> str:
        """The text that this token makes certain."""
        return self._matcher.push(self._detokenizer.push(token_id))

    def flush(self) -> str:
        """The rest, at the end."""
        text = self._matcher.push(self._detokenizer.flush())
        return text + self._matcher.flush()


def find_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """(start, stop string) of the occurrence that ends first, the longest of those; None if there is none."""
    found = [(start + len(stop), start, stop) for stop in stops if (start := text.find(stop)) >= 0]
    if not found:
        return None
    _, start, stop = min(found)
    return start, stop


def held_length(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that a stop string, not complete in it, begins with."""
    return max((_overlap(text, stop) for stop in stops), default=0)


def _overlap(text: str, stop: str) -> int:
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(text[start:]):
            return len(text) - start
        start = text.find(stop[0], start + 1)
    return 0
