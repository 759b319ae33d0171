"""An answer whose body is still to come, and the checks that it must pass.

A file's facts come with the first hop, from the Hub; its bytes with the last,
often from storage that knows the file under another ETag and no commit. So
what each hop says of the file is collected on the way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from influence.dataclass import dataclass
from influence.errors import InvalidAnswer, LineBroken, RangeRefused
from influence.hub.clock import Clock
from influence.hub.line import own_errors
from influence.hub.names import is_commit
from influence.hub.refusals import looks_like_page, web_page_error
from influence.hub.token import Token, shown_url
from influence.hub.wire import PIECES, Room, one_room

if TYPE_CHECKING:
    import httpx2

Piece = bytes | memoryview

_DECODED = ("gzip", "x-gzip", "deflate")
_CONTENT_RANGE = re.compile(r"bytes +(?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")

# A line slower than this for so long is given up: another connection is seldom as bad.
_SLOWEST_BYTES_PER_S = 1000
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class FileFacts:
    """What the hubs on the way said of a file; None and "" where they did not."""

    commit: str = ""
    size_bytes: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None

    def after(self, headers: Mapping[str, str], status: int) -> FileFacts:
        """These facts and what one more hub's answer says, the first word counting."""
        etag = plain_etag(headers.get("x-linked-etag") or headers.get("etag", ""))
        commit = headers.get("x-repo-commit", "")
        return replace(
            self,
            commit=self.commit or (commit if is_commit(commit) else ""),
            size_bytes=self.size_bytes if self.size_bytes is not None else _stated_size(headers, status),
            sha256=self.sha256 or (etag if _SHA256.fullmatch(etag) else None),
            git_sha1=self.git_sha1 or (etag if is_commit(etag) else None),
        )


def _stated_size(headers: Mapping[str, str], status: int) -> int | None:
    """The file's size; never a redirect's own Content-Length, which counts the redirect's text."""
    linked = headers.get("x-linked-size", "")
    if linked.isdecimal():
        return int(linked)
    if status == 206:
        _, _, total = _content_range(headers)
        return total
    length = headers.get("content-length", "")
    plain = headers.get("content-encoding", "identity") == "identity"
    return int(length) if status == 200 and plain and length.isdecimal() else None


def plain_etag(etag: str) -> str:
    """The tag without quotes and without the mark of a weak one."""
    return etag.strip().removeprefix("W/").strip('"')


class Answer:
    """A body on its way, of an answer below status 400 or of 416; closed by who opened it."""

    def __init__(
        self, response: httpx2.Response, url: str, facts: FileFacts, clock: Clock, token: Token | None
    ) -> None:
        self._response = response
        self._clock = clock
        self._token = token
        self.url = url  # which answered, after all redirects
        self.facts = facts
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    @property
    def etag(self) -> str:
        """The entity tag as the last host gave it, "" for none: fit for If-Range if it is strong."""
        return self.headers.get("etag", "")

    def close(self) -> None:
        self._response.close()

    def read(self, max_bytes: int) -> bytes:
        """The whole body, decoded. Raises InvalidAnswer beyond `max_bytes`, LineBroken if it is cut."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) > max_bytes:
                raise InvalidAnswer(
                    shown_url(self.url), f"the answer is larger than the {max_bytes} bytes expected at most"
                )
        return bytes(body)

    def chunks(self, room: Room | None = None) -> Iterator[Piece]:
        """The body in pieces, decoded, each good until the next is asked for; LineBroken if it is cut, stalls, or comes too slowly.

        A piece lies in the `room` that is given for it where the line fills one.
        """
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        with own_errors(self.url, self._token):
            if encoding in ("identity", ""):
                yield from self._paced(self._plain(room or one_room()))
            elif encoding in _DECODED:
                yield from self._paced(self._response.iter_bytes())
            else:
                raise InvalidAnswer(
                    shown_url(self.url), f"came encoded as {encoding[:40]!r}, though it was asked for plain"
                )

    def _plain(self, room: Room) -> Iterator[Piece]:
        pieces: Callable[[Room], Iterator[Piece]] | None = self._response.extensions.get(PIECES)
        return pieces(room) if pieces else self._response.iter_raw()

    def _paced(self, chunks: Iterator[Piece]) -> Iterator[Piece]:
        """The chunks, as long as they come fast enough; the time that their reader takes does not count."""
        waited_s, n_bytes = 0.0, 0
        begun = self._clock.monotonic()
        for chunk in chunks:
            waited_s += self._clock.monotonic() - begun
            n_bytes += len(chunk)
            if waited_s >= _PATIENCE_S:
                if n_bytes < _SLOWEST_BYTES_PER_S * waited_s:
                    raise LineBroken(shown_url(self.url), f"only {n_bytes} bytes came in {waited_s:.0f} s")
                waited_s, n_bytes = 0.0, 0
            yield chunk
            begun = self._clock.monotonic()

    def refuse_page(self) -> None:
        """Raises MirrorRefused if this is a web page, where no file of that kind was asked for."""
        if urlsplit(self.url).path.endswith((".html", ".htm")):
            return
        if looks_like_page(self.headers.get("content-type", ""), ""):
            raise web_page_error(self.url, self.beginning())

    def beginning(self, max_bytes: int = 4096) -> str:
        """The body's first characters, "" if they do not come; the rest is given up."""
        text = b""
        try:
            for chunk in self.chunks():
                text += chunk[: max_bytes - len(text)]
                if len(text) >= max_bytes:
                    break
        except (LineBroken, InvalidAnswer):
            pass  # an excerpt of a failure: what came of it is enough
        return text.decode("utf-8", "replace")


