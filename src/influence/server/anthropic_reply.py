"""What Anthropic's /v1/messages answers: one message, or the events that build it.

message_start
  content_block_start, content_block_delta …, content_block_stop     for each block in turn
message_delta, message_stop
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from influence.dataclass import dataclass
from influence.generation.events import Completion, Event, Finished, TextDelta
from influence.server.errors import ending
from influence.server.replies import read_reply
from influence.server.runs import Run
from influence.server.service import CompletionRequest
from influence.server.streaming import sse
from influence.server.tool_use import ToolUse
from influence.text.tool_calls import Part, ToolCall, ToolCallPart


@dataclass(frozen=True)
class MessagePlan:
    """A checked request."""

    request: CompletionRequest
    tools: ToolUse
    model: str  # as the client called it


def whole_message(plan: MessagePlan, completion: Completion) -> dict[str, Any]:
    """The answer that is not streamed."""
    reply = read_reply(completion, plan.tools.new_reader())
    text = [{"type": "text", "text": reply.text}] if reply.text or not reply.calls else []
    return {
        **_empty_message(plan),
        "content": [
            *text,
            *({**_tool_use(call), "input": json.loads(call.arguments_json)} for call in reply.calls),
        ],
        **_stop(completion, len(reply.calls)),
        "usage": {
            "input_tokens": completion.statistics.prompt_tokens,
            "output_tokens": completion.statistics.completion_tokens,
        },
    }


def _empty_message(plan: MessagePlan) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": plan.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": len(plan.request.prompt_ids), "output_tokens": 0},
    }


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex}", "name": call.name, "input": {}}


def _stop(end: Finished | Completion, n_calls: int) -> dict[str, Any]:
    """Why the reply ended. Raises ApiError where the server ended it."""
    if end.finish_reason == "cancelled":
        raise ending()
    if end.finish_reason == "length":
        reason = "max_tokens"
    elif n_calls:
        reason = "tool_use"
    else:
        reason = "end_turn" if end.stop_string is None else "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": end.stop_string}


class MessageEvents:
    """The events of one streamed answer."""

    def __init__(self, plan: MessagePlan) -> None:
        self._plan = plan
        self._reader = plan.tools.new_reader()
        self._n_calls = 0
        self._n_blocks = 0  # begun so far; the last may be open
        self._is_text_open = False

    async def frames(self, run: Run) -> AsyncIterator[bytes]:
        """All frames of a run."""
        yield _frame("message_start", message=_empty_message(self._plan))
        async for _, event in run:
            for frame in self.of_event(event):
                yield frame

    def of_event(self, event: Event) -> list[bytes]:
        """The frames that an event makes."""
        match event:
            case TextDelta():
                return [frame for part in self._reader.push(event.text) for frame in self._of_part(part)]
            case Finished():
                frames = [frame for part in self._reader.finish() for frame in self._of_part(part)]
                if self._n_blocks == 0:  # an answer has a block, as the whole message does
                    frames += self._open({"type": "text", "text": ""})
                    self._is_text_open = True
                return [*frames, *self._close_text(), *self._last(event)]
        return []

    def _of_part(self, part: Part) -> list[bytes]:
        if isinstance(part, ToolCallPart):
            self._n_calls += 1
            frames = [*self._close_text(), *self._open(_tool_use(part.call))]
            frames.append(self._delta(type="input_json_delta", partial_json=part.call.arguments_json))
            return [*frames, self._close()]
        opening = [] if self._is_text_open else self._open({"type": "text", "text": ""})
        self._is_text_open = True
        return [*opening, self._delta(type="text_delta", text=part.text)]

    def _open(self, block: dict[str, Any]) -> list[bytes]:
        self._n_blocks += 1
        return [_frame("content_block_start", index=self._n_blocks - 1, content_block=block)]

    def _delta(self, **delta: Any) -> bytes:
        return _frame("content_block_delta", index=self._n_blocks - 1, delta=delta)

    def _close(self) -> bytes:
        return _frame("content_block_stop", index=self._n_blocks - 1)

    def _close_text(self) -> list[bytes]:
        was_open, self._is_text_open = self._is_text_open, False
        return [self._close()] if was_open else []

    def _last(self, end: Finished) -> list[bytes]:
        counted = {
            "input_tokens": end.statistics.prompt_tokens,
            "output_tokens": end.statistics.completion_tokens,
        }
        stop = _stop(end, self._n_calls)
        return [_frame("message_delta", delta=stop, usage=counted), _frame("message_stop")]


def _frame(kind: str, **fields: Any) -> bytes:
    return sse(msgspec.json.encode({"type": kind, **fields}), kind)
