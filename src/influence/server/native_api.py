"""Our own protocol: text in, text out, and the model's tokenizer.

POST /v1/generate         {"prompt": ...} -> {"text", "finish_reason", "usage", ...}
POST /v1/generate_stream  the same -> event: token (a JSON string) ... event: done (or: error)
POST /tokenize /detokenize /apply-template, GET /tokenizer_info
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from influence.generation.events import Completion, Finished, Statistics, TextDelta
from influence.generation.structured import ConstraintSpec
from influence.server.errors import ApiError, error_fields, invalid
from influence.server.guard import cache_salt
from influence.server.requests import read_body
from influence.server.runs import Run
from influence.server.service import CompletionRequest, Service
from influence.server.streaming import SSE, collected, sse, streamed
from influence.server.structure import combined_constraint


class GenerateRequest(Struct, kw_only=True):
    """The body of /v1/generate and /v1/generate_stream; what is left out is the model's choice."""

    prompt: str | list[int]  # a text, or token ids
    system: str | None = None
    raw: bool = False  # give the model the prompt as it is, without its chat template
    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False
    json_schema: dict[str, Any] | None = None  # at most one of these three: what the text must be
    regex: str | None = None
    grammar: str | None = None  # in llguidance's variant of Lark's syntax


class TokenizeRequest(Struct, kw_only=True):
    """The body of /tokenize: a text, or a conversation that goes through the chat template."""

    prompt: str | UnsetType = UNSET
    messages: list[dict[str, Any]] | UnsetType = UNSET
    add_special_tokens: bool = True
    add_generation_prompt: bool = True


class DetokenizeRequest(Struct, kw_only=True):
    """The body of /detokenize."""

    tokens: list[int]


class TemplateRequest(Struct, kw_only=True):
    """The body of /apply-template."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] | None = None


BODIES: Mapping[str, type] = {
    "/v1/generate": GenerateRequest,
    "/v1/generate_stream": GenerateRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
    "/apply-template": TemplateRequest,
}


def routes(service: Service) -> list[Route]:
    """The endpoints of our own protocol."""
    native = _Native(service)
    return [
        Route("/v1/generate", native.generate, methods=["POST"]),
        Route("/v1/generate_stream", native.generate_stream, methods=["POST"]),
        Route("/tokenize", native.tokenize, methods=["POST"]),
        Route("/detokenize", native.detokenize, methods=["POST"]),
        Route("/apply-template", native.apply_template, methods=["POST"]),
        Route("/tokenizer_info", native.tokenizer_info, methods=["GET"]),
    ]


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """{"error": {message, type, param, code, request_id}}."""
    return {"error": {**error_fields(error, busy="server_busy"), "request_id": request_id}}


class _Native:
    """The endpoints, over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def generate(self, request: Request) -> Response:
        """A completion of a prompt."""
        run = await self._submit(request)
        (completion,) = await collected(request, run)
        return _json(_result(completion))

    async def generate_stream(self, request: Request) -> Response:
        """The same as server-sent events: token, ..., done."""
        run = await self._submit(request)
        request_id = request.scope["state"]["request_id"]

        def error_frame(error: ApiError) -> bytes:
            return sse(msgspec.json.encode(error_body(error, request_id)), "error")

        return streamed(request, run, _frames, SSE, error_frame)

    async def tokenize(self, request: Request) -> Response:
        """The token ids of a text or a conversation."""
        body = await read_body(request, TokenizeRequest, self._service)
        if isinstance(body.messages, list):
            prompt = await self._service.chat_prompt(
                body.messages, add_generation_prompt=body.add_generation_prompt
            )
            token_ids = prompt.token_ids
        elif isinstance(body.prompt, str):
            token_ids = await self._service.in_worker(
                self._service.tokenizer.encode, body.prompt, add_special_tokens=body.add_special_tokens
            )
        else:
            raise invalid("prompt: a text is needed, or messages", "prompt")
        return _json(
            {"tokens": token_ids, "count": len(token_ids), "max_model_len": self._service.facts.context}
        )

    async def detokenize(self, request: Request) -> Response:
        """The text of token ids."""
        body = await read_body(request, DetokenizeRequest, self._service)
        text = await self._service.in_worker(
            self._service.tokenizer.decode, body.tokens, skip_special_tokens=False
        )
        return _json({"prompt": text})

    async def apply_template(self, request: Request) -> Response:
        """A conversation as the one text that the model reads."""
        body = await read_body(request, TemplateRequest, self._service)
        prompt = await self._service.chat_prompt(
            body.messages,
            tools=body.tools,
            add_generation_prompt=body.add_generation_prompt,
            variables=body.chat_template_kwargs,
        )
        return _json({"prompt": prompt.text, "tokens": prompt.token_ids})

    async def tokenizer_info(self, request: Request) -> Response:
        """Special tokens and the chat template."""
        facts = self._service.facts
        names = self._service.tokenizer.special_tokens
        return _json(
            {
                "eos_token": facts.eos_token,
                "bos_token": facts.bos_token,
                "pad_token": names.get("pad_token"),
                "chat_template": facts.template_source,
            }
        )

    async def _submit(self, request: Request) -> Run:
        body = await read_body(request, GenerateRequest, self._service)
        params = self._service.params(_given(body))
        constraint = await combined_constraint(_specs(body), self._service)
        prompt_ids = await self._prompt_ids(body)
        wanted = CompletionRequest(prompt_ids, params, constraint=constraint, salt=cache_salt(request))
        return self._service.submit(wanted)

    async def _prompt_ids(self, body: GenerateRequest) -> list[int]:
        """As the command line reads a prompt: in the chat template where the model has one."""
        if isinstance(body.prompt, list):
            return body.prompt
        if self._service.template is not None and not body.raw:
            system = [{"role": "system", "content": body.system}] if body.system else []
            messages = [*system, {"role": "user", "content": body.prompt}]
            return (await self._service.chat_prompt(messages)).token_ids
        text = f"{body.system}\n\n{body.prompt}" if body.system else body.prompt
        return (await self._service.text_prompt(text)).token_ids


