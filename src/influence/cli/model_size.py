"""Sizes of models as people write them: "7B" parameters, "13GB" of weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from influence.dataclass import dataclass

if TYPE_CHECKING:
    from influence.hub.records import ModelSummary

_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?(K|M|B|T|KB|MB|GB|TB)", re.IGNORECASE | re.ASCII)
_SCALES = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}


@dataclass(frozen=True)
class MaxSize:
    """The most of either: a number of parameters, or of bytes of weights."""

    n_parameters: int | None = None
    n_bytes: int | None = None

    def admits(self, summary: ModelSummary) -> bool:
        """Whether a listed model is known to be no larger."""
        from influence.models.outlook import outlook

        if self.n_parameters is not None:
            return summary.n_parameters is not None and summary.n_parameters <= self.n_parameters
        weights_bytes = outlook(summary).weights_bytes
        return weights_bytes is not None and weights_bytes <= (self.n_bytes or 0)


def max_size(value: str) -> MaxSize:
    """An option's type: "7B", "500M" parameters, or "13GB", "800MB" of weights."""
    stated = _SIZE.fullmatch(value.strip())
    if not stated:
        raise click.BadParameter(f"{value!r} is no size; write 7B or 500M for parameters, 13GB for bytes")
    unit = stated[2].upper()
    amount = round(float(stated[1]) * _SCALES[unit[0]])
    return MaxSize(n_bytes=amount) if len(unit) == 2 else MaxSize(n_parameters=amount)