class RangeAnswer:
    """The answer to a request for bytes `begin` to `end` of a file.

    `kind` is "part" (exactly those bytes come, or fewer of them from `begin`
    on), "whole" (the host ignores ranges: the file comes from its byte 0), or
    "nothing" (416: the file ends before `begin`).
    """

    def __init__(self, answer: Answer, begin: int, end: int | None) -> None:
        """Raises RangeRefused for other bytes than asked for, MirrorRefused for a web page."""
        self._answer = answer
        self.kind: Literal["part", "whole", "nothing"] = _KINDS.get(answer.status, "whole")
        if self.kind != "nothing":
            answer.refuse_page()
        self.begin = 0  # of the first byte that comes
        self.end: int | None = None  # of the last, plus one; None until it ends
        self.total_bytes = answer.facts.size_bytes  # of the file, None if nobody says
        if self.kind == "part":
            self.begin, self.end, total = _checked_range(answer, begin, end)
            self.total_bytes = self.total_bytes if total is None else total
        elif self.kind == "nothing":
            self.total_bytes = _content_range(answer.headers)[2]

    @property
    def final_url(self) -> str:
        """Where the bytes came from; good for more of them until a request answers LinkExpired."""
        return self._answer.url

    @property
    def etag(self) -> str:
        return self._answer.etag

    @property
    def facts(self) -> FileFacts:
        return self._answer.facts

    def chunks(self, room: Room | None = None) -> Iterator[Piece]:
        """The bytes, as an Answer's. Of a "part" exactly `end - begin`: LineBroken if fewer, RangeRefused if more."""
        if self.kind == "nothing":
            return
        n_left = None if self.end is None else self.end - self.begin
        for chunk in self._answer.chunks(room):
            if n_left is not None:
                n_left -= len(chunk)
                if n_left < 0:
                    raise RangeRefused(shown_url(self.final_url), "more bytes came than the answer announced")
            yield chunk
        if n_left:
            raise LineBroken(shown_url(self.final_url), f"the answer ended {n_left} bytes early")


_KINDS: Mapping[int, Literal["part", "whole", "nothing"]] = {206: "part", 416: "nothing"}


def _checked_range(answer: Answer, begin: int, end: int | None) -> tuple[int, int, int | None]:
    """The (begin, end, total) that a 206 announces; RangeRefused unless they answer the question."""
    refused: Callable[[str], RangeRefused] = partial(RangeRefused, shown_url(answer.url))
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise refused("a part came encoded: its bytes are not those of the file")
    first, stop, total = _content_range(answer.headers)
    if first is None or stop is None:
        raise refused("a part came without saying which (no Content-Range)")
    if first != begin or not begin < stop <= (stop if end is None else end) or stop > (total or stop):
        raise refused(f"asked for bytes {begin} to {end}, but {first} to {stop} of {total} came")
    return first, stop, total


def _content_range(headers: Mapping[str, str]) -> tuple[int | None, int | None, int | None]:
    """(begin, end, total) of Content-Range, the end not included; None where it does not say."""
    stated = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if not stated:
        return None, None, None
    total = None if stated[3] == "*" else int(stated[3])
    return (None, None, total) if stated[1] is None else (int(stated[1]), int(stated[2]) + 1, total)
