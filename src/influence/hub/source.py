"""Where a download's bytes come from: one commit of one repository, by ranges."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol

from influence.errors import LinkExpired
from influence.hub.refusals import Subject
from influence.hub.wire import Room

if TYPE_CHECKING:  # the shelf knows sources, and opens without a client
    from influence.hub.client import Hub
    from influence.hub.names import RepoId


class Stream(Protocol):
    """An answer: see RangeAnswer (answers.py)."""

    kind: Literal["part", "whole", "nothing"]
    total_bytes: int | None

    def chunks(self, room: Room | None = None) -> Iterator[bytes | memoryview]: ...


class Source(Protocol):
    """Gives bytes `begin` to `end` (not included, None: to the end) of a file; usable from several threads."""

    def open(self, path: str, begin: int, end: int | None) -> AbstractContextManager[Stream]: ...


class HubSource:
    """Files of a commit on a Hub. A signed address is used again until it expires."""

    def __init__(self, hub: Hub, repo: RepoId, sha: str) -> None:
        self._hub, self._repo, self._sha = hub, repo, sha
        self._signed: dict[str, str] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def open(self, path: str, begin: int, end: int | None) -> Iterator[Stream]:
        """Raises what Http.open_range does; LinkExpired never twice in a row for one reason."""
        about = Subject(str(self._repo), self._sha, path)
        own = self._hub.file_url(self._repo, self._sha, path)
        with self._lock:
            url = self._signed.get(path, own)
        try:
            with self._hub.http.open_range(url, begin, end, about=about, tries=1) as answer:
                with self._lock:
                    self._signed[path] = answer.final_url
                yield answer
        except LinkExpired:
            with self._lock:
                self._signed.pop(path, None)
            raise
