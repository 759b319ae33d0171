"""A Hub to ask: search, resolve a revision, list its files, read a little of one."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from influence.errors import (
    EntryNotFound,
    InvalidAnswer,
    InvalidParameter,
    MirrorRefused,
)
from influence.hub.answers import FileFacts
from influence.hub.endpoint import OFFICIAL, Endpoint
from influence.hub.http import Http, Json, next_page
from influence.hub.names import RepoId, check_revision
from influence.hub.records import ModelSummary, RemoteFile, Revision, file_of, revision_of, summary_of
from influence.hub.refusals import Subject
from influence.hub.token import Token
from influence.hub.weights_index import MAX_INDEX_BYTES, shards_of

if TYPE_CHECKING:
    from types import TracebackType

MAX_RESULTS = 10_000
SORTS = {
    "trending": "trendingScore",
    "downloads": "downloads",
    "likes": "likes",
    "created": "createdAt",
    "modified": "lastModified",
}

# Asked for where the tree can't be listed: what SPEC.md says a model folder holds.
FIXED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "model.safetensors",
)
_INDEX = "model.safetensors.index.json"

_PAGE_ENTRIES = 500
_MAX_PAGES = 200
_MAX_FILES = 50_000
_MAX_QUERY_CHARACTERS = 256
_NOT_TEXT = ("Cc", "Cs")
_EXPANDED = (
    "downloads",
    "likes",
    "pipeline_tag",
    "library_name",
    "tags",
    "gated",
    "private",
    "lastModified",
    "safetensors",
    "config",
)


class Hub:
    """The Hub at one endpoint; usable from several threads. Every URL it makes is on that endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        token: Token | None = None,
        allowed_hubs: Collection[str] = (OFFICIAL,),
        **http_options: Any,
    ) -> None:
        """`http_options` are those of Http: tries, n_connections, on_wait, on_notice, clock, ..."""
        self.endpoint = endpoint
        self.http = Http(endpoint, token=token, allowed_hubs=allowed_hubs, **http_options)

    def close(self) -> None:
        self.http.close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def search(
        self,
        query: str,
        *,
        limit: int = 20,
        author: str = "",
        sort: str = "trending",
        task: str = "",
    ) -> Iterator[ModelSummary]:
        """Models that match, best first, at most `limit`, each once.

        Pages are asked for as they are read. InvalidParameter for a value out
        of its range, before anything is asked.
        """
        path = _search_path(query, limit, author, sort, task)
        return self._search(path, limit)

    def _search(self, path: str, limit: int) -> Iterator[ModelSummary]:
        seen: set[RepoId] = set()
        for page in self._pages(path, Subject()):
            for entry in page.value:
                summary = summary_of(entry)
                if summary is None or summary.id in seen:
                    continue
                seen.add(summary.id)
                yield summary
                if len(seen) == limit:
                    return

    def resolve(self, repo: RepoId, revision: str = "main") -> Revision:
        """The commit that a branch, tag or commit is now."""
        about = Subject(str(repo), check_revision(revision))
        path = f"/api/models/{repo}/revision/{quote(revision, safe='')}"
        answer = self.http.request_json(path, about=about)
        return revision_of(answer.value, repo, answer.url)

    def tree(self, repo: RepoId, sha: str) -> tuple[RemoteFile, ...]:
        """All files of a commit, sizes and hashes too.

        Where the host has no such list, the fixed files of a model folder that
        it has, with what it says of each; `on_notice` is told.
        """
        about = Subject(str(repo), sha, is_listing=True)
        try:
            return self._listed(f"/api/models/{repo}/tree/{sha}?recursive=true&expand=false", about)
        except MirrorRefused as error:
            files = self._fixed_files(repo, sha)
            if not files:
                raise
            self.http.notice(f"{error.message}; only the usual files of a model were looked for")
            return files

    def _listed(self, path: str, about: Subject) -> tuple[RemoteFile, ...]:
        files: dict[str, RemoteFile] = {}
        for page in self._pages(path, about):
            for entry in page.value:
                file = file_of(entry, page.url)
                if file:
                    files[file.path] = file
            if len(files) > _MAX_FILES:
                raise InvalidAnswer(page.url, f"lists more than {_MAX_FILES} files")
        return tuple(files.values())

    def _pages(self, path: str, about: Subject) -> Iterator[Json]:
        """The list at `path`, page by page; InvalidAnswer for one that is no list, or never ends."""
        asked: set[str] = set()
        while path and path not in asked:
            asked.add(path)
            page = self.http.request_json(path, about=about)
            if not isinstance(page.value, list):
                raise InvalidAnswer(page.url, "is not the list that it should be")
            yield page
            if len(asked) >= _MAX_PAGES:
                raise InvalidAnswer(page.url, f"goes on after {_MAX_PAGES} pages")
            path = next_page(page)

    def _fixed_files(self, repo: RepoId, sha: str) -> tuple[RemoteFile, ...]:
        paths = list(
            FIXED_FILES
        )  # grows by the shards when the index, which comes before the weights, is met
        found: dict[str, RemoteFile] = {}
        for path in paths:
            try:
                facts = self.file_facts(repo, sha, path)
            except EntryNotFound:
                continue
            found[path] = RemoteFile(path, facts.size_bytes, facts.sha256, facts.git_sha1)
            if path == _INDEX:
                paths += self._shards(repo, sha)
        return tuple(found.values())

    def _shards(self, repo: RepoId, sha: str) -> list[str]:
        """The files that the index of the weights names."""
        try:
            return shards_of(self.read_file(repo, sha, _INDEX, MAX_INDEX_BYTES))
        except ValueError as error:
            raise InvalidAnswer(self.file_url(repo, sha, _INDEX), "names no shards") from error

    def file_url(self, repo: RepoId, sha: str, path: str) -> str:
        """Where the file's bytes are asked for."""
        return f"{self.endpoint}/{repo}/resolve/{quote(sha, safe='')}/{quote(path)}"

    def file_facts(self, repo: RepoId, sha: str, path: str) -> FileFacts:
        """Size, hash and commit of one file as its headers tell, at the cost of its first byte."""
        about = Subject(str(repo), sha, path)
        with self.http.open_range(self.file_url(repo, sha, path), 0, 1, about=about) as answer:
            return answer.facts

    def read_file(self, repo: RepoId, sha: str, path: str, max_bytes: int) -> bytes:
        """A whole small file; InvalidAnswer if it is larger than `max_bytes`."""
        about = Subject(str(repo), sha, path)
        return self.http.read(self.file_url(repo, sha, path), max_bytes, about=about)

    def read_range(self, repo: RepoId, sha: str, path: str, begin: int, end: int) -> bytes:
        """Exactly the bytes `begin` to `end` (not included) of a file; RangeRefused if it has fewer."""
        about = Subject(str(repo), sha, path)
        return self.http.read_range(self.file_url(repo, sha, path), begin, end, about=about)


def _search_path(query: str, limit: int, author: str, sort: str, task: str) -> str:
    if not 1 <= limit <= MAX_RESULTS:
        raise InvalidParameter("limit", limit, f"from 1 to {MAX_RESULTS}")
    if sort not in SORTS:
        raise InvalidParameter("sort", sort, f"one of {', '.join(SORTS)}")
    words = {"query": query, "author": author, "task": task}
    for name, text in words.items():
        if len(text) > _MAX_QUERY_CHARACTERS or any(unicodedata.category(c) in _NOT_TEXT for c in text):
            raise InvalidParameter(
                name, text[:80], f"at most {_MAX_QUERY_CHARACTERS} characters without control ones"
            )
    asked = {"search": query, "author": author, "pipeline_tag": task, "sort": SORTS[sort]}
    parameters = [(name, value) for name, value in asked.items() if value]
    parameters += [("limit", str(min(limit, _PAGE_ENTRIES))), *(("expand", name) for name in _EXPANDED)]
    return f"/api/models?{urlencode(parameters)}"
