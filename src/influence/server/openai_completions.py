"""POST /v1/completions: from a request to what is asked of the generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from influence.dataclass import dataclass
from influence.server.errors import invalid
from influence.server.openai_fields import (
    MAX_TOP_LOGPROBS,
    Fields,
    Refused,
    asked_constraint,
    check_fields,
    n_choices,
    sampling_fields,
)
from influence.server.service import CompletionRequest

if TYPE_CHECKING:
    from influence.server.service import Service

MAX_PROMPTS = 1024  # of one request; they wait in the request itself, not in the queue


class TextRequest(Fields, kw_only=True):
    """The body. What it does not name is ignored."""

    prompt: str | list[str | int | list[int]]
    echo: bool | None = None  # the prompt before each completion
    logprobs: int | None = None
    best_of: int | None = None
    suffix: Refused = None


@dataclass(frozen=True)
class TextPrompt:
    """One prompt, as text for an echo and as tokens."""

    text: str
    token_ids: Sequence[int]


@dataclass(frozen=True)
class TextPlan:
    """A checked request: one CompletionRequest for each prompt, each of `n_kept` answers or more."""

    prompts: tuple[TextPrompt, ...]
    requests: tuple[CompletionRequest, ...]
    n_kept: int  # choices of each prompt that are given back; the likeliest, if more are made
    echo: bool
    with_logprobs: bool
    model: str  # as the client called it
    with_usage: bool = False  # in a stream: at its end
    with_running_usage: bool = False  # in a stream: in every chunk


async def plan_text(asked: TextRequest, service: Service, salt: str) -> TextPlan:
    """Check a request and encode its prompts. Raises ApiError and what the service raises."""
    check_fields(asked, service)
    n_made = _n_made(asked, service)
    given = sampling_fields(asked, asked.max_tokens) | _logprob_fields(asked, n_made)
    params = service.params(given)
    constraint = await asked_constraint(asked, service)
    prompts = await _prompts(asked, service)
    return TextPlan(
        prompts=tuple(prompts),
        requests=tuple(
            CompletionRequest(prompt.token_ids, params, n_made, constraint, salt) for prompt in prompts
        ),
        n_kept=n_choices(asked.n, service.settings),
        echo=bool(asked.echo),
        with_logprobs=asked.logprobs is not None,
        model=asked.model or service.facts.name,
        with_usage=asked.wants_usage,
        with_running_usage=asked.wants_running_usage,
    )


def _n_made(asked: TextRequest, service: Service) -> int:
    """How many completions of a prompt are made, of which the best `n` are kept."""
    n = n_choices(asked.n, service.settings)
    if asked.best_of is None or asked.best_of == n:
        return n
    if not n <= asked.best_of <= service.settings.max_choices:
        raise invalid(f"best_of must be from n to {service.settings.max_choices}", "best_of")
    if asked.stream:
        raise invalid("best_of can't be streamed: the best is known at the end", "best_of")
    return asked.best_of


def _logprob_fields(asked: TextRequest, n_made: int) -> dict[str, Any]:
    if asked.logprobs is not None and not 0 <= asked.logprobs <= MAX_TOP_LOGPROBS:
        raise invalid(f"logprobs must be from 0 to {MAX_TOP_LOGPROBS}", "logprobs", code="invalid_value")
    if asked.logprobs is None:
        # To find the best of several, their tokens' own logprobs are needed.
        return {"n_logprobs": 0} if n_made > (asked.n or 1) else {}
    fields = {"n_logprobs": asked.logprobs}
    return fields | {"prompt_logprobs": asked.logprobs} if asked.echo else fields


async def _prompts(asked: TextRequest, service: Service) -> list[TextPrompt]:
    given = asked.prompt
    if isinstance(given, list) and given and all(isinstance(item, int) for item in given):
        given = [given]  # type: ignore[list-item]
    prompts = [given] if isinstance(given, str) else given
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise invalid(f"prompt must hold from 1 to {MAX_PROMPTS} prompts", "prompt", code="invalid_value")
    return [await _prompt(index, prompt, asked, service) for index, prompt in enumerate(prompts)]


async def _prompt(
    index: int, given: str | int | list[int], asked: TextRequest, service: Service
) -> TextPrompt:
    if isinstance(given, str):
        return TextPrompt(given, (await service.text_prompt(given)).token_ids)
    if isinstance(given, int):
        raise invalid(f"prompt[{index}] is a token id among texts", f"prompt[{index}]")
    if not asked.echo:
        return TextPrompt("", given)
    text = await service.in_worker(service.tokenizer.decode, given, skip_special_tokens=False)
    return TextPrompt(text, given)
