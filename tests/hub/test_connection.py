"""A connection brings its span, or as much of it as it may, and what is left is brought by the next."""

from __future__ import annotations

from pathlib import Path

from influence.hub.connection import Connection
from influence.hub.events import ignore
from influence.hub.journal import Part
from influence.hub.memory import BlockMemory
from influence.hub.safe_folder import SafeFolder
from influence.hub.spans import Job, Span
from support.downloads import BLOCK, CONTENT, ORIGIN, one_file
from support.memory_source import FreeClock, MemorySource, remote


def keep_running() -> None:
    pass


def connection(source: MemorySource, *, may_go_on: bool) -> Connection:
    return Connection(
        source,
        FreeClock(),
        5,
        on_event=ignore,
        on_block=lambda job: may_go_on,
        check_running=keep_running,
    )


def open_part(folder: SafeFolder) -> Part:
    return Part(folder, remote("model.safetensors", CONTENT), len(CONTENT), ORIGIN.sha, BLOCK)


def test_a_connection_that_is_one_too_many_leaves_after_its_block(tmp_path: Path) -> None:
    with SafeFolder(tmp_path) as folder:
        part, source = open_part(folder), one_file()
        span = Span(Job(part, BlockMemory()), 0, len(CONTENT))
        connection(source, may_go_on=False).bring(span)
        n_connections = 1
        while span.n_left:
            span, n_connections = span.rest(), n_connections + 1
            connection(source, may_go_on=False).bring(span)
        part.close()
        assert (tmp_path / part.part_name).read_bytes() == CONTENT
    assert n_connections == part.n_blocks - 1  # the short last block comes in one piece with the one before
    assert source.bytes_served < len(CONTENT) + n_connections * source.chunk_bytes


def test_a_connection_stops_where_another_took_over(tmp_path: Path) -> None:
    with SafeFolder(tmp_path) as folder:
        part, source = open_part(folder), one_file()
        span = Span(Job(part, BlockMemory()), 0, len(CONTENT))
        rest = span.split()
        assert rest is not None
        for half in (span, rest):
            connection(source, may_go_on=True).bring(half)
        part.close()
        assert (tmp_path / part.part_name).read_bytes() == CONTENT
    assert [request[1:] for request in source.requests] == [(0, span.end), (span.end, len(CONTENT))]


def test_what_is_received_is_counted_for_the_tuner(tmp_path: Path) -> None:
    with SafeFolder(tmp_path) as folder:
        part = open_part(folder)
        line = connection(one_file(), may_go_on=True)
        line.bring(Span(Job(part, BlockMemory()), 0, len(CONTENT)))
        part.close()
    assert (line.n_bytes, line.n_failed, line.n_limited) == (len(CONTENT), 0, 0)
