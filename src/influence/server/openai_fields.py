"""Fields that OpenAI's chat completions and completions share, and what they ask of generation."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct, structs

from influence.generation.structured import ConstraintSpec
from influence.server.errors import ApiError, invalid, refused
from influence.server.structure import combined_constraint
from influence.server.tool_use import ToolUse

if TYPE_CHECKING:
    from influence.generation.constraint import ConstraintSource
    from influence.server.service import Service
    from influence.server.settings import Settings

MAX_TOP_LOGPROBS = 20  # OpenAI's limit

# Values of refused fields that ask for what happens anyway, beside null, false, 0 and empty.
_NEUTRAL: dict[str, Any] = {
    "add_generation_prompt": True,
    "length_penalty": 1,
    "modalities": ["text"],
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "tfs_z": 1,
    "typical_p": 1,
}
_INSTEAD = {
    "function_call": "use tool_choice",
    "functions": "use tools",
    "guided_choice": "use regex",
    "guided_grammar": "use grammar",
    "guided_json": "use response_format",
    "guided_regex": "use regex",
    "json_schema": "use response_format",
    "structured_outputs": "use response_format, regex or grammar",
    "suffix": "this model continues a text, it does not fill a gap in one",
}


# A field of servers alike whose effect a client would miss: an error unless it asks for nothing.
Refused = Annotated[Any, Meta(description="not supported: an error unless null or without effect")]


class StreamOptions(Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None  # vLLM's: usage so far in every chunk


class JsonSchema(Struct):
    schema: dict[str, Any] | bool | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None  # a schema is always enforced


class ResponseFormat(Struct):
    type: str
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None  # llama.cpp's place for it, beside json_object


class Fields(Struct, kw_only=True):
    """What both endpoints take; None: not given."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None  # ignored, as are all fields that stand nowhere here
    # Not OpenAI's, but of many servers alike.
    top_k: int | None = None  # -1, as 0: all
    min_p: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    # Ours.
    regex: str | None = None
    grammar: str | None = None  # Lark, as llguidance reads it

    allowed_token_ids: Refused = None
    bad_words: Refused = None
    dry_multiplier: Refused = None
    guided_choice: Refused = None
    guided_grammar: Refused = None
    guided_json: Refused = None
    guided_regex: Refused = None
    include_stop_str_in_output: Refused = None
    json_schema: Refused = None
    length_penalty: Refused = None
    min_tokens: Refused = None
    mirostat: Refused = None
    prompt_logprobs: Refused = None
    skip_special_tokens: Refused = None
    spaces_between_special_tokens: Refused = None
    stop_token_ids: Refused = None
    structured_outputs: Refused = None
    tfs_z: Refused = None
    truncate_prompt_tokens: Refused = None
    typical_p: Refused = None
    use_beam_search: Refused = None
    xtc_probability: Refused = None

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_running_usage(self) -> bool:
        return self.wants_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)


def check_fields(asked: Fields, service: Service) -> None:
    """Refuse what can't be done before any work. Raises ApiError."""
    check_model(asked.model, service)
    for name in refused_names(type(asked)):
        _check_neutral(name, getattr(asked, name))
    if asked.stream_options is not None and not asked.stream:
        raise invalid("stream_options needs stream: true", "stream_options")
    n_choices(asked.n, service.settings)


def check_model(name: str | None, service: Service) -> None:
    """Raise ApiError (404) for another model than the one that is served."""
    if name is not None and not service.facts.answers_to(name):
        raise unknown_model(name)


def unknown_model(name: str) -> ApiError:
    error = refused(404, f"the model `{name[:200]}` does not exist here", code="model_not_found")
    error.param = "model"
    return error


@cache
def refused_names(kind: type[Fields]) -> tuple[str, ...]:
    """The fields of a body that are there to be refused."""
    return tuple(field.name for field in structs.fields(kind) if field.type == Refused)


def n_choices(n: int | None, settings: Settings) -> int:
    """The checked `n`; 1 if it is not given."""
    if n is None:
        return 1
    if not 1 <= n <= settings.max_choices:
        raise invalid(f"n must be from 1 to {settings.max_choices}", "n", code="invalid_value")
    return n


def sampling_fields(asked: Fields, max_tokens: int | None) -> dict[str, Any]:
    """The request's parameters by generation's names; what is not given is None."""
    return {
        "temperature": asked.temperature,
        "top_k": 0 if asked.top_k == -1 else asked.top_k,
        "top_p": asked.top_p,
        "min_p": asked.min_p,
        "repeat_penalty": asked.repetition_penalty,
        "presence_penalty": asked.presence_penalty,
        "frequency_penalty": asked.frequency_penalty,
        "logit_bias": asked.logit_bias,
        "seed": asked.seed,
        "max_tokens": max_tokens,
        "stop": [asked.stop] if isinstance(asked.stop, str) else asked.stop,
        "ignore_eos": asked.ignore_eos,
    }


async def asked_constraint(
    asked: Fields, service: Service, tools: ToolUse | None = None
) -> ConstraintSource | None:
    """What the reply must follow; None if it is free. Raises as `combined_constraint`."""
    specs = {
        "response_format": None if asked.response_format is None else _format_spec(asked.response_format),
        "regex": None if asked.regex is None else ConstraintSpec.regex(asked.regex),
        "grammar": None if asked.grammar is None else ConstraintSpec.grammar(asked.grammar),
    }
    return await combined_constraint(specs, service, tools)


def _format_spec(asked: ResponseFormat) -> ConstraintSpec | None:
    """What a response_format demands. Raises ApiError, InvalidParameter."""
    match asked.type:
        case "text":
            return None
        case "json_object" if asked.schema is None:
            return ConstraintSpec.json_object()
        case "json_object":
            return ConstraintSpec.json_schema(asked.schema, name="response_format.schema")
        case "json_schema":
            return _schema_spec(asked)
    raise invalid("response_format.type must be text, json_object or json_schema", "response_format.type")


def _schema_spec(asked: ResponseFormat) -> ConstraintSpec:
    schema = asked.schema if asked.json_schema is None else asked.json_schema.schema
    if schema is None:
        place = "response_format.json_schema.schema"
        raise invalid(f"{place} is missing", place)
    return ConstraintSpec.json_schema(schema, name="response_format.json_schema.schema")


def _check_neutral(name: str, value: Any) -> None:
    if not value or value == _NEUTRAL.get(name):
        return
    instead = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
    raise invalid(f"{name} is not supported{instead}", name, code="unsupported_parameter")
