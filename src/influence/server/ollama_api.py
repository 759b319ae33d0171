"""Ollama's protocol, as its clients of today speak it.

    POST /api/generate /api/chat          lines of JSON, or one object with "stream": false
    GET  /api/tags /api/ps /api/version   POST /api/show
    /api/embed, /api/pull and their kin   501: this server serves one model, and makes text

`/` belongs to page_api: it answers these clients with "Ollama is running".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from influence.server.errors import ApiError, refused
from influence.server.guard import cache_salt
from influence.server.ollama_fields import (
    ChatRequest,
    GenerateRequest,
    Named,
    check_asked,
    check_generate,
    check_model,
    format_spec,
    no_tools,
    sampling_options,
    template_messages,
)
from influence.server.ollama_reply import OllamaLines, OllamaPlan, line, loaded_reply, rfc3339, whole_reply
from influence.server.openai_messages import chat_tools
from influence.server.requests import read_body
from influence.server.service import CompletionRequest, Service
from influence.server.streaming import NDJSON, collected, streamed
from influence.server.structure import combined_constraint
from influence.server.tool_use import ToolUse, supports_tools, tool_use

# The version of Ollama whose protocol this is; clients refuse one that is too old for them.
PROTOCOL_VERSION = "0.13.0"
BODIES: Mapping[str, type] = {"/api/generate": GenerateRequest, "/api/chat": ChatRequest, "/api/show": Named}
FOREVER = datetime(2318, 1, 1, tzinfo=UTC)  # when a model that stays is unloaded, in Ollama's own answers
_ELSEWHERE = ("pull", "push", "create", "copy", "delete", "embed", "embeddings")


def routes(service: Service) -> list[Route]:
    """The endpoints of Ollama's protocol."""
    api = _Ollama(service)
    return [
        Route("/api/version", api.version, methods=["GET"]),
        Route("/api/tags", api.tags, methods=["GET"]),
        Route("/api/ps", api.running, methods=["GET"]),
        Route("/api/show", api.show, methods=["POST"]),
        Route("/api/generate", api.generate, methods=["POST"]),
        Route("/api/chat", api.chat, methods=["POST"]),
        *(Route(f"/api/{name}", api.not_here, methods=["POST", "DELETE"]) for name in _ELSEWHERE),
    ]


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """{"error": a string}."""
    is_busy = error.code == "server_busy"
    return {"error": f"server busy, please try again: {error.message}" if is_busy else error.message}


def error_frame(error: ApiError) -> bytes:
    """An error that comes after the status was sent."""
    return line(error_body(error, ""))


