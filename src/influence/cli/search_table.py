"""What `influence search` prints: a table as wide as the terminal, or plain columns for other programs.

On a terminal numbers are rounded, and where a row would not fit columns are
left out, the least needed first; a name is never cut. Without a terminal every
column is there, numbers are exact, an empty cell is "-", and no cell but the
last holds a space: `awk '{print $1}'` gives the names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from influence.cli import output
from influence.dataclass import dataclass

Model = dict[str, Any]


@dataclass(frozen=True)
class _Column:
    heading: str
    key: str
    rounded: Callable[[Any], str] | None = None  # of a number: how people like to read it


_COLUMNS = (
    _Column("model", "id"),
    _Column("author", "author"),
    _Column("downloads", "downloads", output.count),
    _Column("likes", "likes", output.count),
    _Column("task", "pipeline_tag"),
    _Column("parameters", "parameters", output.count),
    _Column("gated", "gated"),
    _Column("runs here", "verdict"),
)
# What a narrow terminal does without, in this order: the author stands in the name too.
_DISPENSABLE = ("author", "likes", "pipeline_tag", "gated", "downloads")
_NOTHING = "-"


def for_people(models: Sequence[Model], width: int) -> str:
    """The table for a terminal of so many characters."""
    columns = list(_COLUMNS)
    for key in ("", *_DISPENSABLE):
        columns = [column for column in columns if column.key != key]
        table = _table(columns, [[_rounded(model, column) for column in columns] for model in models])
        if max(map(len, table.splitlines())) <= width:
            break
    return table


def for_programs(models: Sequence[Model]) -> str:
    """The columns for a pipe or a file."""
    return _table(_COLUMNS, [[_exact(model, column) for column in _COLUMNS] for model in models])


def _table(columns: Sequence[_Column], rows: list[list[str]]) -> str:
    """Aligned: numbers to the right."""
    cells = [[column.heading for column in columns], *rows]
    for i, column in enumerate(columns):
        if column.rounded:
            width = max(len(row[i]) for row in cells)
            for row in cells:
                row[i] = row[i].rjust(width)
    return output.columns(cells)


def _rounded(model: Model, column: _Column) -> str:
    value = model[column.key]
    if value is None:
        return _NOTHING
    return column.rounded(value) if column.rounded else str(value)


def _exact(model: Model, column: _Column) -> str:
    value = model[column.key]
    text = _NOTHING if value is None else str(value)
    return text if column is _COLUMNS[-1] else "_".join(text.split())
