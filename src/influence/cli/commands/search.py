"""`influence search`: models on a hub, and which of them this machine can run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from influence.cli import options, output
from influence.cli.hub_options import DEFAULT_MIRROR, HubOptions, hub_options
from influence.cli.model_size import MaxSize
from influence.cli.model_size import max_size as size_limit

if TYPE_CHECKING:
    from influence.hub.client import Hub
    from influence.hub.records import ModelSummary
    from influence.models.outlook import Outlook

_MAX_RESULTS = 10_000
# Entries that are looked through for those of the right size: four pages.
_EXAMINED = 2000


@click.command()
@click.argument("query", nargs=-1, required=True, type=options.text)
@click.option(
    "-l",
    "--limit",
    metavar="N",
    type=click.IntRange(1, _MAX_RESULTS),
    default=20,
    show_default=True,
    help="The most models to list.",
)
@click.option("-a", "--author", metavar="ORG", type=options.text, default="", help="Only models of this one.")
@click.option(
    "--sort",
    type=click.Choice(["trending", "downloads", "likes", "created", "modified"]),
    default="trending",
    show_default=True,
    help="What comes first.",
)
@click.option(
    "--task",
    metavar="TASK",
    type=options.text,
    default="",
    help="Only of this pipeline tag: text-generation.",
)
@click.option(
    "--max-size",
    metavar="SIZE",
    type=size_limit,
    help="Only models up to 7B parameters, or 13GB of weights; those of unknown size are left out.",
)
@hub_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object for each model.")
def search(
    query: tuple[str, ...],
    limit: int,
    author: str,
    sort: str,
    task: str,
    max_size: MaxSize | None,
    hub: HubOptions,
    as_json: bool,
) -> None:
    """Find models by QUERY, and say of each whether it runs here.

    The last column is this machine's: does the engine run models of that kind,
    and do the weights fit the memory. It is read from the hub's list alone;
    `influence plan ORG/NAME` looks closer.

    \b
    influence search smollm2 --max-size 2B
    influence search qwen3 -a Qwen --sort downloads -r https://huggingface.co
    """
    from influence.cli.hub_access import asking
    from influence.engines.machine import available_memory

    words = " ".join(query)
    with asking(hub) as client:
        found = _found(client, max_size, limit, query=words, author=author, sort=sort, task=task)
        available_bytes = available_memory()
        models = [_facts(summary, available_bytes) for summary in found]
    if as_json:
        output.write_json(models)
    elif models:
        output.write(_as_text(models, hub))
    else:
        _say_nothing_found(words, hub, narrowed=bool(author or task or max_size))


def _found(client: Hub, max_size: MaxSize | None, limit: int, **asked: str) -> Iterator[ModelSummary]:
    if max_size is None:
        return client.search(limit=limit, **asked)
    examined = client.search(limit=max(limit, _EXAMINED), **asked)
    return islice((summary for summary in examined if max_size.admits(summary)), limit)


def _facts(summary: ModelSummary, available_bytes: int) -> dict[str, Any]:
    from influence.engines.estimate import guessed_bytes
    from influence.models.outlook import outlook

    seen = outlook(summary)
    needed = None if seen.weights_bytes is None else guessed_bytes(seen.weights_bytes)
    return {
        "id": str(summary.id),
        "author": summary.author,
        "downloads": summary.downloads,
        "likes": summary.likes,
        "pipeline_tag": summary.pipeline_tag or None,
        "library": summary.library or None,
        "architecture": seen.model_type or None,
        "parameters": summary.n_parameters,
        "weights_bytes": seen.weights_bytes,
        "needed_bytes": needed,
        "gated": summary.gated or None,
        "private": summary.private,
        "last_modified": summary.last_modified or None,
        "supported": seen.is_supported,
        "fits": None if needed is None else needed <= available_bytes,
        "verdict": _verdict(seen, needed, available_bytes),
    }


def _verdict(seen: Outlook, needed_bytes: int | None, available_bytes: int) -> str:
    if seen.problem:
        return f"no: {seen.problem}"
    kind = "yes" if seen.is_supported else "maybe: kind not told"
    if needed_bytes is None or seen.weights_bytes is None:
        return "yes, if it fits: size not told" if seen.is_supported else "not told"
    if seen.weights_bytes > available_bytes:
        return f"no: needs {output.size(needed_bytes)} of memory"
    return kind if needed_bytes <= available_bytes else f"{kind}, but tight: {output.size(needed_bytes)}"


def _as_text(models: list[dict[str, Any]], hub: HubOptions) -> str:
    from influence.cli import search_table

    if output.is_terminal(sys.stdout):
        table = search_table.for_people(models, shutil.get_terminal_size().columns)
    else:
        table = search_table.for_programs(models)
    return f"{table}\n\n{_next_step(models, hub)}\n"


def _next_step(models: list[dict[str, Any]], hub: HubOptions) -> str:
    """How to get the first of those that run here, one that is not gated if there is one."""
    runnable = sorted((m for m in models if m["supported"] and m["fits"]), key=lambda m: bool(m["gated"]))
    if not runnable:
        return "none of these is known to run here; `influence plan ORG/NAME` looks closer"
    mirror = "" if hub.mirror == DEFAULT_MIRROR else f" -r {hub.mirror}"
    token = " --token TOKEN" if runnable[0]["gated"] else ""
    return f"influence download {runnable[0]['id']}{mirror}{token}"


def _say_nothing_found(words: str, hub: HubOptions, *, narrowed: bool) -> None:
    output.say(f"no model on {hub.endpoint.host} matches {output.visible(words)!r}")
    wider = "leave out --author, --task or --max-size" if narrowed else "try fewer or shorter words"
    output.say(f"hint: {wider}, or ask another hub with --mirror URL")
