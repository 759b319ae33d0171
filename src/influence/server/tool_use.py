"""Which tools a request gives the model, and whether it may, must or must not call them.

Calls are written in the format that the model was trained on, and parsed.
Those that must happen are made by a constraint on the tokens, which follows the
tools' own schemas, whatever the model would rather have said; a model that
knows no tools then writes a list of `{"name": …, "arguments": {…}}`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from influence.dataclass import dataclass
from influence.generation.structured import ConstraintSpec
from influence.generation.tool_constraint import MAX_FORCED_CALLS, tool_constraint
from influence.server.errors import invalid
from influence.server.replies import ForcedCallReader, PlainReader, ReplyReader, SingleCallReader
from influence.text.tool_calls import ToolCallParser, ToolFormat, tool_format

if TYPE_CHECKING:
    from influence.server.service import Service
    from influence.text.tokenizer import Tokenizer

Choice = Literal["auto", "none", "required"]

MAX_TOOLS = 128  # OpenAI's limit; each is rendered into the prompt
MAX_NAME_LENGTH = 256  # characters
_CALL_ID_LENGTH = 9  # some templates take exactly nine letters and digits


@dataclass(frozen=True)
class Tool:
    """One function that the model may call."""

    name: str
    description: str | None
    parameters: Mapping[str, Any]  # a JSON schema

    def for_template(self) -> dict[str, Any]:
        """As chat templates take it; some fail where a description or the properties are missing."""
        parameters = {"type": "object", "properties": {}, **self.parameters}
        function = {"name": self.name, "description": self.description or "", "parameters": parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolUse:
    """The tools of one request."""

    tools: tuple[Tool, ...] = ()
    choice: Choice = "none"
    parallel: bool = True  # several calls in one reply
    format: ToolFormat | None = None  # how this model writes calls; None: it knows no tools

    @property
    def is_forced(self) -> bool:
        return self.choice == "required"

    def for_template(self) -> list[dict[str, Any]] | None:
        """The `tools` of the template; None if the model is not to know of any."""
        return None if self.choice == "none" else [tool.for_template() for tool in self.tools]

    def parameters(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """What generation must be told, so that calls can be seen in the text."""
        if self.choice == "none" or self.format is None:
            return {}
        return {"shown_ids": self.format.shown_ids(tokenizer)}

    def forced_calls(self, tokenizer: Tokenizer) -> ConstraintSpec:
        """What a forced reply must follow. Raises InvalidParameter for a schema that can't be enforced."""
        if self.format is None:
            return ConstraintSpec.json_schema(self._schema(), name="tools")
        return tool_constraint(
            self.format,
            {tool.name: _closed(tool.parameters) for tool in self.tools},
            mark_ids=self.format.mark_ids(tokenizer),
            is_parallel=self.parallel,
        )

    def _schema(self) -> dict[str, Any]:
        if not self.parallel:
            return _one_of(self.tools, "#")
        calls = _one_of(self.tools, "#/items")
        return {"type": "array", "items": calls, "minItems": 1, "maxItems": MAX_FORCED_CALLS}

    def new_reader(self) -> ReplyReader:
        """For one reply."""
        if self.choice == "none":
            return PlainReader()
        if self.format is None:
            return ForcedCallReader() if self.is_forced else PlainReader()
        parser = ToolCallParser(self.format)
        return parser if self.parallel else SingleCallReader(parser)


def tool_use(
    service: Service, tools: Sequence[Tool], choice: Choice, *, name: str | None = None, parallel: bool = True
) -> ToolUse:
    """The checked tools of a request; `name`: the one that must be called.

    Raises ApiError (400) for tools that can't be told apart, a choice among
    none, and free calls by a model whose template knows no tools.
    """
    _check_tools(tools)
    if name is not None:
        tools = [tool for tool in tools if tool.name == name]
        if not tools:
            raise invalid("tool_choice names a function that is not among the tools", "tool_choice")
        parallel = False
    if not tools:
        if choice == "required":
            raise invalid("tool_choice needs tools to choose from", "tool_choice")
        return ToolUse()
    found = _format_of(service)
    if choice == "auto" and found is None:
        message = (
            "this model's chat template knows no tools, so that it can't decide to call one: "
            "leave them out, or let tool_choice force a call"
        )
        raise invalid(message, "tools", code="tools_not_supported")
    return ToolUse(tuple(tools), choice, parallel, found)


def supports_tools(service: Service) -> bool:
    """Whether the model can call tools by itself."""
    return _format_of(service) is not None


def template_call_id(call_id: str) -> str:
    """A call's id as every template takes it: nine letters and digits, the same for the same id."""
    if len(call_id) == _CALL_ID_LENGTH and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:_CALL_ID_LENGTH]


def _check_tools(tools: Sequence[Tool]) -> None:
    if len(tools) > MAX_TOOLS:
        raise invalid(f"{len(tools)} tools were given, at most {MAX_TOOLS} are allowed", "tools")
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if not 0 < len(tool.name) <= MAX_NAME_LENGTH:
            raise invalid(
                f"tools[{index}]: the name must have 1 to {MAX_NAME_LENGTH} characters", f"tools[{index}]"
            )
        if tool.name in seen:
            raise invalid(f"tools[{index}]: another tool has this name already", f"tools[{index}]")
        seen.add(tool.name)


def _format_of(service: Service) -> ToolFormat | None:
    template = service.template
    if template is None:
        return None
    return tool_format(template.source("tool_use" if "tool_use" in template.names else template.names[0]))


def _one_of(tools: Sequence[Tool], place: str) -> dict[str, Any]:
    """The schema of one call, which stands at `place` (a JSON pointer) of the whole schema."""
    if len(tools) == 1:
        return _call_schema(tools[0], place)
    return {"anyOf": [_call_schema(tool, f"{place}/anyOf/{i}") for i, tool in enumerate(tools)]}


def _call_schema(tool: Tool, place: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": tool.name},
            "arguments": _moved(_closed(tool.parameters), f"{place}/properties/arguments"),
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _closed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of arguments, which takes no names beyond those it lists unless it says so.

    JSON Schema would allow any; a function that is called with one fails.
    """
    if parameters.keys() & {"$ref", "allOf", "anyOf", "oneOf", "patternProperties"}:
        return {"type": "object", **parameters}
    return {"type": "object", "properties": {}, "additionalProperties": False, **parameters}


def _moved(schema: Any, place: str) -> Any:
    """The schema with its own references ("#/$defs/…") pointing to where it now stands."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, place)
        for key, value in schema.items()
    }