_SPECS: Mapping[str, Callable[[Any], ConstraintSpec]] = {
    "json_schema": ConstraintSpec.json_schema,
    "regex": ConstraintSpec.regex,
    "grammar": ConstraintSpec.grammar,
}
_NOT_PARAMS = ("prompt", "system", "raw", "stop", *_SPECS)


def _specs(body: GenerateRequest) -> dict[str, ConstraintSpec]:
    """What the text must be, by the field that says so."""
    asked = {name: getattr(body, name) for name in _SPECS}
    return {name: _SPECS[name](value) for name, value in asked.items() if value is not None}


def _given(body: GenerateRequest) -> dict[str, Any]:
    stop = [body.stop] if isinstance(body.stop, str) else body.stop
    values = {name: getattr(body, name) for name in body.__struct_fields__ if name not in _NOT_PARAMS}
    return {**values, "stop": stop}


async def _frames(run: Run) -> AsyncIterator[bytes]:
    async for _, event in run:
        if isinstance(event, TextDelta):
            if event.text:
                yield sse(msgspec.json.encode(event.text), "token")
        elif isinstance(event, Finished):
            yield sse(msgspec.json.encode(_end(event)), "done")


def _result(completion: Completion) -> dict[str, Any]:
    return {"text": completion.text, **_end(completion)}


def _end(end: Finished | Completion) -> dict[str, Any]:
    """What is said at the end, streamed or not."""
    return {
        "finish_reason": end.finish_reason,
        "stop_string": end.stop_string,
        "usage": _usage(end.statistics),
        "statistics": _statistics(end.statistics),
    }


def _usage(statistics: Statistics) -> dict[str, int]:
    return {
        "prompt_tokens": statistics.prompt_tokens,
        "completion_tokens": statistics.completion_tokens,
        "total_tokens": statistics.prompt_tokens + statistics.completion_tokens,
        "cached_tokens": statistics.cached_tokens,
    }


def _statistics(statistics: Statistics) -> dict[str, float | None]:
    return {
        "queue_s": statistics.queue_s,
        "first_token_s": statistics.first_token_s,
        "prefill_s": statistics.prefill_s,
        "decode_s": statistics.decode_s,
        "prefill_tokens_per_s": statistics.prefill_tokens_per_s,
        "decode_tokens_per_s": statistics.decode_tokens_per_s,
    }


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
