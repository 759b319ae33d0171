"""Outcomes as a table for people and as JSON for later."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil

from cases import OURS, Outcome
from contention import NOTABLE
from influence.engines import machine
from influence.engines.packing import PackedWeights
from influence.models.model import Model


@dataclass(frozen=True, slots=True)
class Workload:
    """What of a model costs time."""

    name: str
    dtype: str  # of the weights as we hold them
    stored_dtype: str
    step_bytes: int  # weights that one forward reads: all but an embedding that is only looked up in
    matrix_flop: int  # of the layers, for one token

    @classmethod
    def of(cls, model: Model, name: str, packed: PackedWeights | None = None) -> Workload:
        outer, layers = model.weights.outer, model.weights.layers
        looked_up = outer["embed"].size_bytes if "lm_head" in outer else 0
        tensors = [tensor for layer in layers for tensor in layer.values()]
        return cls(
            name=name,
            dtype=packed.format if packed else layers[0]["q"].dtype,
            stored_dtype=layers[0]["q"].dtype,
            step_bytes=packed.size_bytes if packed else model.weights.size_bytes - looked_up,
            matrix_flop=2 * sum(tensor.array.size for tensor in tensors if tensor.array.ndim > 1),
        )

    def held_as(self, form: str, step_bytes: int) -> Workload:
        """The same, of an engine that holds the weights in its own way."""
        return replace(self, dtype=self.dtype if form == "stored" else form, step_bytes=step_bytes)


def describe_machine(threads: int) -> dict[str, Any]:
    """What a reader needs to judge the numbers."""
    cores = machine.cores()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "cpu": machine.cpu_name(),
        "physical_cores": cores.n_physical,
        "usable_cores": cores.n_usable,
        "threads": threads,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_average": round(os.getloadavg()[0], 2),
        "versions": {
            "influence": importlib.metadata.version("influence"),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


def as_json(
    workload: Workload,
    machine_facts: Mapping[str, Any],
    engines: Mapping[str, str],
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """Everything, each turn included."""
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
    engines = {}
    for name, turns in outcome.turns.items():
        engines[name] = {
            "tokens_per_s": round(outcome.tokens_per_s(name), 2),
            "seconds": [round(seconds, 5) for seconds in turns.seconds],
            "machine_read_gb_per_s": [round(speed, 2) for speed in turns.read_gb_per_s],
        }
        if not case.is_prefill:
            engines[name]["weights_gb_per_s"] = round(outcome.gb_per_s(name), 2)
            engines[name]["share_of_bandwidth"] = round(outcome.bandwidth_share(name), 3)
        if name != OURS:
            engines[name]["our_ratio"] = round(outcome.ratio(name), 3)
    return {
        "name": case.name,
        "new_tokens" if case.depth else "prompt_tokens": case.n_tokens,
        "depth": case.depth,
        "streams": case.n_streams,
        "share_of_processors_taken_by_others": round(outcome.others_share, 3),
        "engines": engines,
    }


def heading(workload: Workload, facts: Mapping[str, Any], engines: Mapping[str, str]) -> str:
    lines = [
        f"{workload.name}, {workload.dtype}: {workload.step_bytes / 1e9:.2f} GB of weights a step",
        f"{facts['cpu']}, {facts['usable_cores']} cores, {facts['memory_gb']} GB, "
        f"load {facts['load_average']}, {facts['date']}",
        *(f"{name}: {description}" for name, description in engines.items()),
    ]
    return "\n".join(lines)


def table_head(engines: Sequence[str]) -> str:
    cells = [f"{'':24}", *(f"{name:>34}" for name in engines)]
    return "".join(cells) + "".join(f"{'x ' + name:>22}" for name in engines if name != OURS)


def table_row(outcome: Outcome, workload: Workload) -> str:
    """tokens/s, what that means for the machine, and our speed over each peer's."""
    names = list(outcome.turns)
    cells = [
        f"{outcome.tokens_per_s(name):>9.1f} tok/s {_effort(outcome, name, workload):>18}" for name in names
    ]
    ratios = [f"{outcome.ratio(name):>22.2f}" for name in names if name != OURS]
    busy = outcome.others_share > NOTABLE
    note = f"  ! others had {outcome.others_share:.0%} of the processors" if busy else ""
    return f"{outcome.case.name:24}" + "".join(cells) + "".join(ratios) + note


def _effort(outcome: Outcome, engine: str, workload: Workload) -> str:
    if outcome.case.is_prefill:
        return f"{outcome.tokens_per_s(engine) * workload.matrix_flop / 1e9:.0f} GFLOP/s"
    return f"{outcome.gb_per_s(engine):.1f} GB/s, {outcome.bandwidth_share(engine):4.0%}"


def bandwidth_line(outcomes: Sequence[Outcome]) -> str:
    speeds = [
        speed for outcome in outcomes for turns in outcome.turns.values() for speed in turns.read_gb_per_s
    ]
    return (
        f"memory was read at {statistics.median(speeds):.1f} GB/s around the turns "
        f"({min(speeds):.1f} to {max(speeds):.1f})"
    )
