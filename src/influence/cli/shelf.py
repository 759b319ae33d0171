"""What is known of a model folder on this disk: facts that `list`, `show` and `plan` share.

The shelf is ./models/; a folder there may be a download, with a manifest of
where it came from, or the user's own.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from influence.errors import InfluenceError
from influence.models.config import Config
from influence.models.model import open_model
from influence.models.survey import survey

if TYPE_CHECKING:
    from influence.hub.store import Entry
    from influence.weights.safetensors import TensorInfo

_MAX_README_BYTES = 4 << 20
_MAX_LICENCE_SHOWN = 80  # characters
# The metadata that a model card on the Hub begins with, and the two keys that name the licence.
_FRONT_MATTER = re.compile(r"---\n(.*?)\n---(?:\n|\Z)", re.DOTALL)
_LICENCE = re.compile(r"^license:[ \t]*(?:\n[ \t]*-[ \t]*)?(\S.*)$", re.MULTILINE)
_LICENCE_NAME = re.compile(r"^license_name:[ \t]*(\S.*)$", re.MULTILINE)


def headers(folder: Path) -> tuple[Config, dict[str, TensorInfo]]:
    """config.json and what the weights' headers list, checked as for running the model; raises ModelError."""
    model = open_model(folder)
    with model.checkpoint:
        return Config.load(folder / "config.json"), dict(model.checkpoint.infos)


def size_on_disk(folder: Path) -> int:
    """Bytes of the files that lie in the folder itself, where all of a model's do."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def facts(folder: Path) -> dict[str, Any]:
    """What `list` says of a sound model; raises ModelError."""
    found = survey(*headers(folder))
    return {
        "architecture": found.model_type,
        "parameters": found.n_parameters,
        "dtype": found.dtype,
        "size_bytes": size_on_disk(folder),
        "context": found.spec.max_context,
    }


def name_of(entry: Entry) -> str:
    """What `-m` finds the model by: the repository of a download that was not moved, else the path."""
    is_in_place = entry.manifest is not None and entry.manifest.repo.replace("/", "_") == entry.path.name
    return entry.name if is_in_place else str(entry.path)


def origin(entry: Entry) -> dict[str, Any]:
    """The repository, commit and time of the last verification; each None if not known."""
    found = entry.manifest
    if found is None:
        return {"repo": None, "commit": None, "verified_at": None}
    return {"repo": found.repo, "commit": found.sha, "verified_at": _date(found.verified_at)}


def _date(seconds: float) -> str | None:
    """ISO 8601 in UTC; a manifest is a file, and its number may be no time at all."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def licence(folder: Path) -> str | None:
    """The licence that the model card names; None if there is no card, or it names none."""
    from influence.text.model_files import read_text

    try:
        text = read_text(folder / "README.md", _MAX_README_BYTES)
    except InfluenceError:
        return None
    card = _FRONT_MATTER.match(text or "")
    if card is None:
        return None
    named = _LICENCE.search(card[1])
    if named and _unquoted(named[1]) == "other":
        named = _LICENCE_NAME.search(card[1]) or named
    return _unquoted(named[1])[:_MAX_LICENCE_SHOWN] if named else None


def _unquoted(value: str) -> str:
    return value.partition(" #")[0].strip().strip("\"'")
