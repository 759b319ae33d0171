"""`influence download`: a model from the Hub or a mirror, whole and verified."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from influence.cli import options, output
from influence.cli.failure import BadUsage
from influence.cli.hub_options import HubOptions, hub_options
from influence.cli.model_path import MODELS_FOLDER
from influence.dataclass import dataclass
from influence.errors import InvalidParameter

if TYPE_CHECKING:
    from influence.cli.transfer_display import Display
    from influence.hub.client import Hub
    from influence.hub.names import RepoId
    from influence.hub.offer import Offer

_MAX_CONNECTIONS = 64
_SPARE_CONNECTIONS = 4  # for what is asked beside the bytes


@dataclass(frozen=True)
class Wish:
    """What the user wants, checked as far as that goes without asking anybody."""

    repo: RepoId
    revision: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    folder: Path  # of the model
    hub: HubOptions
    witness: HubOptions | None  # of the host whose list must be the same
    connections: int


@click.command()
@click.argument("model", required=False, type=options.text)
@click.option(
    "-m", "--model", "named", metavar="ORG/NAME", type=options.text, help="The model, if not given as MODEL."
)
@click.option(
    "-o",
    "--output",
    "shelf",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    default=MODELS_FOLDER,
    help="Where to put the model's folder, ORG_NAME.  [default: ./models/]",
)
@click.option(
    "--revision",
    metavar="REV",
    type=options.text,
    default="main",
    show_default=True,
    help="A branch, tag or commit.",
)
@click.option(
    "--include",
    metavar="PATTERN",
    type=options.text,
    multiple=True,
    help="Only files whose path matches, whatever they are. Can be given often.",
)
@click.option(
    "--exclude",
    metavar="PATTERN",
    type=options.text,
    multiple=True,
    help="Not the files whose path matches. Can be given often.",
)
@hub_options
@click.option(
    "--verify-with",
    metavar="URL",
    type=options.text,
    help="Another host, whose list of sizes and hashes must be the same; no file comes from it.",
)
@click.option(
    "--connections",
    metavar="N",
    type=click.IntRange(1, _MAX_CONNECTIONS),
    default=16,
    show_default=True,
    help="The most connections at once; fewer are used where more don't help.",
)
@click.option("--dry-run", is_flag=True, help="Only list what would come, and what not and why.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print what happens, one JSON object a line.")
def download(
    model: str | None,
    named: str | None,
    shelf: Path,
    revision: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    hub: HubOptions,
    verify_with: str | None,
    connections: int,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Download MODEL, ORG/NAME on the Hub, to ./models/ORG_NAME/.

    \b
    influence download TinyLlama/TinyLlama-1.1B-Chat-v1.0
    influence download -m ORG/NAME -r https://huggingface.co --token - < token.txt
    influence download ORG/NAME --verify-with https://huggingface.co
    influence download ORG/NAME --include "*.json" --dry-run

    What is needed to run the model is chosen: one set of weights, in
    safetensors. Each file is held to the size and hash that the mirror lists
    and gets its name when all are right; an older version stays until then.
    After any interruption the same command goes on where it was.

    The folder is printed on stdout, all else on stderr. docs/downloading.md
    says what is checked, and what survives what.
    """
    from influence.hub.names import RepoId

    repo = RepoId.parse(_one_name(model, named))
    witness = _witness(hub, verify_with) if verify_with else None
    wish = Wish(repo, revision, include, exclude, shelf / repo.folder, hub, witness, connections)
    if dry_run:
        _show_dry_run(wish, as_json=as_json, quiet=quiet)
    else:
        _download(wish, as_json=as_json, quiet=quiet)


def _one_name(model: str | None, named: str | None) -> str:
    given = {name for name in (model, named) if name}
    if len(given) == 1:
        return given.pop()
    problem = "two models are named" if given else "no model is named"
    raise BadUsage(problem, hint="give one ORG/NAME; `influence search WORDS` finds them")


