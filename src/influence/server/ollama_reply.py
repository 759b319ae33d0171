"""What Ollama's /api/generate and /api/chat answer: one object, or a line for each piece.

Durations are whole nanoseconds; the last line carries them and the counts.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from influence.dataclass import dataclass
from influence.engines.sampling import Sample
from influence.generation.events import Completion, Event, Finished, TextDelta
from influence.server.errors import ending
from influence.server.openai_logprobs import chat_logprobs
from influence.server.replies import read_reply
from influence.server.runs import Run
from influence.server.service import CompletionRequest
from influence.server.tool_use import ToolUse
from influence.text.tool_calls import Part, ToolCall, ToolCallPart

if TYPE_CHECKING:
    from influence.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class OllamaPlan:
    """A checked request of either kind."""

    request: CompletionRequest
    model: str  # as the client called it
    is_chat: bool
    tools: ToolUse

    def piece(self, text: str, calls: Sequence[ToolCall] = (), *, n_before: int = 0) -> dict[str, Any]:
        """Text and calls where the endpoint's clients look for them; `n_before` calls came already."""
        if not self.is_chat:
            return {"response": text}
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [_call(index, call) for index, call in enumerate(calls, n_before)]
        return {"message": message}


def _call(index: int, call: ToolCall) -> dict[str, Any]:
    arguments = json.loads(call.arguments_json)
    return {"function": {"index": index, "name": call.name, "arguments": arguments}}


def whole_reply(plan: OllamaPlan, completion: Completion, tokenizer: Tokenizer) -> dict[str, Any]:
    """The answer that is not streamed."""
    reply = read_reply(completion, plan.tools.new_reader())
    return {
        **head(plan.model),
        **plan.piece(reply.text, reply.calls),
        **_logprobs(completion.logprobs, tokenizer),
        **_end(plan, completion, completion.token_ids),
    }


def loaded_reply(model: str, *, is_chat: bool) -> dict[str, Any]:
    """The answer to a request without a prompt, by which clients load a model."""
    empty = {"message": {"role": "assistant", "content": ""}} if is_chat else {"response": ""}
    return {**head(model), **empty, "done": True, "done_reason": "load"}


def head(model: str) -> dict[str, Any]:
    return {"model": model, "created_at": rfc3339(datetime.now(UTC))}


def rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def line(content: dict[str, Any]) -> bytes:
    """One object of the stream."""
    return msgspec.json.encode(content) + b"\n"


def _logprobs(samples: Sequence[Sample], tokenizer: Tokenizer) -> dict[str, Any]:
    """The field, where logprobs were asked for."""
    return {"logprobs": chat_logprobs(samples, tokenizer)["content"]} if samples else {}


def _end(plan: OllamaPlan, end: Finished | Completion, token_ids: Sequence[int]) -> dict[str, Any]:
    """What the last object says. Raises ApiError where the server ended the reply."""
    if end.finish_reason == "cancelled":
        raise ending()
    statistics = end.statistics
    durations = {
        "total_duration": statistics.queue_s + statistics.prefill_s + statistics.decode_s,
        "load_duration": 0.0,
        "prompt_eval_duration": statistics.prefill_s,
        "eval_duration": statistics.decode_s,
    }
    fields: dict[str, Any] = {
        "done": True,
        "done_reason": end.finish_reason,
        **{name: round(seconds * 1e9) for name, seconds in durations.items()},
        "prompt_eval_count": statistics.prompt_tokens,
        "eval_count": statistics.completion_tokens,
    }
    if not plan.is_chat:
        fields["context"] = [*plan.request.prompt_ids, *token_ids]
    return fields


class OllamaLines:
    """The lines of one streamed answer."""

    def __init__(self, plan: OllamaPlan, tokenizer: Tokenizer) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._reader = plan.tools.new_reader()
        self._token_ids: list[int] = []
        self._unsent: list[Sample] = []  # logprobs of text that the reader holds back
        self._n_calls = 0

    async def frames(self, run: Run) -> AsyncIterator[bytes]:
        """All lines of a run."""
        async for _, event in run:
            for content in self.of_event(event):
                yield line(content)

    def of_event(self, event: Event) -> list[dict[str, Any]]:
        """The objects that an event makes."""
        match event:
            case TextDelta():
                self._token_ids += event.token_ids
                self._unsent += event.logprobs
                return [self._object(part) for part in self._reader.push(event.text)]
            case Finished():
                parts = [self._object(part) for part in self._reader.finish()]
                end = _end(self._plan, event, self._token_ids)
                return [*parts, {**head(self._plan.model), **self._plan.piece(""), **self._told(), **end}]
        return []

    def _object(self, part: Part) -> dict[str, Any]:
        if isinstance(part, ToolCallPart):
            piece = self._plan.piece("", [part.call], n_before=self._n_calls)
            self._n_calls += 1
        else:
            piece = self._plan.piece(part.text)
        return {**head(self._plan.model), **piece, **self._told(), "done": False}

    def _told(self) -> dict[str, Any]:
        samples, self._unsent = self._unsent, []
        return _logprobs(samples, self._tokenizer)
