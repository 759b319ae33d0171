"""What a download will be, or was: as facts, and in words."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from influence.cli.output import columns, duration, one_line, size
from influence.hub.endpoint import OFFICIAL, Endpoint
from influence.hub.offer import Offer
from influence.hub.records import RemoteFile
from influence.hub.store import bytes_here

_SHOWN_SHA = 12  # characters: as git shows a commit


def dry_run(offer: Offer, endpoint: Endpoint, folder: Path) -> dict[str, Any]:
    """What would come, what not and why, and whether there is room for it."""
    files = offer.selection.chosen
    here = bytes_here(folder, files)
    total = offer.selection.size_bytes
    return {
        **_identity(offer, endpoint, folder),
        "files": [_file_facts(file) for file in files],
        "left_out": [
            {"path": file.path, "size_bytes": file.size_bytes, "reason": reason}
            for file, reason in offer.selection.left_out
        ],
        "total_bytes": total,
        "here_bytes": here,
        "missing_bytes": None if total is None else total - here,
        "free_bytes": _free_bytes(folder),
    }


def finished(
    offer: Offer, endpoint: Endpoint, folder: Path, kept_bytes: int, seconds: float
) -> dict[str, Any]:
    """What has come, and by whose word it is right."""
    files = offer.selection.chosen
    total = sum((folder / file.path).stat().st_size for file in files)
    return {
        **_identity(offer, endpoint, folder),
        "n_files": len(files),
        "total_bytes": total,
        "fetched_bytes": total - kept_bytes,
        "seconds": round(seconds, 3),
        "verified": {
            "sha256": sum(file.sha256 is not None for file in files),
            "git_sha1": sum(file.sha256 is None and file.git_sha1 is not None for file in files),
            "unhashed": list(offer.unhashed),
        },
    }


def _identity(offer: Offer, endpoint: Endpoint, folder: Path) -> dict[str, Any]:
    return {
        "repo": str(offer.revision.repo),
        "commit": offer.revision.sha,
        "mirror": str(endpoint),
        "verified_with": offer.witness or None,
        "folder": str(folder),
    }


def _file_facts(file: RemoteFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "git_sha1": file.git_sha1,
    }


def _free_bytes(folder: Path) -> int:
    """On the disk where the folder is, or would be."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def dry_run_text(facts: Mapping[str, Any]) -> str:
    """The same as a page."""
    coming = [(f"  {one_line(file['path'])}", _size(file), _hash_kind(file)) for file in facts["files"]]
    left_out = [
        (f"  {one_line(file['path'])}", _size(file), one_line(file["reason"])) for file in facts["left_out"]
    ]
    total = "an unknown number of bytes" if facts["total_bytes"] is None else size(facts["total_bytes"])
    here = f", {size(facts['here_bytes'])} of them here" if facts["here_bytes"] else ""
    parts = [
        f"{_title(facts)} would come to {facts['folder']}\n{columns(coming)}",
        f"left out\n{columns(left_out)}" if left_out else "",
        f"{len(coming)} files, {total}{here}; {size(facts['free_bytes'])} are free on the disk\n{_hosts(facts)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(facts: Mapping[str, Any]) -> str:
    return f"{facts['repo']} at {facts['commit'][:_SHOWN_SHA]}"


def _size(file: Mapping[str, Any]) -> str:
    return "size unknown" if file["size_bytes"] is None else size(file["size_bytes"])


def _hash_kind(file: Mapping[str, Any]) -> str:
    if file["sha256"]:
        return "sha256"
    return "git-sha1" if file["git_sha1"] else "no hash"


def finished_text(facts: Mapping[str, Any]) -> str:
    """The same in a few sentences, a line each."""
    n_files, total = facts["n_files"], size(facts["total_bytes"])
    lines = [f"{_title(facts)}: {n_files} file{'s' if n_files > 1 else ''}, {total}; {_effort(facts)}"]
    kinds = (("sha256", "sha256"), ("git_sha1", "git-sha1"))
    verified = [f"{facts['verified'][key]} by {name}" for key, name in kinds if facts["verified"][key]]
    if verified:
        lines += [f"verified: {', '.join(verified)}", _hosts(facts)]
    if facts["verified"]["unhashed"]:
        lines.append(f"not verified, as nobody tells a hash: {_names(facts['verified']['unhashed'])}")
    return "\n".join(lines)


def _effort(facts: Mapping[str, Any]) -> str:
    fetched, seconds = facts["fetched_bytes"], facts["seconds"]
    if not fetched:
        return "all of it was here already"
    speed = f"{size(round(fetched / max(seconds, 0.001)))}/s"
    came = "it" if fetched == facts["total_bytes"] else size(fetched)
    return f"{came} came in {duration(seconds)} ({speed})"


def _hosts(facts: Mapping[str, Any]) -> str:
    """By whose word a hash is right: a mirror's list proves only that what came is what it lists."""
    host = facts["mirror"].partition("://")[2]
    if facts["verified_with"]:
        return f"{host} and {facts['verified_with']} list the same sizes and hashes"
    if facts["mirror"] == OFFICIAL:
        return f"the hashes are those of {host}"
    return f"the hashes are {host}'s own word; --verify-with {OFFICIAL} compares them"


def _names(paths: Sequence[str]) -> str:
    return ", ".join(map(one_line, paths))