def _witness(hub: HubOptions, url: str) -> HubOptions:
    witness = hub.at(url)
    if witness.endpoint == hub.endpoint:
        raise InvalidParameter("verify-with", str(witness.endpoint), "another host than --mirror")
    return witness


def _show_dry_run(wish: Wish, *, as_json: bool, quiet: bool) -> None:
    from influence.cli import download_report

    with _asked(wish, as_json=False, quiet=quiet) as (client, offer, _):
        facts = download_report.dry_run(offer, client.endpoint, wish.folder)
    if as_json:
        output.write_json(facts)
    else:
        output.write(download_report.dry_run_text(facts))


def _download(wish: Wish, *, as_json: bool, quiet: bool) -> None:
    from influence.cli import download_report
    from influence.cli.transfer_display import write_line

    began = time.monotonic()
    with _asked(wish, as_json=as_json, quiet=quiet) as (client, offer, display):
        kept_bytes = _transfer(wish, offer, client, display)
    facts = download_report.finished(
        offer, client.endpoint, wish.folder, kept_bytes, time.monotonic() - began
    )
    if as_json:
        write_line({"event": "finished", **facts})
        return
    if not quiet:
        output.say(download_report.finished_text(facts))
    output.write(f"{wish.folder}\n")
    if not quiet:
        output.say(f'run it: influence generate "Once upon a time" -m {_name_for_m(wish)}')


@contextmanager
def _asked(wish: Wish, *, as_json: bool, quiet: bool) -> Iterator[tuple[Hub, Offer, Display]]:
    """A client of the hub, what it offers, and where to show what follows."""
    from influence.cli.transfer_display import display_for
    from influence.hub.offer import check_granted, examine

    doing = f"asking {wish.hub.endpoint.host} about {wish.repo}"
    with ExitStack() as stack:
        display = stack.enter_context(display_for(as_json=as_json, quiet=quiet, doing=doing))

        def connect(hub: HubOptions) -> Hub:
            n_connections = wish.connections + _SPARE_CONNECTIONS
            return stack.enter_context(
                hub.connect(on_wait=display.wait, on_notice=display.note, n_connections=n_connections)
            )

        client = connect(wish.hub)
        witness = connect(wish.witness) if wish.witness else None
        offer = examine(
            client, wish.repo, wish.revision, include=wish.include, exclude=wish.exclude, witness=witness
        )
        check_granted(client, offer)
        if offer.revision.repo != wish.repo:
            display.note(f"{client.endpoint.host} calls {wish.repo} {offer.revision.repo} now")
        yield client, offer, display


def _transfer(wish: Wish, offer: Offer, client: Hub, display: Display) -> int:
    """Make the folder hold what is offered; the bytes of it that were here before."""
    from influence.hub.events import Event, Planned
    from influence.hub.source import HubSource
    from influence.hub.store import check_free
    from influence.hub.transfer import Options, Origin, download

    kept_bytes = 0

    def show(event: Event) -> None:
        nonlocal kept_bytes
        if isinstance(event, Planned):
            kept_bytes = event.kept_bytes
        display.event(event)

    display.doing(f"looking at what {wish.folder} holds")
    files, sha = offer.selection.chosen, offer.revision.sha
    check_free(wish.folder, str(wish.repo), files)
    origin = Origin(str(wish.repo), wish.revision, sha, str(client.endpoint))
    source = HubSource(client, wish.repo, sha)
    try:
        download(
            source, origin, files, wish.folder, on_event=show, options=Options(connections=wish.connections)
        )
    except (KeyboardInterrupt, SystemExit):
        display.tell("stopped: what has come is kept, and the same command goes on from there")
        raise
    return kept_bytes


def _name_for_m(wish: Wish) -> str:
    """What `-m` of the other commands finds the model by, from here."""
    if wish.folder == MODELS_FOLDER / wish.repo.folder:
        return str(wish.repo)
    return shlex.quote(str(wish.folder))
