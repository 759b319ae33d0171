"""Calls of tools that must happen: a grammar for them, in the words that the model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from influence.generation.schema_check import checked_schema, unfit
from influence.generation.structured import ConstraintSpec, guided_schema
from influence.text.tool_formats import ARGS_MARK, ToolFormat

MAX_FORCED_CALLS = (
    16  # in one reply; a model that never thinks it is done would call until its tokens are used up
)


def tool_constraint(
    written_as: ToolFormat,
    tools: Mapping[str, Mapping[str, Any]],
    *,
    mark_ids: Mapping[str, int],
    is_parallel: bool = False,
) -> ConstraintSpec:
    """A reply of nothing but calls of these tools, arguments true to their schemas.

    `tools`: name -> JSON schema of the arguments. `mark_ids`: the format's
    marks that are tokens (`ToolFormat.mark_ids`). One call, or with
    `is_parallel` up to 16 where the format has several. Raises
    InvalidParameter naming tool, keyword and place for a schema that can't be
    enforced.
    """
    if not tools:
        raise unfit("tools", {}, "at least one tool to choose from")
    rules = [_call_rule(index, written_as, tool, mark_ids) for index, tool in enumerate(tools.items())]
    one_of_all = " | ".join(f"call_{index}" for index in range(len(rules)))
    start = _start(written_as, mark_ids, is_parallel=is_parallel)
    return ConstraintSpec("tools", "\n".join([f"start: {start}", f"call: {one_of_all}", *rules]))


def _start(written_as: ToolFormat, mark_ids: Mapping[str, int], *, is_parallel: bool) -> str:
    """The rule for a whole reply, with `call` for what a tool's name and arguments make."""
    opening = "" if written_as.is_bare else _mark(written_as.openings[0], mark_ids)
    closing = _mark(written_as.closings[0], mark_ids) if written_as.closings else ""
    more = MAX_FORCED_CALLS - 1 if is_parallel and not written_as.is_bare else 0
    if written_as.shape == "list":
        return _sequence(
            opening, _literal("["), "call", _repeated([_literal(", "), "call"], more), _literal("]"), closing
        )
    padding = _literal(written_as.padding)
    one = _sequence(opening, padding, "call", padding, closing)
    separator = "" if written_as.shape == "named" else _literal(written_as.separator)
    return _sequence(one, _repeated([separator, one], more))


def _call_rule(
    index: int, written_as: ToolFormat, tool: tuple[str, Mapping[str, Any]], mark_ids: Mapping[str, int]
) -> str:
    name, parameters = tool
    schema = guided_schema(checked_schema(_of_object(name, parameters), _place(name)))
    if written_as.shape == "named":
        return f"call_{index}: {_sequence(_literal(name), _mark(ARGS_MARK, mark_ids))} %json {schema}"
    beginning = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{written_as.arguments_key}": '
    return f"call_{index}: {_literal(beginning)} %json {schema} {_literal('}')}"


def _of_object(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of arguments, which are an object whether it says so or not."""
    stated = parameters.get("type", "object")
    if stated != "object":
        raise unfit(f"{_place(name)}/type", stated, "object: arguments have names")
    return {**parameters, "type": "object"}


def _place(name: str) -> str:
    return f"tools/{name}/parameters"


def _mark(mark: str, mark_ids: Mapping[str, int]) -> str:
    return f"<[{mark_ids[mark]}]>" if mark in mark_ids else _literal(mark)


def _literal(text: str) -> str:
    """A string of a Lark grammar; nothing for the empty one."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def _sequence(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _repeated(parts: Sequence[str], most: int) -> str:
    return f"({_sequence(*parts)}){{0,{most}}}" if most else ""
