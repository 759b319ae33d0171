"""A file, or a range of it, with all the ways to answer wrongly."""

from __future__ import annotations

import gzip
import itertools
import re

from support.fake_hub.content import Content, content_of
from support.fake_hub.modes import WIRE, Modes
from support.fake_hub.wire import Reply, Request

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_FLIPS = itertools.count()


def file_reply(
    request: Request,
    path: str,
    content: Content,
    etag: str,
    modes: Modes,
    headers: list[tuple[str, str]],
) -> Reply:
    if modes.take("page", path):
        page = content_of(b"<!DOCTYPE html><title>hf-mirror</title>")
        return Reply(200, [("Content-Type", "text/html")], page)
    if modes.take("etagflip", path):
        etag = f"{next(_FLIPS):040x}"
    head = [
        ("Accept-Ranges", "bytes"),
        ("ETag", f'"{etag}"'),
        ("Content-Type", "binary/octet-stream"),
        *headers,
    ]
    asked = None if modes.take("range200", path) else _asked_range(request, content, etag)
    wire_modes = [mode for name in WIRE if (mode := modes.take(name, path))]
    if modes.take("416", path) or (asked and asked[0] >= asked[1]):
        return Reply(416, [*head, ("Content-Range", f"bytes */{content.size_bytes}")])
    if modes.take("gzip", path):
        packed = content_of(gzip.compress(content.read(0, content.size_bytes)))
        return Reply(200, [*head, ("Content-Encoding", "gzip")], packed, is_file=True)
    reply = Reply(200, head, content, is_file=True, wire_modes=wire_modes)
    if asked:
        _make_partial(reply, asked, path, modes)
    _misstate_length(reply, path, modes)
    return reply


def _asked_range(request: Request, content: Content, etag: str) -> tuple[int, int] | None:
    """(begin, end) of the one range asked for, None for all; an If-Range of another tag asks for all."""
    match = _RANGE.fullmatch(request.range)
    condition = request.headers.get("if-range")
    if not match or (condition and condition.strip('"') != etag):
        return None
    size = content.size_bytes
    if not match[1]:
        return max(size - int(match[2]), 0), size
    return int(match[1]), min(int(match[2]) + 1, size) if match[2] else size


def _make_partial(reply: Reply, asked: tuple[int, int], path: str, modes: Modes) -> None:
    begin, end = asked
    if mode := modes.take("wrongrange", path):
        shift = int(mode.options["by"])
        begin, end = begin + shift, min(end + shift, reply.content.size_bytes)
    reply.status, reply.begin, reply.end = 206, begin, end
    if not modes.take("norange", path):
        reply.headers.append(("Content-Range", f"bytes {begin}-{end - 1}/{reply.content.size_bytes}"))


def _misstate_length(reply: Reply, path: str, modes: Modes) -> None:
    if modes.take("nolength", path):
        reply.framing = "chunked"
    if mode := modes.take("shortlength", path):
        reply.length_lie = -mode.options["by"]
    if mode := modes.take("longlength", path):
        reply.length_lie = mode.options["by"]
