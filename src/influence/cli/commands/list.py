"""`influence list`: the models on this machine's shelf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from influence.cli import output
from influence.cli.options import json_option

if TYPE_CHECKING:
    from influence.hub.store import Entry

_HEADINGS = ("model", "architecture", "parameters", "dtype", "size", "context")


@click.command(name="list")
@json_option
def list_models(as_json: bool) -> None:
    """List the models in ./models/, and the folders there that can't be run, with the reason.

    \b
    influence list
    influence list --json
    """
    from influence.cli.model_path import MODELS_FOLDER
    from influence.hub.store import entries

    models = [_facts(entry) for entry in entries(MODELS_FOLDER)]
    if as_json:
        output.write_json({"folder": str(MODELS_FOLDER), "models": models})
    elif models:
        output.write(_as_text(models))
    else:
        output.say(
            f"no models in ./{MODELS_FOLDER}/: `influence search WORDS` finds some, `influence download` gets one;"
            " -m demo runs the model that comes with influence"
        )


def _facts(entry: Entry) -> dict[str, Any]:
    """One folder: its facts, or the problem that keeps it from being run."""
    from influence.cli import shelf
    from influence.errors import InfluenceError

    named = {"name": shelf.name_of(entry), "folder": str(entry.path), "is_partial": entry.is_partial}
    if entry.is_only_begun:
        return {
            **named,
            "problem": f"its download is not complete ({output.size(entry.received_bytes)} so far)",
        }
    try:
        return {**named, **shelf.facts(entry.path), "problem": None}
    except InfluenceError as error:
        return {**named, "problem": error.message}
    except OSError as error:
        return {**named, "problem": f"{entry.path}: {error.strerror}"}


def _as_text(models: list[dict[str, Any]]) -> str:
    sound = [_row(model) for model in models if model["problem"] is None]
    broken = [
        (output.one_line(model["name"]), f"can't be run: {output.one_line(_short_problem(model))}")
        for model in models
        if model["problem"] is not None
    ]
    tables = [output.columns([_HEADINGS, *sound]) if sound else "", output.columns(broken)]
    return "\n\n".join(table for table in tables if table) + "\n"


def _short_problem(model: dict[str, Any]) -> str:
    """The problem without the folder, which stands before it in the table."""
    problem: str = model["problem"]
    return problem.removeprefix(model["folder"]).lstrip(":/ ")


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    return (
        output.one_line(model["name"]),
        model["architecture"],
        output.count(model["parameters"]),
        model["dtype"],
        output.size(model["size_bytes"]),
        str(model["context"]),
    )
