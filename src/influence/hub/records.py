"""The Hub's JSON as records: checked, cleaned, and nothing else of it kept.

GET /api/models?...                     list of models     -> ModelSummary
GET /api/models/ORG/NAME/revision/REV   one model          -> Revision
GET /api/models/ORG/NAME/tree/SHA       list of entries    -> RemoteFile

{"type": "file", "path": "model.safetensors", "size": 440449768,
 "oid": "<git-sha1 of the blob, or of the pointer to it>",
 "lfs": {"oid": "<sha256 of the content>", "size": 440449768, "pointerSize": 134}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from influence.dataclass import dataclass
from influence.errors import InvalidAnswer, InvalidParameter
from influence.hub.cleaning import clean_text
from influence.hub.names import RepoId, is_commit
from influence.hub.token import shown_url

_MAX_COUNT = 1 << 53  # JSON's exact integers
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelSummary:
    """What a search tells of a model; every text is fit for a line of a terminal."""

    id: RepoId
    downloads: int = 0
    likes: int = 0
    pipeline_tag: str = ""
    library: str = ""
    tags: tuple[str, ...] = ()
    gated: str = ""  # "", "auto" (a click) or "manual" (somebody decides)
    private: bool = False
    last_modified: str = ""  # ISO 8601
    n_parameters_by_dtype: Mapping[str, int] = field(default_factory=dict)  # of its safetensors
    # Of its config.json:
    model_type: str = ""
    architectures: tuple[str, ...] = ()
    quantisation: str = ""  # the method, "" for none

    @property
    def author(self) -> str:
        return self.id.org

    @property
    def n_parameters(self) -> int | None:
        """None where the Hub does not say: no safetensors, or not counted yet."""
        return sum(self.n_parameters_by_dtype.values()) or None


@dataclass(frozen=True)
class Revision:
    """A model at one commit: all that follows asks for this `sha`, however branches move."""

    repo: RepoId  # as the Hub names it now; a renamed model answers under its old name too
    sha: str  # 40 hexadecimal digits
    gated: str = ""
    private: bool = False
    last_modified: str = ""
    licence: str = ""
    siblings: tuple[str, ...] = ()  # paths of its files, unchecked


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it; None where it does not say. `path` is unchecked (names.py checks)."""

    path: str
    size_bytes: int | None = None
    sha256: str | None = None  # of the content, for large files (LFS)
    git_sha1: str | None = None  # of "blob <size>\0" and the content, for all others

    @property
    def published_hash(self) -> str:
        """What the content is held to; "" where nobody tells."""
        return self.sha256 or self.git_sha1 or ""


def summary_of(entry: Any) -> ModelSummary | None:
    """A search's entry; None for one without a name that could be asked for."""
    record = _record(entry)
    try:
        repo = RepoId.parse(_text(record.get("id") or record.get("modelId")))
    except InvalidParameter:
        return None
    return ModelSummary(
        id=repo,
        downloads=_count(record.get("downloads")) or 0,
        likes=_count(record.get("likes")) or 0,
        pipeline_tag=_text(record.get("pipeline_tag")),
        library=_text(record.get("library_name")),
        tags=tuple(_text(tag) for tag in _list(record.get("tags"))),
        gated=_gated(record.get("gated")),
        private=record.get("private") is True,
        last_modified=_text(record.get("lastModified")),
        n_parameters_by_dtype=_counts(_record(record.get("safetensors")).get("parameters")),
        **_config_facts(_record(record.get("config"))),
    )


def _config_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a summary that come from the excerpt of config.json which the Hub gives."""
    quantisation = _record(config.get("quantization_config"))
    method = _text(quantisation.get("quant_method")) or ("of an unknown method" if quantisation else "")
    architectures = tuple(_text(name) for name in _list(config.get("architectures")))
    return {
        "model_type": _text(config.get("model_type")),
        "architectures": architectures,
        "quantisation": method,
    }


def revision_of(answer: Any, asked: RepoId, url: str) -> Revision:
    """The revision in an answer about `asked`; InvalidAnswer without a commit in it."""
    record = _record(answer)
    sha = record.get("sha")
    if not isinstance(sha, str) or not is_commit(sha):
        raise InvalidAnswer(shown_url(url), "names no commit of the model")
    return Revision(
        repo=_renamed(record.get("id"), asked),
        sha=sha,
        gated=_gated(record.get("gated")),
        private=record.get("private") is True,
        last_modified=_text(record.get("lastModified")),
        licence=_licence(record),
        siblings=tuple(
            name
            for sibling in _list(record.get("siblings"))
            if isinstance(name := _record(sibling).get("rfilename"), str)
        ),
    )


def file_of(entry: Any, url: str) -> RemoteFile | None:
    """A tree's entry, None for a folder; InvalidAnswer for one that can't be what the Hub means."""
    record = _record(entry)
    if record.get("type") == "directory":
        return None
    path, size = record.get("path"), _count(record.get("size"))
    if record.get("type") != "file" or not isinstance(path, str) or size is None:
        raise InvalidAnswer(shown_url(url), f"lists {clean_text(str(entry), 80)!r}, which is no file")
    if record.get("lfs") is None:
        oid = record.get("oid")
        if not isinstance(oid, str) or not is_commit(oid):
            raise InvalidAnswer(shown_url(url), f"gives no hash of {path!r}")
        return RemoteFile(path, size, git_sha1=oid)
    return _large_file(path, _record(record["lfs"]), url)


def _large_file(path: str, lfs: Mapping[str, Any], url: str) -> RemoteFile:
    """The size and hash of the content: the entry's own `oid` is that of the pointer."""
    size, sha256 = _count(lfs.get("size")), lfs.get("oid")
    if size is None or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise InvalidAnswer(shown_url(url), f"gives no size and hash of {path!r}")
    return RemoteFile(path, size, sha256=sha256)


def _record(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return clean_text(value) if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT
    return value if is_count else None


def _counts(value: Any) -> dict[str, int]:
    counts = {_text(name): _count(count) for name, count in _record(value).items()}
    return {name: count for name, count in counts.items() if name and count}


def _gated(value: Any) -> str:
    if value is True:
        return "manual"
    return value if value in ("auto", "manual") else ""


def _renamed(value: Any, asked: RepoId) -> RepoId:
    try:
        return RepoId.parse(value) if isinstance(value, str) else asked
    except InvalidParameter:
        return asked


def _licence(record: Mapping[str, Any]) -> str:
    """From the model's card, or the tag "license:NAME" that the Hub makes of it."""
    stated = _record(record.get("cardData")).get("license")
    tags = [_text(tag) for tag in _list(record.get("tags"))]
    tagged = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    return _text(stated) or next(iter(tagged), "")
