"""The files of a model on a hub: which a download fetches, and which not and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from influence.cli import output
from influence.hub.cleaning import clean_text

if TYPE_CHECKING:
    from influence.cli.remote_model import RemoteModel

_MAX_FILES_SHOWN = 24
_MAX_NAME_CHARACTERS = 1024
_MAX_NAMES_SHOWN = 3  # of files that are left out for one reason


def facts(model: RemoteModel) -> dict[str, Any]:
    """Where the model is, at which commit, and its files; sizes are None where nobody tells them."""
    revision, selection = model.offer.revision, model.offer.selection
    return {
        "hub": model.hub.endpoint.url,
        "revision": model.revision,
        "commit": revision.sha,
        "licence": revision.licence or None,
        "gated": revision.gated or None,
        "files": [{"path": file.path, "size_bytes": file.size_bytes} for file in selection.chosen],
        "left_out": [
            {"path": file.path, "size_bytes": file.size_bytes, "reason": reason}
            for file, reason in selection.left_out
        ],
    }


def as_text(told: dict[str, Any]) -> str:
    """Lines for people: every chosen file, and what is left out by its reason."""
    licence = f", licence {output.one_line(told['licence'])}" if told["licence"] else ""
    gated = ", gated" if told["gated"] else ""
    head = f"{told['revision']} is {told['commit']} on {told['hub']}{licence}{gated}"
    blocks = [head, f"to download:\n{_chosen(told['files'])}"]
    if told["left_out"]:
        blocks.append(f"left out:\n{_left_out(told['left_out'])}")
    return "\n\n".join(blocks) + "\n"


def _chosen(files: list[dict[str, Any]]) -> str:
    shown = files if len(files) <= _MAX_FILES_SHOWN else files[: _MAX_FILES_SHOWN - 1]
    rows = [(_size(file["size_bytes"]), _name(file)) for file in shown]
    rest = files[len(shown) :]
    if rest:
        rows.append((_total(rest), f"in {len(rest)} more (--json lists all)"))
    return _rows(rows)


def _left_out(files: list[dict[str, Any]]) -> str:
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        by_reason.setdefault(file["reason"], []).append(file)
    return _rows([(_total(group), f"{reason}: {_names(group)}") for reason, group in by_reason.items()])


def _rows(rows: list[tuple[str, str]]) -> str:
    """Sizes to the right, so that the large ones show."""
    width = max(len(size) for size, _ in rows)
    return "\n".join(f"  {size.rjust(width)}  {text}" for size, text in rows)


def _names(files: list[dict[str, Any]]) -> str:
    named = ", ".join(_name(file) for file in files[:_MAX_NAMES_SHOWN])
    more = len(files) - _MAX_NAMES_SHOWN
    return f"{named} and {more} more" if more > 0 else named


def _name(file: dict[str, Any]) -> str:
    """Fit for a line: what is left out may have any name."""
    return clean_text(file["path"], _MAX_NAME_CHARACTERS) or "?"


def _total(files: list[dict[str, Any]]) -> str:
    return _size(sum(file["size_bytes"] or 0 for file in files))


def _size(n_bytes: int | None) -> str:
    return "?" if n_bytes is None else output.size(n_bytes)
