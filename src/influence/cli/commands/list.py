"""`influence list`: the models on this machine's shelf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from influence.cli import output
from influence.cli.options import json_option

_HEADINGS = ("model", "architecture", "parameters", "dtype", "size", "context")


@click.command(name="list", short_help="List the models in ./models/.")
@json_option
def list_models(as_json: bool) -> None:
    """List the models in ./models/, and the folders there that can't be run, with the reason.

    \b
    influence list
    influence list --json
    """
    from influence.cli import shelf
    from influence.cli.model_path import MODELS_FOLDER

    models = [_entry(folder) for folder in shelf.folders()]
    if as_json:
        output.write_json({"folder": str(MODELS_FOLDER), "models": models})
    elif models:
        output.write(_as_text(models))
    else:
        output.say(
            f"no models in ./{MODELS_FOLDER}/; -m demo runs the model that comes with influence,"
            " and -m takes a folder anywhere"
        )


def _entry(folder: Path) -> dict[str, Any]:
    """One folder: its facts, or the problem that keeps it from being run."""
    from influence.cli import shelf
    from influence.errors import InfluenceError

    named = {"name": shelf.name_of(folder), "folder": str(folder)}
    try:
        return {**named, **shelf.facts(folder), "problem": None}
    except InfluenceError as error:
        return {**named, "problem": error.message}
    except OSError as error:
        return {**named, "problem": f"{folder}: {error.strerror}"}


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
