"""OpenAI's protocol, as its clients of today speak it.

GET  /v1/models, /v1/models/{id}
POST /v1/chat/completions    {"messages": …} -> an object, or chunks and data: [DONE]
POST /v1/completions         {"prompt": …}   -> likewise
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from influence.server.batch import submit_all
from influence.server.errors import ApiError, error_fields, refused
from influence.server.guard import cache_salt
from influence.server.openai_chat import ChatRequest, plan_chat
from influence.server.openai_completions import TextRequest, plan_text
from influence.server.openai_fields import unknown_model
from influence.server.openai_reply import ChatChunks, chat_completion
from influence.server.openai_text_reply import TextChunks, text_completion
from influence.server.requests import read_body
from influence.server.service import Service
from influence.server.streaming import SSE, collected, sse, streamed

BODIES: Mapping[str, type] = {"/v1/chat/completions": ChatRequest, "/v1/completions": TextRequest}


def routes(service: Service) -> list[Route]:
    """The endpoints of OpenAI's protocol."""
    api = _OpenAI(service)
    return [
        Route("/v1/models", api.models, methods=["GET"]),
        Route("/v1/models/{model:path}", api.model, methods=["GET"]),
        Route("/v1/chat/completions", api.chat_completions, methods=["POST"]),
        Route("/v1/completions", api.completions, methods=["POST"]),
        Route("/v1/embeddings", api.embeddings, methods=["POST"]),
        Route("/v1/responses", api.responses, methods=["POST"]),
    ]


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """{"error": {message, type, param, code}}."""
    return {"error": error_fields(error, busy="rate_limit_error")}


def error_frame(error: ApiError) -> bytes:
    """An error that comes after the status was sent."""
    return sse(msgspec.json.encode(error_body(error, "")))


class _OpenAI:
    """The endpoints, over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def models(self, request: Request) -> Response:
        """The names that the model answers to."""
        facts = self._service.facts
        names = (facts.name, *facts.aliases)
        if "anthropic-version" in request.headers:
            return _json(_anthropic_list([self._anthropic_model(name) for name in names]))
        return _json({"object": "list", "data": [self._model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        """One name of the model."""
        name = request.path_params["model"]
        if not self._service.facts.answers_to(name):
            raise unknown_model(name)
        is_anthropic = "anthropic-version" in request.headers
        return _json(self._anthropic_model(name) if is_anthropic else self._model(name))

    async def chat_completions(self, request: Request) -> Response:
        """The next message of a conversation, in OpenAI's shape."""
        asked = await read_body(request, ChatRequest, self._service)
        plan = await plan_chat(asked, self._service, cache_salt(request))
        run = self._service.submit(plan.request)
        if asked.stream:
            return streamed(request, run, ChatChunks(plan, self._service.tokenizer).frames, SSE, error_frame)
        completions = await collected(request, run)
        return _json(chat_completion(plan, completions, self._service.tokenizer))

    async def completions(self, request: Request) -> Response:
        """Texts continued, or scored."""
        asked = await read_body(request, TextRequest, self._service)
        plan = await plan_text(asked, self._service, cache_salt(request))
        run = submit_all(self._service, plan.requests)
        if asked.stream:
            return streamed(request, run, TextChunks(plan, self._service.tokenizer).frames, SSE, error_frame)
        completions = await collected(request, run)
        return _json(text_completion(plan, completions, self._service.tokenizer))

    async def embeddings(self, request: Request) -> Response:
        """Not supported: 400."""
        raise refused(400, "this server makes text, no embeddings", code="unsupported_endpoint")

    async def responses(self, request: Request) -> Response:
        """Not supported: 404."""
        raise refused(
            404, "the Responses API is not here: use /v1/chat/completions", code="unsupported_endpoint"
        )

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._service.facts.created_s,
            "owned_by": "influence",
            "max_model_len": self._service.facts.context,  # vLLM's field; clients fit their prompts to it
        }

    def _anthropic_model(self, name: str) -> dict[str, Any]:
        created = datetime.fromtimestamp(self._service.facts.created_s, UTC)
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": created.isoformat().replace("+00:00", "Z"),
        }


def _anthropic_list(models: list[dict[str, Any]]) -> dict[str, Any]:
    """Anthropic's clients ask at the same path for another shape."""
    return {"data": models, "has_more": False, "first_id": models[0]["id"], "last_id": models[-1]["id"]}


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
