"""Conversations with tools, as a model's chat template takes them.

transformers hands a template what the caller gave, and templates differ: most
want a call's arguments as an object, a few as JSON's text; some know tools and
never write the calls made before; one reads the tools out of the system
message. Which of it holds is found by rendering a small conversation, so that
clients may send all models the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from influence.dataclass import dataclass
from influence.errors import InvalidParameter, TokenizerError
from influence.text.tool_formats import ToolCall, ToolFormat, arguments_json, json_value

Message = Mapping[str, Any]
Render = Callable[..., str]  # ChatTemplate.render

_NAME, _KEY = "probe_tool", "probe_key"
_ARGUMENTS = {_KEY: "value"}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "",
        "parameters": {"type": "object", "properties": {_KEY: {"type": "string", "description": ""}}},
    },
}
_USER = {"role": "user", "content": "question"}


@dataclass(frozen=True)
class ToolHabits:
    """What a template does with tools and with the calls of earlier replies."""

    written_as: ToolFormat | None  # how the model writes calls; None: it knows no tools
    arguments: Literal["object", "text", "unwritten"] = "object"  # as which it writes a call's arguments
    tools_in_system: bool = False  # it has no `tools`, but a system message's


def tool_habits(render: Render, written_as: ToolFormat | None) -> ToolHabits:
    """The habits of a template, from what it makes of examples."""
    in_system = {"role": "system", "content": "", "tools": json.dumps([_TOOL])}
    tools_in_system = _NAME not in _rendered(render, [_USER]) and _NAME in _rendered(
        render, [in_system, _USER]
    )
    as_object = _rendered(render, [_USER, _calling(_ARGUMENTS), _result()])
    as_text = _rendered(render, [_USER, _calling(json.dumps(_ARGUMENTS)), _result()])
    if _is_written(as_object) or not as_object + as_text:
        return ToolHabits(written_as, "object", tools_in_system)
    if _is_written(as_text):
        return ToolHabits(written_as, "text", tools_in_system)
    in_some_way = as_object.count(_KEY) > _rendered(render, [_USER]).count(_KEY)
    return ToolHabits(written_as, "object" if in_some_way else "unwritten", tools_in_system)


def fitted_messages(
    messages: Sequence[Message], tools: Sequence[Message] | None, habits: ToolHabits
) -> list[Message]:
    """An OpenAI-shaped conversation with each call, result and tool where the template looks for it."""
    names = {call.get("id"): _function(call).get("name") for message in messages for call in _calls(message)}
    fitted = [_fitted(message, names, habits) for message in messages]
    return _with_tools(fitted, tools) if tools and habits.tools_in_system else fitted


def _fitted(message: Message, names: Mapping[Any, Any], habits: ToolHabits) -> Message:
    if not isinstance(message, Mapping):
        return message  # no message at all, which the template's guard says
    if message.get("role") == "tool" and message.get("name") is None:
        name = names.get(message.get("tool_call_id"))
        return message if name is None else {**message, "name": name}
    calls = _calls(message)
    if not calls:
        return message
    content = message.get("content") or ""  # many templates join it to other text, whatever it is
    if habits.arguments == "unwritten" and habits.written_as is not None:
        written = _written(calls, habits.written_as)
        others = {key: value for key, value in message.items() if key != "tool_calls"}
        return {**others, "content": "\n".join(filter(None, [content, written]))}
    fitted = [_fitted_call(call, as_text=habits.arguments == "text") for call in calls]
    return {**message, "content": content, "tool_calls": fitted}


def _fitted_call(call: Message, *, as_text: bool) -> Message:
    function = _function(call)
    given = function.get("arguments")
    arguments: Any
    if as_text:
        arguments = given if isinstance(given, str) else arguments_json(given)
    else:
        made = json_value(given) if isinstance(given, str) else given
        arguments = made if isinstance(made, dict) else given
    return {**call, "function": {**function, "arguments": arguments}}


def _written(calls: Sequence[Message], written_as: ToolFormat) -> str:
    functions = [_function(call) for call in calls]
    return written_as.written(
        [
            ToolCall(str(function.get("name")), arguments_json(function.get("arguments")) or "{}")
            for function in functions
        ]
    )


def _with_tools(messages: list[Message], tools: Sequence[Message]) -> list[Message]:
    """The messages with the tools in their system message, which is made where there is none."""
    functions = [_function(tool) or tool for tool in tools]
    text = json.dumps(functions, ensure_ascii=False)
    first = messages[0] if messages else {}
    if isinstance(first, Mapping) and first.get("role") == "system":
        return [{**first, "tools": text}, *messages[1:]]
    return [{"role": "system", "content": "", "tools": text}, *messages]


def _calls(message: Message) -> list[Message]:
    """The calls of one message, those that are calls at all."""
    calls = message.get("tool_calls") if isinstance(message, Mapping) else None
    if not isinstance(calls, (list, tuple)):
        return []
    return [call for call in calls if isinstance(call, Mapping)]


def _function(call: Message) -> Message:
    """What is under "function" in a call or a tool."""
    function = call.get("function") if isinstance(call, Mapping) else None
    return function if isinstance(function, Mapping) else {}


def _calling(arguments: object) -> Message:
    function = {"name": _NAME, "arguments": arguments}
    call = {"id": "probecall", "type": "function", "function": function}  # some take ids of nine letters only
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _result() -> Message:
    return {"role": "tool", "tool_call_id": "probecall", "name": _NAME, "content": "answer"}


def _rendered(render: Render, messages: Sequence[Message]) -> str:
    """What the template makes of a conversation with a tool; "" if it refuses it."""
    try:
        return render(messages, tools=[_TOOL])
    except (InvalidParameter, TokenizerError):
        return ""


def _is_written(rendered: str) -> bool:
    """Whether the arguments stand there as a JSON object, not as a string that holds one."""
    return any(f'"{_KEY}":{blank}"{_ARGUMENTS[_KEY]}"' in rendered for blank in ("", " "))
