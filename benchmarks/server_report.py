"""What a load told of a server, as a table and as JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from contention import NOTABLE
from report import Workload

OURS = "influence"


@dataclass(frozen=True, slots=True)
class Case:
    """One load."""

    clients: int
    prompt: int  # tokens
    new_tokens: int
    requests: int  # of each client

    @property
    def name(self) -> str:
        return f"{self.clients} clients" if self.clients > 1 else "1 client"


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of a load: the client's records, and what others took of the processors meanwhile."""

    records: Sequence[Mapping[str, Any]]
    others_share: float

    @property
    def errors(self) -> list[str]:
        return [record["error"] for record in self.records if record["error"]]

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens of all clients over the time from the first request to the last reply's end."""
        n_tokens = sum(int(record["n_tokens"]) for record in self.records)
        return n_tokens / max(float(record["end_s"]) for record in self.records)

    def first_token_s(self, quantile: float) -> float:
        waits = [record["token_s"][0] - record["start_s"] for record in self.records if record["token_s"]]
        return _quantile(waits, quantile)

    def inter_token_s(self, quantile: float) -> float:
        """Of the gaps between a stream's pieces, all streams together."""
        gaps = [after - before for record in self.records for before, after in pairwise(record["token_s"])]
        return _quantile(gaps, quantile)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case's turns, by server."""

    case: Case
    turns: dict[str, list[Turn]]

    def summary(self, name: str) -> dict[str, float]:
        """The median over the turns of each number."""
        turns = self.turns[name]
        numbers = {
            "tokens_per_s": [turn.tokens_per_s for turn in turns],
            "first_token_p50_s": [turn.first_token_s(0.5) for turn in turns],
            "first_token_p95_s": [turn.first_token_s(0.95) for turn in turns],
            "inter_token_p50_s": [turn.inter_token_s(0.5) for turn in turns],
            "inter_token_p95_s": [turn.inter_token_s(0.95) for turn in turns],
        }
        return {key: round(statistics.median(values), 4) for key, values in numbers.items()}

    def ratio(self, name: str) -> float:
        """How many times as many tokens/s we made: the median over neighbouring turns."""
        pairs = zip(self.turns[OURS], self.turns[name], strict=True)
        return statistics.median(ours.tokens_per_s / theirs.tokens_per_s for ours, theirs in pairs)

    @property
    def others_share(self) -> float:
        """In our turns; a baseline that we did not start counts as others in its own."""
        return statistics.median(turn.others_share for turn in self.turns[OURS])


def table_head() -> str:
    columns = ("first token p50", "p95", "between tokens p50", "p95", "errors")
    return f"{'':14}{'':14}{'tokens/s':>10}" + "".join(f"{column:>20}" for column in columns)


def table_rows(outcome: Outcome) -> list[str]:
    """A row for each server."""
    return [_row(outcome, name) for name in outcome.turns]


def _row(outcome: Outcome, name: str) -> str:
    told = outcome.summary(name)
    cells = [
        f"{told['first_token_p50_s']:.2f} s",
        f"{told['first_token_p95_s']:.2f} s",
        f"{told['inter_token_p50_s'] * 1000:.0f} ms",
        f"{told['inter_token_p95_s'] * 1000:.0f} ms",
        str(sum(len(turn.errors) for turn in outcome.turns[name])),
    ]
    row = f"{outcome.case.name:14}{name:14}{told['tokens_per_s']:>10.1f}" + "".join(f"{c:>20}" for c in cells)
    if name != OURS:
        return f"{row}   we: x {outcome.ratio(name):.2f}"
    busy = outcome.others_share > NOTABLE
    return row + (f"  ! others had {outcome.others_share:.0%} of the processors" if busy else "")


def as_json(
    workload: Workload,
    machine_facts: Mapping[str, Any],
    engines: Mapping[str, str],
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """Everything but the single tokens' times."""
    return {
        "model": {
            "name": workload.name,
            "dtype": workload.dtype,
            "weight_bytes_per_step": workload.step_bytes,
        },
        "machine": dict(machine_facts),
        "engines": dict(engines),
        "cases": [_case_json(outcome) for outcome in outcomes],
    }


def _case_json(outcome: Outcome) -> dict[str, Any]:
    case = outcome.case
    engines: dict[str, Any] = {}
    for name, turns in outcome.turns.items():
        engines[name] = {
            **outcome.summary(name),
            "tokens_per_s_of_turns": [round(turn.tokens_per_s, 2) for turn in turns],
            "first_token_p50_s_of_turns": [round(turn.first_token_s(0.5), 3) for turn in turns],
            "errors": [error for turn in turns for error in turn.errors],
        }
        if name != OURS:
            engines[name]["our_ratio"] = round(outcome.ratio(name), 3)
    return {
        "name": case.name,
        "clients": case.clients,
        "prompt_tokens": case.prompt,
        "new_tokens": case.new_tokens,
        "requests_of_each_client": case.requests,
        "share_of_processors_taken_by_others": round(outcome.others_share, 3),
        "engines": engines,
    }


def _quantile(values: Sequence[float], quantile: float) -> float:
    """The value that a share of the others is at or below; NaN where nothing was measured."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(quantile * len(ordered)) - 1)]
