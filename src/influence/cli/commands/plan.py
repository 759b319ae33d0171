"""`influence plan`: whether this machine can run a model, before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from influence.cli import options, output
from influence.cli.hub_options import DEFAULT_MIRROR, HubOptions, hub_options
from influence.cli.model_path import MODELS_FOLDER
from influence.dataclass import dataclass

if TYPE_CHECKING:
    from influence.engines.base import KvType
    from influence.engines.estimate import Fit
    from influence.errors import InfluenceError
    from influence.hub.names import RepoId
    from influence.models.config import Config
    from influence.models.survey import Survey
    from influence.weights.safetensors import TensorInfo

# The context that is planned for if the user names none: a long chat; or less, if the model has less.
_USUAL_CONTEXT = 4096


@dataclass(frozen=True)
class Source:
    """A model wherever it is: its config.json, the tensors that its headers list, and its files' sizes."""

    name: str
    config: Config
    tensors: Mapping[str, TensorInfo]
    disk_bytes: int  # of all files
    missing_bytes: int  # of those that are not on this disk yet
    free_bytes: int  # on the disk where they are, or would be


@click.command()
@click.argument("model", type=options.text)
@click.option(
    "--context",
    metavar="N",
    type=click.IntRange(min=1),
    help=f"Positions to plan for.  [default: {_USUAL_CONTEXT}, or the model's limit if that is less]",
)
@options.kv_type_option
@click.option(
    "--revision",
    metavar="REV",
    type=options.text,
    help="A branch, tag or commit on the hub, even if a model of that name is here.  [default: main]",
)
@click.option(
    "-o",
    "--output",
    "shelf_path",
    metavar="FOLDER",
    type=options.text,
    default=f"./{MODELS_FOLDER}/",
    show_default=True,
    help="Where a download would go: that disk is looked at.",
)
@hub_options
@options.json_option
def plan(
    model: str,
    context: int | None,
    kv_type: KvType | None,
    revision: str | None,
    shelf_path: str,
    hub: HubOptions,
    as_json: bool,
) -> None:
    """Say whether this machine can run MODEL, from its config and the headers of its weights.

    MODEL is a folder, a downloaded ORG/NAME (in ./models/), `demo`, or else an
    ORG/NAME of the hub: then the files that a download would fetch are listed,
    and no byte of the weights moves. The speed is what this machine's memory
    allows, by a short measurement.

    \b
    influence plan demo
    influence plan models/my_model --context 16384 --json
    influence plan HuggingFaceTB/SmolLM2-1.7B-Instruct
    """
    name = hub_name(model, revision)
    problem = None
    if name is None:
        facts = planned(local_source(model), context, kv_type)
    else:
        facts, problem = plan_remote(name, revision or "main", Path(shelf_path), context, hub, kv_type)
    if as_json:
        output.write_json(facts)
    else:
        output.write(_as_text(facts))
        _say_notes(facts, hub)
    if problem is not None:
        raise problem


def _say_notes(facts: dict[str, Any], hub: HubOptions) -> None:
    """That a GPU was not planned for; and how to get a model that is still elsewhere and that this machine can hold."""
    from influence.engines import select

    gpu = select.gpu_trace()
    if gpu:
        output.say(f"note: planned for the cpu and its memory: a GPU is here too ({gpu})")
    if facts.get("files") and not facts["problem"] and facts["largest_context"] and facts["disk"]["fits"]:
        mirror = "" if hub.mirror == DEFAULT_MIRROR else f" -r {hub.mirror}"
        output.say(f"get it: influence download {facts['model']}{mirror}")


def planned(source: Source, context: int | None, kv_type: KvType | None = None) -> dict[str, Any]:
    """The plan for this machine as it is now."""
    from influence.engines import machine
    from influence.engines.bandwidth import measure_bandwidth

    return facts_of(source, context, machine.available_memory(), measure_bandwidth(), kv_type)


def hub_name(model: str, revision: str | None) -> RepoId | None:
    """The name to ask a hub for; None for a model of this disk, and for what can be no name."""
    from influence import demo
    from influence.errors import InvalidParameter
    from influence.hub.names import RepoId

    try:
        name = RepoId.parse(model)
    except InvalidParameter:
        return None
    if revision is not None:
        return name
    here = (Path(model), MODELS_FOLDER / name.folder)
    is_here = model == demo.NAME or any((folder / "config.json").exists() for folder in here)
    return None if is_here or Path(name.org) == MODELS_FOLDER else name


def plan_remote(
    name: RepoId,
    revision: str,
    shelf: Path,
    context: int | None,
    hub: HubOptions,
    kv_type: KvType | None = None,
) -> tuple[dict[str, Any], InfluenceError | None]:
    """The plan for a model of a hub; or, if it can't be run here, what its list of files tells, and why.

    Raises HubError where that list is not to be had, InvalidParameter for a context beyond its limit.
    """
    from influence.cli import file_lists
    from influence.cli.hub_access import asking
    from influence.cli.remote_model import RemoteModel, free_bytes
    from influence.errors import HubError, ModelError

    with asking(hub) as client:
        model = RemoteModel.find(client, name, revision)
        disk = _disk_facts(model.size_bytes, model.size_bytes, free_bytes(shelf))
        known = {"model": str(name), "disk": disk, **file_lists.facts(model)}
        try:
            source = Source(
                str(name),
                model.config(),
                model.tensors(),
                model.size_bytes,
                model.size_bytes,
                free_bytes(shelf),
            )
            return known | planned(source, context, kv_type) | {"problem": None}, None
        except (HubError, ModelError) as error:
            verdict = "can't be run here" if isinstance(error, ModelError) else "not known"
            return known | {"verdict": verdict, "problem": error.message}, error


