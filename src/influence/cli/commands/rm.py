"""`influence rm`: a model's folder leaves the shelf."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from influence.cli import options, output
from influence.cli.failure import BadUsage
from influence.cli.model_path import MODELS_FOLDER
from influence.errors import ModelFilesMissing

if TYPE_CHECKING:
    from influence.hub.store import Entry


@click.command()
@click.argument("model", type=options.text)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rm(model: str, yes: bool) -> None:
    """Remove MODEL, a downloaded ORG/NAME or another folder in ./models/, with all in it.

    \b
    influence rm ORG/NAME
    influence rm models/my_model --yes

    Nothing outside ./models/ is ever removed. Without a terminal to ask on,
    --yes is needed.
    """
    from influence.hub.store import find, remove

    entry = find(MODELS_FOLDER, _name_on_shelf(model))
    _refuse_link_away(entry.path)
    for line in _description(entry):
        output.say(line)
    if not yes:
        _ask(entry)
    with output.spinner(f"removing {entry.path}") as spinner:
        freed_bytes = remove(entry, lambda event: spinner.show(getattr(event, "reason", "")))
    output.say(f"removed {entry.path}: {output.size(freed_bytes)} are free again")


def _name_on_shelf(model: str) -> str:
    """The name of the entry, where the user gives a path to it."""
    path = Path(model)
    on_shelf = path.parent.resolve() == MODELS_FOLDER.resolve()
    return path.name if on_shelf else model


def _refuse_link_away(path: Path) -> None:
    if path.is_symlink() and path.resolve().parent != MODELS_FOLDER.resolve():
        raise ModelFilesMissing(
            path,
            f"this is a link to {path.resolve()}, which is not in ./{MODELS_FOLDER}/",
            hint="nothing was removed; remove the link, or what it leads to, by hand",
        )


def _description(entry: Entry) -> list[str]:
    """What would be lost."""
    from influence.hub.store import strangers

    lines = [f"{entry.path}: {_what(entry)}, {output.size(entry.size_bytes)}"]
    if entry.manifest:
        others = [output.visible(path) for path in strangers(entry)]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            lines.append(f"with it goes what was not downloaded: {others[0]}{more}")
    elif not entry.is_partial:
        lines.append("influence did not download it, so nobody knows where to get it again")
    return lines


def _what(entry: Entry) -> str:
    if entry.path.is_symlink():
        return f"a link to {entry.path.resolve().name}, which stays"
    if entry.manifest:
        return f"{entry.manifest.repo} at {entry.manifest.sha[:12]}"
    return "a download that is not complete" if entry.is_partial else "a folder of your own"


def _ask(entry: Entry) -> None:
    """Go on only if the user says yes."""
    if not output.is_terminal(sys.stdin):
        raise BadUsage(
            f"nobody can be asked whether {entry.path} may go", hint="without a terminal, give --yes"
        )
    if not click.confirm("remove it?", err=True):
        output.say("nothing was removed")
        raise click.exceptions.Exit(1)
