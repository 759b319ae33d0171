"""The one thing that a reply must be: a format, a pattern, a grammar, or calls of tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from influence.generation.structured import ConstraintSpec
from influence.server.errors import invalid
from influence.server.tool_use import ToolUse

if TYPE_CHECKING:
    from influence.generation.constraint import ConstraintSource
    from influence.server.service import Service


async def combined_constraint(
    specs: Mapping[str, ConstraintSpec | None], service: Service, tools: ToolUse | None = None
) -> ConstraintSource | None:
    """The one constraint among those that fields ask for (field -> spec), compiled; None if there is none.

    Raises ApiError for two demands at once, InvalidParameter for what can't be enforced.
    """
    asked = {name: spec for name, spec in specs.items() if spec is not None}
    names = list(asked)
    if len(names) > 1:
        raise invalid(f"{names[0]} and {names[1]} can't both be followed", names[1])
    if tools is not None and tools.choice != "none":
        if names:
            raise invalid(f"{names[0]} leaves no room for tool calls: leave one of them out", names[0])
        if tools.is_forced:
            asked["tools"] = tools.forced_calls(service.tokenizer)
    for spec in asked.values():
        return await service.constraint(spec)
    return None
