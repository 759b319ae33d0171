"""How the families write a call of a tool, as data.

    llama3    {"name": "f", "parameters": {…}}                       alone, or after <|python_tag|>; "; " between
    mistral   [TOOL_CALLS][{"name": "f", "arguments": {…}}, …]       and since 2025 [TOOL_CALLS]f[ARGS]{…}
    hermes    <tool_call>\\n{"name": "f", "arguments": {…}}\\n</tool_call>       also Qwen, SmolLM, Granite 4
    granite   <|tool_call|>[{"name": "f", "arguments": {…}}, …]
    phi       <|tool_call|>[{"name": "f", "arguments": {…}}, …]<|/tool_call|>   or functools[…]

A model's format is read off its chat template, which tells the model how to
write a call or shows it calls of before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from influence.dataclass import dataclass

if TYPE_CHECKING:
    from influence.text.tokenizer import Tokenizer

# "object": one call, one JSON object. "list": all calls in one JSON array. "named": the name, a mark, arguments.
Shape = Literal["object", "list", "named"]

ARGS_MARK = "[ARGS]"
CALL_ID_MARK = "[CALL_ID]"


@dataclass(frozen=True)
class ToolCall:
    """A call that a model made: the tool's name, and its arguments as the text of a JSON object."""

    name: str
    arguments_json: str


@dataclass(frozen=True)
class ToolFormat:
    """How a family writes calls; immutable, compared by value."""

    name: Literal["llama3", "mistral", "hermes", "granite", "phi"]
    shape: Shape  # how it is written; any shape is read
    openings: tuple[str, ...]  # any of them begins calls; the first is the one to write
    closings: tuple[str, ...] = ()  # the first ends them, where it is not left out
    arguments_key: str = "arguments"  # the other of "arguments" and "parameters" is read as well
    is_bare: bool = False  # a JSON object with which a reply begins is a call, too
    padding: str = ""  # between the marks and what they enclose
    separator: str = ", "  # between calls

    @property
    def marks(self) -> tuple[str, ...]:
        """Everything that stands around calls; some of it may be special tokens."""
        named = (ARGS_MARK, CALL_ID_MARK) if self.name == "mistral" else ()
        return (*self.openings, *self.closings, *named)

    def shown_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """The special tokens that a reply's text must show, for calls to be seen in it."""
        ids = {token_id for mark in self.marks if (token_id := tokenizer.id_of(mark)) is not None}
        return frozenset(token_id for token_id in ids if tokenizer.is_special(token_id))

    def mark_ids(self, tokenizer: Tokenizer) -> dict[str, int]:
        """The marks that are tokens of their own."""
        found = {mark: tokenizer.id_of(mark) for mark in self.marks}
        return {mark: token_id for mark, token_id in found.items() if token_id is not None}

    def written(self, calls: Sequence[ToolCall]) -> str:
        """Calls as the model itself would have written them."""
        opening = "" if self.is_bare else self.openings[0]
        closing = self.closings[0] if self.closings else ""
        if self.shape == "list":
            return f"{opening}[{', '.join(map(self._object, calls))}]{closing}"
        if self.shape == "named":
            return "".join(f"{opening}{call.name}{ARGS_MARK}{call.arguments_json}" for call in calls)
        enclosed = [f"{opening}{self.padding}{self._object(call)}{self.padding}{closing}" for call in calls]
        return self.separator.join(enclosed)

    def _object(self, call: ToolCall) -> str:
        name = json.dumps(call.name, ensure_ascii=False)
        return f'{{"name": {name}, "{self.arguments_key}": {call.arguments_json}}}'


LLAMA3 = ToolFormat(
    "llama3", "object", ("<|python_tag|>",), arguments_key="parameters", is_bare=True, separator="; "
)
MISTRAL = ToolFormat("mistral", "list", ("[TOOL_CALLS]",))
MISTRAL_NAMED = ToolFormat("mistral", "named", ("[TOOL_CALLS]",))
HERMES = ToolFormat("hermes", "object", ("<tool_call>",), ("</tool_call>",), padding="\n", separator="\n")
GRANITE = ToolFormat("granite", "list", ("<|tool_call|>", "<tool_call>"))
PHI = ToolFormat("phi", "list", ("<|tool_call|>", "functools["), ("<|/tool_call|>",))

FORMATS = (LLAMA3, MISTRAL, MISTRAL_NAMED, HERMES, GRANITE, PHI)

# What templates of models that write arguments in XML hold beside <tool_call>.
_OTHER_FORMATS = ("<function=", "<arg_key>")


def tool_format(template_source: str | None) -> ToolFormat | None:
    """The format that a chat template's text shows; None if it knows no tools, or in a way that is not read here."""
    source = template_source or ""
    if "[TOOL_CALLS]" in source:
        return MISTRAL_NAMED if ARGS_MARK in source else MISTRAL
    if "<|python_tag|>" in source or '"parameters": dictionary' in source:
        return LLAMA3
    if any(mark in source for mark in _OTHER_FORMATS):
        return None
    if "<|tool_call|>" in source and "<|start_of_role|>" in source:
        return GRANITE
    if "<|tool|>" in source or "functools" in source:
        return PHI
    return HERMES if "<tool_call>" in source else None


def called(value: Any, *, is_bare: bool) -> list[ToolCall] | None:
    """The calls that a JSON value makes: an object or a list of them; None if it makes none.

    A bare object is a call only if it states its arguments, for it may be an answer as well.
    """
    entries = value if isinstance(value, list) else [value]
    calls = [_call(entry, is_bare=is_bare) for entry in entries]
    sound = [call for call in calls if call is not None]
    return sound if sound and len(sound) == len(calls) else None


def arguments_json(value: Any) -> str | None:
    """Arguments, as an object or as JSON's text of one, as text; None if they are neither."""
    if isinstance(value, str):
        value = json_value(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else None


def json_value(text: str) -> Any:
    """The value of a JSON text; None if it is none, also for NaN, which Python would take."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def _call(entry: Any, *, is_bare: bool) -> ToolCall | None:
    if not isinstance(entry, dict):
        return None
    inner = entry.get("function")
    found = inner if isinstance(inner, dict) else entry
    name = found.get("name")
    given = found.get("arguments", found.get("parameters", None if is_bare else {}))
    arguments = arguments_json(given)
    if not isinstance(name, str) or not name or arguments is None:
        return None
    return ToolCall(name, arguments)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
