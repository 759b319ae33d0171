"""`influence verify`: whether a downloaded model still is what was published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from influence.cli import options, output
from influence.cli.hub_options import HubOptions, hub_options_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from influence.cli.transfer_display import Display
    from influence.hub.manifest import Manifest
    from influence.hub.verification import Damage

_MAX_RANGES = 8  # of one file, that are listed
_FAILED = 1


@click.command()
@click.argument("model", type=options.text)
@click.option(
    "--repair", is_flag=True, help="Fetch the damaged bytes anew; without this, no connection is opened."
)
@hub_options_with("", "Where --repair fetches from.  [default: where the model came from]")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@options.json_option
def verify(model: str, repair: bool, hub: HubOptions, quiet: bool, as_json: bool) -> None:
    """Read every byte of MODEL and compare it with the hashes that it was published with.

    MODEL is a downloaded ORG/NAME (in ./models/) or its folder.

    \b
    influence verify ORG/NAME
    influence verify ORG/NAME --repair
    influence verify models/ORG_NAME --json

    What is damaged is listed with the bytes that differ; exit code 1 if that is
    still so at the end.
    """
    from influence.cli.model_path import find_model
    from influence.cli.transfer_display import display_for
    from influence.hub.verification import manifest_of
    from influence.hub.verification import verify as verify_folder

    folder = find_model(model)
    manifest = manifest_of(folder)
    with display_for(as_json=False, quiet=quiet, doing=f"opening {folder}") as display:
        if repair:
            damages = _repaired(folder, manifest, hub, display)
        else:
            damages = verify_folder(folder, on_event=display.event)
    if as_json:
        output.write_json(_facts(folder, manifest, damages, repaired=repair))
    else:
        output.write(_as_text(manifest, damages, repaired=repair))
    if damages and not repair:
        if not as_json:
            output.say(f"hint: `influence verify {model} --repair` fetches these bytes anew")
        raise click.exceptions.Exit(_FAILED)


def _repaired(folder: Path, manifest: Manifest, hub: HubOptions, display: Display) -> list[Damage]:
    """What was damaged, and is no more."""
    from influence.hub.names import RepoId
    from influence.hub.source import HubSource
    from influence.hub.verification import repair

    with hub.or_at(manifest.endpoint).connect(on_wait=display.wait, on_notice=display.note) as client:
        source = HubSource(client, RepoId.parse(manifest.repo), manifest.sha)
        return repair(folder, source, on_event=display.event)


def _facts(folder: Path, manifest: Manifest, damages: Sequence[Damage], *, repaired: bool) -> dict[str, Any]:
    return {
        "repo": manifest.repo,
        "commit": manifest.sha,
        "folder": str(folder),
        "n_files": len(manifest.files),
        "total_bytes": _total(manifest),
        "sound": repaired or not damages,
        "repaired": repaired and bool(damages),
        "damaged": [
            {
                "path": damage.path,
                "problem": damage.problem,
                "bad_bytes": damage.bad_bytes,
                "ranges": [list(bounds) for bounds in damage.ranges],
            }
            for damage in damages
        ],
    }


def _total(manifest: Manifest) -> int:
    return sum(record.size_bytes for record in manifest.files)


def _as_text(manifest: Manifest, damages: Sequence[Damage], *, repaired: bool) -> str:
    lines = [line for damage in damages for line in _damage_lines(damage)]
    n_files, total = len(manifest.files), output.size(_total(manifest))
    n_bad = output.size(sum(damage.bad_bytes for damage in damages))
    if not damages:
        lines.append(f"{manifest.repo}: all {n_files} files, {total}, are as they were published")
    elif repaired:
        lines.append(
            f"{manifest.repo}: repaired, {n_bad} of {total} came anew; all {n_files} files are as published"
        )
    else:
        lines.append(f"{manifest.repo}: {len(damages)} of {n_files} files are damaged, {n_bad} of {total}")
    return "\n".join(lines) + "\n"


def _damage_lines(damage: Damage) -> list[str]:
    """The file and its problem, then the bytes that differ."""
    ranges = [f"  bytes {begin} to {end - 1}" for begin, end in damage.ranges[:_MAX_RANGES] if end > begin]
    n_more = len(damage.ranges) - _MAX_RANGES
    more = [f"  and {n_more} ranges more"] if n_more > 0 else []
    return [f"{output.one_line(damage.path)} {damage.problem}", *ranges, *more]
