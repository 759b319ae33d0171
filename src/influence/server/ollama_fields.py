"""Ollama's requests, and what they ask of generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from influence.generation.structured import ConstraintSpec
from influence.server.errors import ApiError, invalid, refused
from influence.server.openai_fields import MAX_TOP_LOGPROBS
from influence.server.openai_messages import ChatTool, unsupported_part
from influence.server.replies import chat_max_tokens
from influence.server.tool_use import template_call_id

if TYPE_CHECKING:
    from influence.server.service import Service

_ROLES = ("system", "user", "assistant", "tool")


class Options(Struct, kw_only=True):
    """How to sample. Options of loading (num_ctx, num_thread, …) were settled when the server started."""

    num_predict: int | None = None  # below 0: to the context's end
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None  # below 0: a random one
    stop: str | list[str] | None = None
    mirostat: int | None = None
    tfs_z: float | None = None
    typical_p: float | None = None


class Named(Struct, kw_only=True):
    """A request that names a model, in either of two ways."""

    model: str | None = None
    name: str | None = None


class Asked(Struct, kw_only=True):
    """What /api/generate and /api/chat have in common."""

    model: str
    stream: bool | None = None  # streamed unless false
    options: Options | None = None
    format: str | dict[str, Any] | None = None  # "json" or a schema
    keep_alive: Any = None  # the model stays as long as the server does
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def wants_stream(self) -> bool:
        return self.stream is not False


class GenerateRequest(Asked, kw_only=True):
    """The body of /api/generate."""

    prompt: str | None = None
    system: str | None = None
    template: str | None = None
    suffix: str | None = None
    raw: bool | None = None
    images: list[Any] | None = None
    context: list[int] | None = None  # of an earlier answer, to go on from


class CalledFunction(Struct):
    name: str
    arguments: dict[str, Any] | None = None


class Call(Struct):
    function: CalledFunction
    id: str | None = None


class Message(Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ChatRequest(Asked, kw_only=True):
    """The body of /api/chat."""

    messages: list[Message] | None = None
    tools: list[ChatTool] | None = None


def check_model(name: str | None, service: Service) -> str:
    """The name, if it is that of the model served. Raises ApiError: 400 without one, 404 for another."""
    if not name:
        raise invalid("model is required", "model")
    if not service.facts.answers_to(name):
        raise refused(404, f"model '{name[:200]}' not found")
    return name


def check_asked(asked: Asked, service: Service) -> None:
    """Refuse what can't be done. Raises ApiError."""
    check_model(asked.model, service)
    options = asked.options or Options()
    if asked.think:
        raise invalid(f'"{asked.model}" does not support thinking', "think")
    if options.mirostat:
        raise invalid("options.mirostat is not supported", "options.mirostat")
    for name in ("tfs_z", "typical_p"):
        if getattr(options, name) not in (None, 1.0, 0.0):
            raise invalid(f"options.{name} is not supported", f"options.{name}")
    if not 0 <= (asked.top_logprobs or 0) <= MAX_TOP_LOGPROBS:
        raise invalid(f"top_logprobs must be from 0 to {MAX_TOP_LOGPROBS}", "top_logprobs")


def check_generate(asked: GenerateRequest) -> None:
    """Refuse what /api/generate alone can ask. Raises ApiError."""
    if asked.images:
        raise unsupported_part("image", "images[0]")
    if asked.template:
        raise invalid("template can't be given in a request: the model's own is used", "template")
    if asked.suffix:
        raise invalid(f'"{asked.model}" does not support insert', "suffix")


def sampling_options(asked: Asked, service: Service) -> dict[str, Any]:
    """The request's parameters by generation's names; what is not given is None."""
    options = asked.options or Options()
    n_tokens = options.num_predict
    return {
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "repeat_penalty": options.repeat_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "seed": None if options.seed is not None and options.seed < 0 else options.seed,
        "max_tokens": service.facts.context
        if n_tokens is not None and n_tokens < 0
        else chat_max_tokens(n_tokens, service),
        "stop": [options.stop] if isinstance(options.stop, str) else options.stop,
        "n_logprobs": (asked.top_logprobs or 0) if asked.logprobs else None,
    }


def format_spec(asked: str | dict[str, Any] | None) -> ConstraintSpec | None:
    """What `format` demands. Raises ApiError, InvalidParameter."""
    if asked is None or asked == "":
        return None
    if asked == "json":
        return ConstraintSpec.json_object()
    if isinstance(asked, str):
        raise invalid('format must be "json" or a JSON schema', "format")
    return ConstraintSpec.json_schema(asked, name="format")


def template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The conversation for the template; a tool's answer belongs to the earliest open call of its name."""
    made = []
    open_calls: list[tuple[str, str]] = []  # id, name
    for index, message in enumerate(messages):
        _check_message(f"messages[{index}]", message)
        calls = [
            (template_call_id(call.id or f"{index}/{n}"), call)
            for n, call in enumerate(message.tool_calls or ())
        ]
        open_calls += [(call_id, call.function.name) for call_id, call in calls]
        fields = {
            "role": message.role,
            "content": message.content or "",
            "reasoning_content": message.thinking,
            "tool_calls": [_template_call(call_id, call) for call_id, call in calls] or None,
        }
        if message.role == "tool":
            fields["name"] = message.tool_name
            fields["tool_call_id"] = _answered(open_calls, message)
        made.append({key: value for key, value in fields.items() if value is not None})
    return made


def _check_message(where: str, message: Message) -> None:
    if message.role not in _ROLES:
        raise invalid(f"{where}.role must be one of {', '.join(_ROLES)}", f"{where}.role")
    if message.images:
        raise unsupported_part("image", f"{where}.images[0]")


def _template_call(call_id: str, call: Call) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments or {}}
    return {"id": call_id, "type": "function", "function": function}


def _answered(open_calls: list[tuple[str, str]], message: Message) -> str | None:
    """The id of the call that a tool's message answers, which is then open no longer."""
    if message.tool_call_id:
        return template_call_id(message.tool_call_id)
    named = [call for call in open_calls if call[1] == message.tool_name] or open_calls
    if not named:
        return None
    open_calls.remove(named[0])
    return named[0][0]


def no_tools(model: str) -> ApiError:
    """In the words that Ollama's clients look for."""
    return invalid(f"{model} does not support tools", "tools")