class _Ollama:
    """The endpoints, over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def version(self, request: Request) -> Response:
        """The version of the protocol."""
        return _json({"version": PROTOCOL_VERSION})

    async def tags(self, request: Request) -> Response:
        """The models that are here."""
        return _json({"models": [self._listed(name) for name in self._names()]})

    async def running(self, request: Request) -> Response:
        """The models that are loaded."""
        more = {
            "expires_at": rfc3339(FOREVER),
            "size_vram": 0,
            "context_length": self._service.facts.context,
        }
        return _json({"models": [{**self._listed(name), **more} for name in self._names()[:1]]})

    async def show(self, request: Request) -> Response:
        """What a model is."""
        asked = await read_body(request, Named, self._service)
        check_model(asked.model or asked.name, self._service)
        facts = self._service.facts
        model_info = {
            "general.architecture": facts.family,
            "general.basename": facts.name,
            "general.parameter_count": facts.n_parameters,
            f"{facts.family}.context_length": facts.context,
            "tokenizer.chat_template": facts.template_source,
        }
        return _json(
            {
                "modelfile": f"FROM {facts.name}",
                "parameters": "",
                "template": facts.template_source or "",
                "details": self._details(),
                "model_info": {key: value for key, value in model_info.items() if value is not None},
                "capabilities": ["completion", *(["tools"] if supports_tools(self._service) else [])],
                "modified_at": self._modified_at(),
            }
        )

    async def generate(self, request: Request) -> Response:
        """Continue a text, or answer it in the model's template."""
        asked = await read_body(request, GenerateRequest, self._service)
        check_asked(asked, self._service)
        check_generate(asked)
        if not asked.prompt:
            return self._loaded(asked.model, is_chat=False, stream=asked.wants_stream)
        params = self._service.params(sampling_options(asked, self._service))
        specs = {"format": format_spec(asked.format)}
        constraint = await combined_constraint(specs, self._service)
        prompt_ids = [*(asked.context or ()), *await self._prompt_ids(asked, asked.prompt)]
        completion = CompletionRequest(prompt_ids, params, constraint=constraint, salt=cache_salt(request))
        return await self._answer(
            request, OllamaPlan(completion, asked.model, is_chat=False, tools=ToolUse()), asked.wants_stream
        )

    async def chat(self, request: Request) -> Response:
        """The next message of a conversation."""
        asked = await read_body(request, ChatRequest, self._service)
        check_asked(asked, self._service)
        if not asked.messages:
            return self._loaded(asked.model, is_chat=True, stream=asked.wants_stream)
        if asked.tools and not supports_tools(self._service):
            raise no_tools(asked.model)
        tools = tool_use(self._service, chat_tools(asked.tools), "auto" if asked.tools else "none")
        given = sampling_options(asked, self._service) | tools.parameters(self._service.tokenizer)
        params = self._service.params(given)
        messages = template_messages(asked.messages)
        specs = {"format": format_spec(asked.format)}
        constraint = await combined_constraint(specs, self._service, tools)
        prompt = await self._service.chat_prompt(messages, tools=tools.for_template())
        completion = CompletionRequest(
            prompt.token_ids, params, constraint=constraint, salt=cache_salt(request)
        )
        plan = OllamaPlan(completion, asked.model, is_chat=True, tools=tools)
        return await self._answer(request, plan, asked.wants_stream)

    async def not_here(self, request: Request) -> Response:
        """Not supported: 501."""
        raise refused(501, "this server serves one model, and makes text: it has no such operation")

    async def _answer(self, request: Request, plan: OllamaPlan, stream: bool) -> Response:
        run = self._service.submit(plan.request)
        if stream:
            lines = OllamaLines(plan, self._service.tokenizer)
            return streamed(request, run, lines.frames, NDJSON, error_frame)
        (completion,) = await collected(request, run)
        return _json(whole_reply(plan, completion, self._service.tokenizer))

    async def _prompt_ids(self, asked: GenerateRequest, text: str) -> list[int]:
        """As the command line reads a prompt: in the chat template where the model has one."""
        if asked.raw or self._service.template is None:
            text = f"{asked.system}\n\n{text}" if asked.system and not asked.raw else text
            return (await self._service.text_prompt(text)).token_ids
        system = [{"role": "system", "content": asked.system}] if asked.system else []
        return (await self._service.chat_prompt([*system, {"role": "user", "content": text}])).token_ids

    def _loaded(self, model: str, *, is_chat: bool, stream: bool) -> Response:
        reply = loaded_reply(model, is_chat=is_chat)
        return Response(line(reply), media_type=NDJSON) if stream else _json(reply)

    def _names(self) -> list[str]:
        """As Ollama spells names: with a tag."""
        facts = self._service.facts
        return [f"{name}:latest" if ":" not in name else name for name in (facts.name, *facts.aliases)]

    def _listed(self, name: str) -> dict[str, Any]:
        facts = self._service.facts
        return {
            "name": name,
            "model": name,
            "modified_at": self._modified_at(),
            "size": facts.size_bytes,
            "digest": facts.digest,
            "details": self._details(),
        }

    def _modified_at(self) -> str:
        return rfc3339(datetime.fromtimestamp(self._service.facts.created_s, UTC))

    def _details(self) -> dict[str, Any]:
        facts = self._service.facts
        return {
            "parent_model": "",
            "format": "safetensors",
            "family": facts.family,
            "families": [facts.family],
            "parameter_size": _parameter_size(facts.n_parameters),
            "quantization_level": facts.dtype,
        }


def _parameter_size(n_parameters: int) -> str:
    """ "1.1B", "260.0K": as Ollama shows it."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n_parameters >= size:
            return f"{n_parameters / size:.1f}{unit}"
    return str(n_parameters)


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
