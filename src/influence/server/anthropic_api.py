"""Anthropic's protocol, as its clients of today speak it.

POST /v1/messages                {"messages", "max_tokens"} -> a message, or its events
POST /v1/messages/count_tokens   {"messages"} -> {"input_tokens"}
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from influence.errors import ServerBusy
from influence.server.anthropic_fields import (
    CountRequest,
    MessagesRequest,
    asked_tools,
    check_model,
    check_request,
    format_spec,
    sampling_fields,
    template_messages,
)
from influence.server.anthropic_reply import MessageEvents, MessagePlan, whole_message
from influence.server.errors import ApiError, Kind, api_error
from influence.server.guard import cache_salt
from influence.server.requests import read_body
from influence.server.service import CompletionRequest, Service
from influence.server.streaming import SSE, collected, sse, streamed
from influence.server.structure import combined_constraint

BODIES: Mapping[str, type] = {"/v1/messages": MessagesRequest, "/v1/messages/count_tokens": CountRequest}
OVERLOADED = 529  # Anthropic's status for what others call 503
ERROR_TYPES: dict[Kind, str] = {
    "invalid_request": "invalid_request_error",
    "authentication": "authentication_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "too_large": "request_too_large",
    "busy": "overloaded_error",
    "server": "api_error",
}

_Endpoint = Callable[["_Anthropic", Request], Awaitable[Response]]


def routes(service: Service) -> list[Route]:
    """The endpoints of Anthropic's protocol."""
    api = _Anthropic(service)
    return [
        Route("/v1/messages", api.messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", api.count_tokens, methods=["POST"]),
    ]


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """{"type": "error", "error": {type, message}, "request_id"}."""
    return {
        "type": "error",
        "error": {"type": ERROR_TYPES[error.kind], "message": error.message},
        "request_id": request_id,
    }


def _overloaded(endpoint: _Endpoint) -> _Endpoint:
    """The endpoint, with a server that takes no more told by Anthropic's own status."""

    @wraps(endpoint)
    async def told(self: _Anthropic, request: Request) -> Response:
        try:
            return await endpoint(self, request)
        except (ServerBusy, ApiError) as error:
            refusal = api_error(error)
            if refusal.kind != "busy":
                raise
            raise replace(refusal, status=OVERLOADED) from error

    return told


class _Anthropic:
    """The endpoints, over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @_overloaded
    async def messages(self, request: Request) -> Response:
        """The next message of a conversation, in Anthropic's shape."""
        asked = await read_body(request, MessagesRequest, self._service)
        plan = await self._plan(asked, cache_salt(request))
        run = self._service.submit(plan.request)
        if asked.stream:
            request_id = request.scope["state"]["request_id"]

            def error_frame(error: ApiError) -> bytes:
                return sse(msgspec.json.encode(error_body(error, request_id)), "error")

            return streamed(request, run, MessageEvents(plan).frames, SSE, error_frame)
        (completion,) = await collected(request, run)
        return _json(whole_message(plan, completion))

    async def count_tokens(self, request: Request) -> Response:
        """How many tokens a conversation has as a prompt."""
        asked = await read_body(request, CountRequest, self._service)
        check_model(asked.model, self._service)
        tools = asked_tools(asked, self._service)
        prompt = await self._service.chat_prompt(template_messages(asked), tools=tools.for_template())
        return _json({"input_tokens": len(prompt.token_ids)})

    async def _plan(self, asked: MessagesRequest, salt: str) -> MessagePlan:
        """Check a request and render its prompt. Raises ApiError and what the service raises."""
        check_model(asked.model, self._service)
        check_request(asked)
        tools = asked_tools(asked, self._service)
        params = self._service.params(sampling_fields(asked) | tools.parameters(self._service.tokenizer))
        messages = template_messages(asked)
        specs = {"output_config.format": format_spec(asked)}
        constraint = await combined_constraint(specs, self._service, tools)
        prompt = await self._service.chat_prompt(messages, tools=tools.for_template())
        request = CompletionRequest(prompt.token_ids, params, constraint=constraint, salt=salt)
        return MessagePlan(request, tools, asked.model)


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