def local_source(model: str) -> Source:
    """A model on this disk; raises ModelError."""
    import shutil

    from influence.cli import shelf
    from influence.cli.model_path import find_model

    folder = find_model(model)
    config, tensors = shelf.headers(folder)
    free_bytes = shutil.disk_usage(folder).free
    return Source(model, config, tensors, shelf.size_on_disk(folder), 0, free_bytes)


def facts_of(
    source: Source,
    context: int | None,
    available_bytes: int,
    bytes_per_s: float,
    kv_type: KvType | None = None,
) -> dict[str, Any]:
    """The plan for a model in a memory of `available_bytes` that is read at `bytes_per_s`.

    Raises what `survey` raises, and InvalidParameter for a context beyond the model's limit.
    """
    from influence.engines.estimate import Fit, Footprint
    from influence.models.survey import survey

    sizes = survey(source.config, source.tensors)
    footprint = Footprint.of(sizes) if kv_type is None else Footprint.of(sizes).with_cache(kv_type)
    fit = Fit(footprint, _checked(context, sizes.spec.max_context), available_bytes)
    return {
        "model": source.name,
        "architecture": sizes.model_type,
        "parameters": sizes.n_parameters,
        "max_context": sizes.spec.max_context,
        **_memory_facts(sizes, fit),
        "disk": _disk_facts(source.disk_bytes, source.missing_bytes, source.free_bytes),
        "speed": _speed_facts(fit, bytes_per_s),
    }


def _checked(context: int | None, limit: int) -> int:
    from influence.errors import InvalidParameter

    if context is None:
        return min(_USUAL_CONTEXT, limit)
    if context > limit:
        raise InvalidParameter("context", context, f"1 to {limit}, which is this model's limit")
    return context


def _disk_facts(files_bytes: int, missing_bytes: int, free_bytes: int) -> dict[str, Any]:
    return {
        "files_bytes": files_bytes,
        "missing_bytes": missing_bytes,
        "free_bytes": free_bytes,
        "fits": missing_bytes <= free_bytes,
    }


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
    """The plan, and below it the files of a model that is still on a hub."""
    rows = _problem_rows(facts) if facts.get("problem") else _rows(facts)
    table = output.columns([(title, output.one_line(value)) for title, value in rows]) + "\n"
    if "files" not in facts:
        return table
    from influence.cli import file_lists

    return f"{table}\n{file_lists.as_text(facts)}"


def _problem_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("model", facts["model"]),
        ("disk", _disk(facts["disk"])),
        ("verdict", f"{facts['verdict']}: {facts['problem']}"),
    ]


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    parameters, dtypes = output.count(facts["parameters"]), ", ".join(facts["weights_bytes_by_dtype"])
    per_token = f"{output.size(facts['kv_bytes_per_token'])} per token"
    needed, available = output.size(facts["needed_bytes"]), output.size(facts["available_bytes"])
    return [
        ("model", f"{facts['model']}: {facts['architecture']}, {parameters} parameters, {dtypes}"),
        ("weights", output.size(facts["weights_bytes"])),
        ("kv cache", f"{output.size(facts['kv_bytes'])} at a context of {facts['context']} ({per_token})"),
        ("activations", output.size(facts["activation_bytes"])),
        ("memory", f"{needed} needed, {available} available"),
        ("disk", _disk(facts["disk"])),
        ("verdict", _verdict(facts)),
        ("speed", _speed(facts["speed"])),
    ]


def _disk(disk: dict[str, Any]) -> str:
    files, free = output.size(disk["files_bytes"]), output.size(disk["free_bytes"])
    if not disk["missing_bytes"]:
        return f"{files}, all here"
    here_too = "" if disk["missing_bytes"] == disk["files_bytes"] else f" of {files}"
    missing = f"{output.size(disk['missing_bytes'])}{here_too} to download, {free} free"
    return missing if disk["fits"] else f"{missing}: NOT ENOUGH"


def _verdict(facts: dict[str, Any]) -> str:
    if facts["fits"]:
        return f"fits; the largest context that does is {facts['largest_context']}"
    short = output.size(facts["needed_bytes"] - facts["available_bytes"])
    if facts["largest_context"] or facts["verdict"] != "does not fit":
        return f"{facts['verdict']}; {short} are missing for {facts['context']}"
    return f"does not fit: {short} are missing, so weights would be read from the disk again and again"


def _speed(speed: dict[str, Any]) -> str:
    rate = speed["decode_tokens_per_s"]
    memory = f"this memory's {speed['memory_bytes_per_s'] / 1e9:.1f} GB/s"
    if rate is None:
        return f"as slow as the disk, not {memory}"
    shown = f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"
    return f"about {shown} tokens/s, at {memory}"
