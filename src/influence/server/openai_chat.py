"""POST /v1/chat/completions: from a request to what is asked of the generator."""

from __future__ import annotations

from collections.abc import Mapping
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
from influence.server.openai_messages import (
    ChatMessage,
    ChatTool,
    NamedChoice,
    chat_tools,
    template_messages,
    tool_choice,
)
from influence.server.replies import chat_max_tokens
from influence.server.service import CompletionRequest
from influence.server.tool_use import ToolUse, tool_use

if TYPE_CHECKING:
    from influence.server.service import Service


class ChatRequest(Fields, kw_only=True):
    """The body. What it does not name is ignored."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[ChatTool] | None = None
    tool_choice: str | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None  # the template's own switches, as vLLM takes them
    add_generation_prompt: Refused = None
    audio: Refused = None
    chat_template: Refused = None
    continue_final_message: Refused = None
    documents: Refused = None
    echo: Refused = None
    function_call: Refused = None
    functions: Refused = None
    modalities: Refused = None
    web_search_options: Refused = None


@dataclass(frozen=True)
class ChatPlan:
    """A checked request."""

    request: CompletionRequest
    tools: ToolUse
    model: str  # as the client called it
    with_usage: bool = False  # in a stream: at its end
    with_running_usage: bool = False  # in a stream: in every chunk

    @property
    def with_logprobs(self) -> bool:
        return self.request.params.n_logprobs >= 0


async def plan_chat(asked: ChatRequest, service: Service, salt: str) -> ChatPlan:
    """Check a request and render its prompt. Raises ApiError and what the service raises."""
    check_fields(asked, service)
    choice, name = tool_choice(asked.tool_choice, has_tools=bool(asked.tools))
    parallel = asked.parallel_tool_calls is not False
    tools = tool_use(service, chat_tools(asked.tools), choice, name=name, parallel=parallel)
    max_tokens = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    given = sampling_fields(asked, chat_max_tokens(max_tokens, service)) | {"n_logprobs": _n_logprobs(asked)}
    params = service.params(given | tools.parameters(service.tokenizer))
    messages = template_messages(asked.messages)
    constraint = await asked_constraint(asked, service, tools)
    variables: Mapping[str, Any] | None = asked.chat_template_kwargs
    prompt = await service.chat_prompt(messages, tools=tools.for_template(), variables=variables)
    return ChatPlan(
        request=CompletionRequest(
            prompt.token_ids, params, n_choices(asked.n, service.settings), constraint, salt
        ),
        tools=tools,
        model=asked.model or service.facts.name,
        with_usage=asked.wants_usage,
        with_running_usage=asked.wants_running_usage,
    )


def _n_logprobs(asked: ChatRequest) -> int:
    """How many alternatives a token is to have; -1: no logprobs."""
    n_top = asked.top_logprobs or 0
    if not 0 <= n_top <= MAX_TOP_LOGPROBS:
        raise invalid(f"top_logprobs must be from 0 to {MAX_TOP_LOGPROBS}", "top_logprobs")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise invalid("top_logprobs needs logprobs: true", "top_logprobs")
    return n_top if asked.logprobs else -1
