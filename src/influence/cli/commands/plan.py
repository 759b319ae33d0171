"""`influence plan`: whether this machine can run a model, before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from influence.cli import options, output

if TYPE_CHECKING:
    from influence.engines.estimate import Fit
    from influence.models.config import Config
    from influence.models.survey import Survey
    from influence.weights.safetensors import TensorInfo

# The context that is planned for if the user names none: a long chat; or less, if the model has less.
_USUAL_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """A model wherever it is: its config.json, the tensors that its headers list, and its files' sizes."""

    name: str
    config: Config
    tensors: Mapping[str, TensorInfo]
    disk_bytes: int  # of all files
    missing_bytes: int  # of those that are not on this disk yet
    free_bytes: int  # on the disk where they are, or would be


@click.command(short_help="Say whether this machine can run a model.")
@click.argument("model", type=options.text)
@click.option(
    "--context",
    metavar="N",
    type=click.IntRange(min=1),
    help=f"Positions to plan for.  [default: {_USUAL_CONTEXT}, or the model's limit if that is less]",
)
@options.json_option
def plan(model: str, context: int | None, as_json: bool) -> None:
    """Say whether this machine can run MODEL, from its config and the headers of its weights.

    MODEL is a folder, a downloaded ORG/NAME (in ./models/), or `demo`. The
    speed is what this machine's memory allows, by a short measurement.

    \b
    influence plan demo
    influence plan models/my_model --context 16384 --json
    """
    from influence.engines import machine
    from influence.engines.bandwidth import measure_bandwidth

    source = local_source(model)
    facts = facts_of(source, context, machine.available_memory(), measure_bandwidth())
    if as_json:
        output.write_json(facts)
    else:
        output.write(_as_text(facts))


def local_source(model: str) -> Source:
    """A model on this disk; raises ModelError."""
    import shutil

    from influence.cli import shelf
    from influence.cli.model_path import find_model

    folder = find_model(model)
    config, tensors = shelf.headers(folder)
    free_bytes = shutil.disk_usage(folder).free
    return Source(model, config, tensors, shelf.size_on_disk(folder), 0, free_bytes)


def facts_of(source: Source, context: int | None, available_bytes: int, bytes_per_s: float) -> dict[str, Any]:
    """The plan for a model in a memory of `available_bytes` that is read at `bytes_per_s`.

    Raises what `survey` raises, and InvalidParameter for a context beyond the model's limit.
    """
    from influence.engines.estimate import Fit, Footprint
    from influence.models.survey import survey

    sizes = survey(source.config, source.tensors)
    fit = Fit(Footprint.of(sizes), _checked(context, sizes.spec.max_context), available_bytes)
    return {
        "model": source.name,
        "architecture": sizes.model_type,
        "parameters": sizes.n_parameters,
        "max_context": sizes.spec.max_context,
        **_memory_facts(sizes, fit),
        "disk": {
            "files_bytes": source.disk_bytes,
            "missing_bytes": source.missing_bytes,
            "free_bytes": source.free_bytes,
            "fits": source.missing_bytes <= source.free_bytes,
        },
        "speed": _speed_facts(fit, bytes_per_s),
    }


def _checked(context: int | None, limit: int) -> int:
    from influence.errors import InvalidParameter

    if context is None:
        return min(_USUAL_CONTEXT, limit)
    if context > limit:
        raise InvalidParameter("context", context, f"1 to {limit}, which is this model's limit")
    return context


def _memory_facts(sizes: Survey, fit: Fit) -> dict[str, Any]:
    footprint = fit.footprint
    return {
        "context": fit.context,
        "weights_bytes": footprint.weights_bytes,
        "weights_bytes_by_dtype": dict(sizes.bytes_by_dtype),
        "kv_bytes": footprint.kv_bytes(fit.context),
        "kv_bytes_per_token": footprint.kv_bytes_per_token,
        "activation_bytes": footprint.activation_bytes,
        "needed_bytes": fit.needed_bytes,
        "available_bytes": fit.available_bytes,
        "fits": fit.fits,
        "largest_context": fit.largest_context,
        "verdict": fit.verdict,
    }


def _speed_facts(fit: Fit, bytes_per_s: float) -> dict[str, Any]:
    """At the context asked for, or the largest that fits; a model that does not fit is read from the disk."""
    from influence.engines.estimate import decode_tokens_per_s

    context = min(fit.context, fit.largest_context)
    return {
        "memory_bytes_per_s": round(bytes_per_s),
        "decode_tokens_per_s": decode_tokens_per_s(fit.footprint, context, bytes_per_s) if context else None,
    }


def _as_text(facts: dict[str, Any]) -> str:
    parameters, dtypes = output.count(facts["parameters"]), ", ".join(facts["weights_bytes_by_dtype"])
    per_token = f"{output.size(facts['kv_bytes_per_token'])} per token"
    needed, available = output.size(facts["needed_bytes"]), output.size(facts["available_bytes"])
    rows = [
        ("model", f"{facts['model']}: {facts['architecture']}, {parameters} parameters, {dtypes}"),
        ("weights", output.size(facts["weights_bytes"])),
        ("kv cache", f"{output.size(facts['kv_bytes'])} at a context of {facts['context']} ({per_token})"),
        ("activations", output.size(facts["activation_bytes"])),
        ("memory", f"{needed} needed, {available} available"),
        ("disk", _disk(facts["disk"])),
        ("verdict", _verdict(facts)),
        ("speed", _speed(facts["speed"])),
    ]
    return output.columns([(title, output.one_line(value)) for title, value in rows]) + "\n"


def _disk(disk: dict[str, Any]) -> str:
    files, free = output.size(disk["files_bytes"]), output.size(disk["free_bytes"])
    if not disk["missing_bytes"]:
        return f"{files}, all here"
    missing = f"{output.size(disk['missing_bytes'])} of {files} to download, {free} free"
    return missing if disk["fits"] else f"{missing}: NOT ENOUGH"


def _verdict(facts: dict[str, Any]) -> str:
    if facts["fits"]:
        return f"fits; the largest context that does is {facts['largest_context']}"
    short = output.size(facts["needed_bytes"] - facts["available_bytes"])
    if facts["largest_context"]:
        return f"{facts['verdict']}; {short} are missing for {facts['context']}"
    return f"does not fit: {short} are missing, so weights would be read from the disk again and again"


def _speed(speed: dict[str, Any]) -> str:
    rate = speed["decode_tokens_per_s"]
    memory = f"this memory's {speed['memory_bytes_per_s'] / 1e9:.1f} GB/s"
    if rate is None:
        return f"as slow as the disk, not {memory}"
    shown = f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"
    return f"about {shown} tokens/s, at {memory}"
