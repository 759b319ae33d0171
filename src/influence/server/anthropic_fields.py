"""Anthropic's requests, and what they ask of the template and of generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from influence.generation.structured import ConstraintSpec
from influence.server.errors import invalid, refused
from influence.server.openai_messages import unsupported_part
from influence.server.tool_use import Choice, Tool, ToolUse, template_call_id, tool_use

if TYPE_CHECKING:
    from influence.server.service import Service

_CHOICES: dict[str, Choice] = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
_HIDDEN = ("thinking", "redacted_thinking")  # what a model thought earlier is not shown to this one


class Block(Struct):
    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Block] | None = None
    is_error: bool | None = None


class Message(Struct):
    role: str
    content: str | list[Block]


class AnthropicTool(Struct):
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None


class ToolChoice(Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Format(Struct):
    type: str
    schema: dict[str, Any] | None = None


class OutputConfig(Struct):
    format: Format | None = None


class CountRequest(Struct, kw_only=True):
    """The body of /v1/messages/count_tokens: what makes a prompt."""

    model: str
    messages: list[Message]
    system: str | list[Block] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: ToolChoice | None = None


class MessagesRequest(CountRequest, kw_only=True):
    """The body of /v1/messages. What it does not name is ignored."""

    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None  # its earlier place
    mcp_servers: list[Any] | None = None


def check_model(name: str, service: Service) -> None:
    """Raise ApiError (404) for another model than the one that is served."""
    if not service.facts.answers_to(name):
        raise refused(404, f"model: {name[:200]}")


def check_request(asked: MessagesRequest) -> None:
    """Refuse what can't be done. Raises ApiError."""
    if asked.max_tokens < 1:
        raise invalid("max_tokens: must be at least 1", "max_tokens")
    if asked.mcp_servers:
        raise invalid("mcp_servers: this server calls no others", "mcp_servers")
    if asked.messages and asked.messages[-1].role == "assistant":
        raise invalid("messages: the last one must be the user's", "messages")


def sampling_fields(asked: MessagesRequest) -> dict[str, Any]:
    """The request's parameters by generation's names; what is not given is None."""
    return {
        "temperature": asked.temperature,
        "top_k": asked.top_k,
        "top_p": asked.top_p,
        "max_tokens": asked.max_tokens,
        "stop": asked.stop_sequences,
    }


def format_spec(asked: MessagesRequest) -> ConstraintSpec | None:
    """What the output's format demands. Raises ApiError, InvalidParameter."""
    wanted = asked.output_format or (asked.output_config or OutputConfig()).format
    if wanted is None:
        return None
    if wanted.type != "json_schema" or wanted.schema is None:
        raise invalid("output_config.format must be a json_schema", "output_config.format")
    return ConstraintSpec.json_schema(wanted.schema, name="output_config.format.schema")


def asked_tools(asked: CountRequest, service: Service) -> ToolUse:
    """The tools and the choice among them. Raises ApiError."""
    tools = [_tool(f"tools[{index}]", tool) for index, tool in enumerate(asked.tools or ())]
    if asked.tool_choice is None:
        return tool_use(service, tools, "auto" if tools else "none")
    choice = _CHOICES.get(asked.tool_choice.type)
    if choice is None:
        raise invalid("tool_choice.type must be auto, any, tool or none", "tool_choice.type")
    name = asked.tool_choice.name if asked.tool_choice.type == "tool" else None
    if asked.tool_choice.type == "tool" and name is None:
        raise invalid("tool_choice.name is missing", "tool_choice.name")
    parallel = not asked.tool_choice.disable_parallel_tool_use
    return tool_use(service, tools, choice, name=name, parallel=parallel)


def template_messages(asked: CountRequest) -> list[dict[str, Any]]:
    """The conversation for the template. Raises ApiError that names the message and block at fault."""
    if not asked.messages:
        raise invalid("messages: at least one message is required", "messages")
    system = _text(asked.system, "system") if asked.system else ""
    made = [{"role": "system", "content": system}] if system else []
    for index, message in enumerate(asked.messages):
        made += _template_messages(f"messages[{index}]", message)
    return made


def _template_messages(where: str, message: Message) -> list[dict[str, Any]]:
    """One message; or several, where the user's answers calls of tools too."""
    if message.role not in ("user", "assistant"):
        raise invalid(f"{where}.role: must be user or assistant", f"{where}.role")
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    blocks = [(f"{where}.content[{index}]", block) for index, block in enumerate(message.content)]
    return _of_assistant(blocks) if message.role == "assistant" else _of_user(blocks)


def _of_assistant(blocks: Sequence[tuple[str, Block]]) -> list[dict[str, Any]]:
    calls = [_call(place, block) for place, block in blocks if block.type == "tool_use"]
    others = [
        (place, block) for place, block in blocks if block.type != "tool_use" and block.type not in _HIDDEN
    ]
    message: dict[str, Any] = {"role": "assistant", "content": _joined(others)}
    return [message | {"tool_calls": calls} if calls else message]


def _of_user(blocks: Sequence[tuple[str, Block]]) -> list[dict[str, Any]]:
    results = [_result(place, block) for place, block in blocks if block.type == "tool_result"]
    others = [(place, block) for place, block in blocks if block.type != "tool_result"]
    said = [{"role": "user", "content": _joined(others)}] if others or not results else []
    return [*results, *said]


def _call(where: str, block: Block) -> dict[str, Any]:
    if block.id is None or block.name is None:
        raise invalid(f"{where}: a tool_use needs an id and a name", where)
    function = {"name": block.name, "arguments": block.input or {}}
    return {"id": template_call_id(block.id), "type": "function", "function": function}


def _result(where: str, block: Block) -> dict[str, Any]:
    if block.tool_use_id is None:
        raise invalid(f"{where}.tool_use_id is missing", f"{where}.tool_use_id")
    text = _text(block.content, f"{where}.content") if block.content else ""
    content = f"Error: {text}" if block.is_error else text
    return {"role": "tool", "tool_call_id": template_call_id(block.tool_use_id), "content": content}


def _text(content: str | Sequence[Block], where: str) -> str:
    if isinstance(content, str):
        return content
    return _joined([(f"{where}[{index}]", block) for index, block in enumerate(content)])


def _joined(blocks: Sequence[tuple[str, Block]]) -> str:
    """The text of blocks, a line break between them."""
    for place, block in blocks:
        if block.type != "text":
            raise unsupported_part(block.type, place)
        if block.text is None:
            raise invalid(f"{place}.text is missing", f"{place}.text")
    return "\n".join(block.text or "" for _, block in blocks)


def _tool(where: str, tool: AnthropicTool) -> Tool:
    if tool.type not in (None, "custom"):
        raise invalid(f"{where}: a tool of type {tool.type!r:.60} does not run here", where)
    return Tool(tool.name, tool.description, tool.input_schema or {})
