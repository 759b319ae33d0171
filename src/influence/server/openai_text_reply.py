"""What OpenAI's completions answer: one object, or a stream of chunks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from influence.engines.sampling import Sample
from influence.generation.events import Completion, Event, Finished, PromptScored, TextDelta
from influence.server.openai_completions import TextPlan, TextPrompt
from influence.server.openai_logprobs import CompletionLogprobs
from influence.server.openai_reply import DONE, finish_reason, new_id, usage
from influence.server.runs import Run
from influence.server.streaming import sse

if TYPE_CHECKING:
    from influence.text.tokenizer import Tokenizer


def text_completion(
    plan: TextPlan, completions: Sequence[Completion], tokenizer: Tokenizer
) -> dict[str, Any]:
    """The whole answer. `completions` are those of all prompts, in the order of the run."""
    choices = []
    for at, prompt in enumerate(plan.prompts):
        n_made = plan.requests[at].n
        made = completions[at * n_made : (at + 1) * n_made]
        choices += [_choice(plan, prompt, completion, tokenizer) for completion in _best(made, plan.n_kept)]
    return {
        "id": new_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": plan.model,
        "choices": [{"index": index, **choice} for index, choice in enumerate(choices)],
        "usage": _usage(plan, completions),
        "system_fingerprint": None,
    }


def _best(completions: Sequence[Completion], n: int) -> Sequence[Completion]:
    """The `n` whose tokens were likeliest on average, best first; all of them as they are."""
    return completions if len(completions) == n else sorted(completions, key=_mean_logprob, reverse=True)[:n]


def _mean_logprob(completion: Completion) -> float:
    logprobs = [sample.logprob or 0.0 for sample in _samples(completion)]
    return sum(logprobs) / max(1, len(logprobs))


def _samples(completion: Completion) -> list[Sample]:
    """Of every token that was sampled, the EOS too."""
    return [*completion.logprobs, *([] if completion.eos is None else [completion.eos])]


def _choice(
    plan: TextPlan, prompt: TextPrompt, completion: Completion, tokenizer: Tokenizer
) -> dict[str, Any]:
    samples: list[Sample | None] = list(_samples(completion))
    token_ids = [sample.token_id for sample in _samples(completion)]
    if plan.echo:
        samples = [*completion.prompt_logprobs, *samples]
        token_ids = [*prompt.token_ids, *token_ids]
    return {
        "text": (prompt.text if plan.echo else "") + completion.text,
        "logprobs": CompletionLogprobs(tokenizer).of(samples, token_ids) if plan.with_logprobs else None,
        "finish_reason": finish_reason(completion.finish_reason, 0),
    }


def _usage(plan: TextPlan, completions: Sequence[Completion]) -> dict[str, Any]:
    """Of all that was made; a prompt counts once, however many completions it has."""
    return usage(
        sum(len(prompt.token_ids) for prompt in plan.prompts),
        sum(completion.statistics.completion_tokens for completion in completions),
        sum(completions[at * request.n].statistics.cached_tokens for at, request in enumerate(plan.requests)),
    )


@dataclass(slots=True)
class _Choice:
    """What was sent of one choice."""

    prompt: TextPrompt
    logprobs: CompletionLogprobs
    has_begun: bool = False
    n_tokens: int = 0
    n_cached: int = 0


class TextChunks:
    """The chunks of one streamed answer."""

    def __init__(self, plan: TextPlan, tokenizer: Tokenizer) -> None:
        self._plan = plan
        self._head = {
            "id": new_id("cmpl"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": plan.model,
            "system_fingerprint": None,
        }
        self._choices = [
            _Choice(prompt, CompletionLogprobs(tokenizer))
            for prompt, request in zip(plan.prompts, plan.requests, strict=True)
            for _ in range(request.n)
        ]

    async def frames(self, run: Run) -> AsyncIterator[bytes]:
        """All frames of a run, the closing [DONE] too."""
        async for index, event in run:
            for frame in self.of_event(index, event):
                yield frame
        if self._plan.with_usage:
            yield self._frame([], self._usage())
        yield DONE

    def of_event(self, index: int, event: Event) -> list[bytes]:
        """The frames that an event of a choice makes."""
        choice = self._choices[index]
        frames = []
        if self._plan.echo and not choice.has_begun:
            scores = event.logprobs if isinstance(event, PromptScored) else ()
            frames.append(self._piece(index, choice.prompt.text, scores, choice.prompt.token_ids))
        choice.has_begun = True
        match event:
            case TextDelta():
                choice.n_tokens += len(event.token_ids)
                frames.append(self._piece(index, event.text, event.logprobs, event.token_ids))
            case Finished():
                choice.n_tokens = event.statistics.completion_tokens
                choice.n_cached = event.statistics.cached_tokens
                last = () if event.eos is None else (event.eos,)
                reason = finish_reason(event.finish_reason, 0)
                frames.append(self._piece(index, "", last, [sample.token_id for sample in last], reason))
        return frames

    def _piece(
        self,
        index: int,
        text: str,
        samples: Sequence[Sample | None],
        token_ids: Sequence[int],
        reason: str | None = None,
    ) -> bytes:
        logprobs = self._choices[index].logprobs.of(samples, token_ids) if samples else None
        body = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return self._frame([body], self._usage() if self._plan.with_running_usage else None)

    def _usage(self) -> dict[str, Any]:
        return usage(
            sum(len(prompt.token_ids) for prompt in self._plan.prompts),
            sum(choice.n_tokens for choice in self._choices),
            sum(choice.n_cached for choice in self._choices[:: self._plan.requests[0].n]),
        )

    def _frame(self, choices: list[dict[str, Any]], counted: dict[str, Any] | None) -> bytes:
        chunk = {**self._head, "choices": choices}
        if self._plan.with_usage:
            chunk["usage"] = counted
        return sse(msgspec.json.encode(chunk))
