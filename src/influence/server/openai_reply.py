"""What OpenAI's chat completions answer: one object, or a stream of chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from influence.engines.sampling import Sample
from influence.generation.events import Completion, Event, Finished, FinishReason, TextDelta
from influence.server.errors import ending
from influence.server.openai_chat import ChatPlan
from influence.server.openai_logprobs import chat_logprobs
from influence.server.replies import ReplyReader, read_reply
from influence.server.runs import Run
from influence.server.streaming import sse
from influence.text.tool_calls import Part, ToolCall, ToolCallPart

if TYPE_CHECKING:
    from influence.text.tokenizer import Tokenizer

DONE = sse(b"[DONE]")


def usage(n_prompt: int, n_completion: int, n_cached: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
        "prompt_tokens_details": {"cached_tokens": n_cached},
    }


def usage_of(completions: Sequence[Completion]) -> dict[str, Any]:
    """Of the choices of one prompt, which counts once."""
    first = completions[0].statistics
    n_completion = sum(completion.statistics.completion_tokens for completion in completions)
    return usage(first.prompt_tokens, n_completion, first.cached_tokens)


def finish_reason(reason: FinishReason, n_calls: int) -> str:
    """In OpenAI's words. Raises ApiError where the server ended the reply."""
    if reason == "cancelled":
        raise ending()
    return "tool_calls" if n_calls and reason == "stop" else reason


def chat_completion(
    plan: ChatPlan, completions: Sequence[Completion], tokenizer: Tokenizer
) -> dict[str, Any]:
    """The whole answer."""
    return {
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": plan.model,
        "choices": [
            _choice(index, plan, completion, tokenizer) for index, completion in enumerate(completions)
        ],
        "usage": usage_of(completions),
        "system_fingerprint": None,
    }


def new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def _choice(index: int, plan: ChatPlan, completion: Completion, tokenizer: Tokenizer) -> dict[str, Any]:
    reply = read_reply(completion, plan.tools.new_reader())
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.calls:
        message["content"] = reply.text or None
        message["tool_calls"] = [_call(call) for call in reply.calls]
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(completion.logprobs, tokenizer) if plan.with_logprobs else None,
        "finish_reason": finish_reason(completion.finish_reason, len(reply.calls)),
    }


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"call_{uuid.uuid4().hex}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments_json},
    }


@dataclass(slots=True)
class _Choice:
    """What was sent of one choice."""

    reader: ReplyReader
    has_begun: bool = False
    n_calls: int = 0
    n_tokens: int = 0
    n_cached: int = 0
    unsent: list[Sample] = field(default_factory=list)  # logprobs of text that the reader holds back


class ChatChunks:
    """The chunks of one streamed answer."""

    def __init__(self, plan: ChatPlan, tokenizer: Tokenizer) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._head = {
            "id": new_id("chatcmpl"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": plan.model,
            "system_fingerprint": None,
        }
        self._choices = [_Choice(plan.tools.new_reader()) for _ in range(plan.request.n)]

    async def frames(self, run: Run) -> AsyncIterator[bytes]:
        """All frames of a run, the closing [DONE] too."""
        async for index, event in run:
            for frame in self.of_event(index, event):
                yield frame
        for frame in self.last():
            yield frame

    def of_event(self, index: int, event: Event) -> list[bytes]:
        """The frames that an event of a choice makes."""
        choice = self._choices[index]
        frames = [] if choice.has_begun else [self._delta(index, {"role": "assistant", "content": ""})]
        choice.has_begun = True
        match event:
            case TextDelta():
                choice.n_tokens += len(event.token_ids)
                choice.unsent += event.logprobs
                frames += self._of_parts(index, choice.reader.push(event.text))
            case Finished():
                choice.n_tokens = event.statistics.completion_tokens
                choice.n_cached = event.statistics.cached_tokens
                frames += self._of_parts(index, choice.reader.finish())
                reason = finish_reason(event.finish_reason, choice.n_calls)
                frames.append(self._delta(index, {}, reason))
        return frames

    def last(self) -> list[bytes]:
        """The frames after the last event."""
        if not self._plan.with_usage:
            return [DONE]
        return [self._frame([], self._usage()), DONE]

    def _of_parts(self, index: int, parts: Sequence[Part]) -> list[bytes]:
        return [self._delta(index, self._part(index, part)) for part in parts]

    def _part(self, index: int, part: Part) -> dict[str, Any]:
        if not isinstance(part, ToolCallPart):
            return {"content": part.text}
        choice = self._choices[index]
        choice.n_calls += 1
        return {"tool_calls": [{"index": choice.n_calls - 1, **_call(part.call)}]}

    def _delta(self, index: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = self._choices[index]
        logprobs = None
        if choice.unsent and "role" not in delta:
            logprobs = chat_logprobs(choice.unsent, self._tokenizer)
            choice.unsent = []
        body = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._frame([body], self._usage() if self._plan.with_running_usage else None)

    def _usage(self) -> dict[str, Any]:
        n_completion = sum(choice.n_tokens for choice in self._choices)
        return usage(len(self._plan.request.prompt_ids), n_completion, self._choices[0].n_cached)

    def _frame(self, choices: list[dict[str, Any]], counted: dict[str, Any] | None) -> bytes:
        chunk = {**self._head, "choices": choices}
        if self._plan.with_usage:
            chunk["usage"] = counted
        return sse(msgspec.json.encode(chunk))
