"""OpenAI's messages, tools and tool choices, as chat templates and `tool_use` take them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from influence.server.errors import ApiError, invalid
from influence.server.tool_use import Choice, Tool, template_call_id

# Role on the wire -> role in the template.
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


class ContentPart(Struct):
    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(Struct):
    name: str
    arguments: str | dict[str, Any] = "{}"


class AssistantCall(Struct):
    function: CalledFunction
    id: str = ""
    type: str = "function"


class ChatMessage(Struct):
    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[AssistantCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class FunctionTool(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None  # where a call is forced, its schema is always enforced


class ChatTool(Struct):
    type: str = "function"
    function: FunctionTool | None = None


class NamedFunction(Struct):
    name: str


class NamedChoice(Struct):
    type: str = "function"
    function: NamedFunction | None = None


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The conversation for the template. Raises ApiError that names the message and part at fault."""
    if not messages:
        raise invalid("messages must hold at least one message", "messages")
    return [_template_message(f"messages[{index}]", message) for index, message in enumerate(messages)]


def chat_tools(tools: Sequence[ChatTool] | None) -> list[Tool]:
    """The functions among the tools; they must be all. Raises ApiError."""
    return [_tool(f"tools[{index}]", tool) for index, tool in enumerate(tools or ())]


def tool_choice(choice: str | NamedChoice | None, *, has_tools: bool) -> tuple[Choice, str | None]:
    """The choice, and the name of the tool that must be called. Raises ApiError."""
    match choice:
        case None:
            return ("auto" if has_tools else "none"), None
        case "auto" | "none" | "required":
            return choice, None
        case NamedChoice(type="function", function=NamedFunction(name=name)):
            return "required", name
    raise invalid("tool_choice must be auto, none, required, or the name of a function", "tool_choice")


def joined_text(parts: Sequence[ContentPart], where: str) -> str:
    """The text of content parts, a line break between them. Raises ApiError for another kind of part."""
    return "\n".join(_part_text(part, f"{where}[{index}]") for index, part in enumerate(parts))


def _template_message(where: str, message: ChatMessage) -> dict[str, Any]:
    role = _ROLES.get(message.role)
    if role is None:
        expected = ", ".join(_ROLES)
        raise invalid(f"{where}.role must be one of {expected}", f"{where}.role")
    content = message.content
    if content is None and (role != "assistant" or not message.tool_calls):
        raise invalid(f"{where}.content is missing", f"{where}.content")
    if message.tool_calls and role != "assistant":
        raise invalid(f"{where}: only an assistant's message has tool_calls", f"{where}.tool_calls")
    if role == "tool" and not message.tool_call_id:
        raise invalid(f"{where}.tool_call_id is missing", f"{where}.tool_call_id")
    fields = {
        "role": role,
        "content": joined_text(content, f"{where}.content") if isinstance(content, list) else content,
        "name": message.name,
        "reasoning_content": message.reasoning_content,
        "tool_calls": [template_call(call.id, call.function) for call in message.tool_calls or ()] or None,
        "tool_call_id": template_call_id(message.tool_call_id) if message.tool_call_id else None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def template_call(call_id: str, function: CalledFunction) -> dict[str, Any]:
    """A call made earlier; its arguments as an object, which templates write out themselves."""
    return {
        "id": template_call_id(call_id),
        "type": "function",
        "function": {"name": function.name, "arguments": _arguments(function.arguments)},
    }


def _arguments(given: str | dict[str, Any]) -> Any:
    """The object that a call's JSON says; the text itself where a model wrote none."""
    if not isinstance(given, str):
        return given
    try:
        made = json.loads(given)
    except ValueError:
        return given
    return made if isinstance(made, dict) else given


def _part_text(part: ContentPart, where: str) -> str:
    text = part.refusal if part.type == "refusal" else part.text
    if part.type not in ("text", "refusal"):
        raise unsupported_part(part.type, where)
    if text is None:
        raise invalid(f"{where}.{part.type} is missing", where)
    return text


def unsupported_part(kind: str, where: str) -> ApiError:
    """The answer to an image or anything else that this model can't read."""
    return invalid(
        f"{where} is of type {kind!r:.40}: this model reads text only", where, code="unsupported_content"
    )


def _tool(where: str, tool: ChatTool) -> Tool:
    if tool.type != "function" or tool.function is None:
        raise invalid(f"{where} must be a function: {{'type': 'function', 'function': …}}", where)
    return Tool(tool.function.name, tool.function.description, tool.function.parameters or {})
