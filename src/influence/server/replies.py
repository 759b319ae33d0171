"""A reply as its client gets it: text, and calls of tools, piece by piece.

    TextDelta ... Finished  ->  ReplyReader  ->  TextPart | ToolCallPart ...

Pieces are made from the text alone, however it was cut, so that streamed and
whole say the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from influence.dataclass import dataclass
from influence.engines.sampling import Sample
from influence.generation.events import Completion
from influence.text.tool_calls import Part, TextPart, ToolCall, ToolCallPart

if TYPE_CHECKING:
    from influence.server.service import Service

# Chat clients that give no limit expect a whole answer; a longer one is mostly a model that
# repeats itself, and the places in the KV cache are kept for as many.
CHAT_MAX_TOKENS = 4096


class ReplyReader(Protocol):
    """One reply's text in, its parts out; `ToolCallParser` is one."""

    def push(self, text: str) -> Sequence[Part]: ...
    def finish(self) -> Sequence[Part]: ...


class PlainReader:
    """A reply that is all text."""

    def push(self, text: str) -> list[Part]:
        return [TextPart(text)] if text else []

    def finish(self) -> list[Part]:
        return []


class SingleCallReader:
    """Takes another reader's parts up to its first call; what follows is left out."""

    def __init__(self, inner: ReplyReader) -> None:
        self._inner = inner
        self._has_called = False

    def push(self, text: str) -> list[Part]:
        return self._until_call(self._inner.push(text))

    def finish(self) -> list[Part]:
        return self._until_call(self._inner.finish())

    def _until_call(self, parts: Sequence[Part]) -> list[Part]:
        kept: list[Part] = []
        for part in parts:
            if not self._has_called:
                kept.append(part)
            self._has_called |= isinstance(part, ToolCallPart)
        return kept


class ForcedCallReader:
    """A reply that a constraint made `{"name": …, "arguments": {…}}`, or a list of these.

    What the token limit cut off comes back as text.
    """

    def __init__(self) -> None:
        self._object = ""  # of the call that is being read, "" between calls
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def push(self, text: str) -> list[Part]:
        return [ToolCallPart(_call(self._taken())) for character in text if self._ends(character)]

    def finish(self) -> list[Part]:
        return [TextPart(self._taken())] if self._object else []

    def _ends(self, character: str) -> bool:
        """Take the next character; whether a call is complete with it."""
        if not self._object and character != "{":
            return False
        self._object += character
        if self._in_string:
            self._in_string = self._escaped or character != '"'
            self._escaped = character == "\\" and not self._escaped
            return False
        self._in_string = character == '"'
        self._depth += (character == "{") - (character == "}")
        return self._depth == 0

    def _taken(self) -> str:
        text, self._object = self._object, ""
        return text


def _call(text: str) -> ToolCall:
    made = json.loads(text)
    return ToolCall(made["name"], json.dumps(made["arguments"], ensure_ascii=False))


@dataclass(frozen=True)
class Reply:
    """A whole reply."""

    text: str
    calls: tuple[ToolCall, ...]
    completion: Completion

    @property
    def logprobs(self) -> tuple[Sample, ...]:
        return self.completion.logprobs


def read_reply(completion: Completion, reader: ReplyReader) -> Reply:
    """The parts of a whole completion, joined."""
    parts = [*reader.push(completion.text), *reader.finish()]
    return Reply(
        text="".join(part.text for part in parts if isinstance(part, TextPart)),
        calls=tuple(part.call for part in parts if isinstance(part, ToolCallPart)),
        completion=completion,
    )


def chat_max_tokens(given: int | None, service: Service) -> int:
    """The limit of a chat's reply: as given, as the model states, or CHAT_MAX_TOKENS."""
    stated = service.generation_config.max_new_tokens if given is None else given
    return CHAT_MAX_TOKENS if stated is None else stated
