"""One connection's work: it brings spans of files, try after try."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from influence.errors import DownloadFailed, HubError, HubUnreachable, LineBroken, LinkExpired, RangeRefused
from influence.hub.clock import Clock
from influence.hub.cursor import Cursor
from influence.hub.events import OnEvent, Retrying, Waiting
from influence.hub.pacing import backoff
from influence.hub.source import Source, Stream
from influence.hub.spans import Job, Span


class Connection:
    """Used by one thread; others read its counts.

    `check_running` raises when the download is over; `on_block` is told of each
    job that has a new block, and answers whether to go on.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock,
        tries: int,
        *,
        on_event: OnEvent,
        on_block: Callable[[Job], bool],
        check_running: Callable[[], None],
    ) -> None:
        self._source, self._clock, self._tries = source, clock, tries
        self._on_event, self._on_block, self._check_running = on_event, on_block, check_running
        self.n_bytes = 0  # received
        self.n_failed = 0
        self.n_limited = 0  # times that the host asked us to wait
        self._may_go_on = True

    def bring(self, span: Span) -> None:
        """All of a span, or as much as it may. Raises DownloadFailed after the last try, and what will not pass."""
        self._may_go_on = True
        with contextlib.closing(Cursor(span.job.part, span.position, span.job.hash)) as cursor:
            while span.n_left and self._may_go_on:
                try:
                    self._try(span, cursor)
                except (LineBroken, LinkExpired, RangeRefused, HubUnreachable) as failure:
                    self._failed(span.job, failure)

    def _try(self, span: Span, cursor: Cursor) -> None:
        with self._source.open(span.job.path, span.position, span.end) as stream:
            if stream.kind != "whole":
                self._receive(span, stream, cursor)
                return
            if span.position == 0:
                self._take_whole(span, stream)
        if span.n_left:
            with self._source.open(span.job.path, 0, None) as stream:
                self._take_whole(span, stream)

    def _receive(self, span: Span, stream: Stream, cursor: Cursor) -> None:
        job, asked_end, begin = span.job, span.end, span.position
        _check_size(job, stream)
        n_came = 0
        for chunk in stream.chunks(cursor.room):
            self._check_running()
            n_came += len(chunk)
            if begin + n_came > asked_end:
                raise RangeRefused(job.path, "more bytes came than were asked for")
            self._feed(job, cursor, memoryview(chunk)[: span.claim(len(chunk))])
            if not span.n_left or not self._may_go_on:  # also where another connection took over the rest
                break
        if not n_came:
            raise LineBroken(job.path, "the answer was empty")

    def _take_whole(self, span: Span, stream: Stream) -> None:
        """Where ranges are ignored: one thread at a time reads the file from its start, for all its spans."""
        part = span.job.part
        blocks = range(span.position // part.block_bytes, (span.end - 1) // part.block_bytes + 1)
        with part.whole_turn:
            if not all(part.has(block) for block in blocks):
                self._receive_whole(span.job, stream)
        span.claim(span.n_left)

    def _receive_whole(self, job: Job, stream: Stream) -> None:
        job.hash.read_all_back()
        part, cursor = job.part, Cursor(job.part, 0, job.hash)
        _check_size(job, stream)
        for chunk in stream.chunks(cursor.room):
            self._check_running()
            if cursor.position + len(chunk) > part.size_bytes:
                raise RangeRefused(job.path, f"more than its {part.size_bytes} bytes came")
            self._feed(job, cursor, memoryview(chunk))
        if cursor.position < part.size_bytes:
            raise LineBroken(job.path, f"ended after {cursor.position} of {part.size_bytes} bytes")

    def _feed(self, job: Job, cursor: Cursor, chunk: memoryview) -> None:
        self.n_bytes += len(chunk)
        if cursor.feed(chunk):
            job.n_failed = 0
            self._may_go_on = self._on_block(job)

    def _failed(self, job: Job, failure: HubError) -> None:
        """Wait for the next try of a file; DownloadFailed after the last, or the failure if it will last."""
        self.n_failed += 1
        with job.lock:
            job.n_failed += 1
            n_failed = job.n_failed
        if n_failed >= self._tries or (isinstance(failure, HubUnreachable) and failure.lasting):
            raise _final(job.path, failure, n_failed) from failure
        self._on_event(Retrying(job.path, n_failed, failure.message))
        if not isinstance(failure, LinkExpired):
            asked = failure.wait_s if isinstance(failure, LineBroken) else None
            self.n_limited += asked is not None
            self._pause(backoff(n_failed, self._clock) if asked is None else asked, failure.message)

    def _pause(self, seconds: float, reason: str) -> None:
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            self._check_running()
            self._on_event(Waiting(left, reason))
            self._clock.sleep(min(left, 1.0))


def _check_size(job: Job, stream: Stream) -> None:
    """The listing's size counts; an answer of another size is of another file."""
    if stream.total_bytes is not None and stream.total_bytes != job.part.size_bytes:
        problem = f"the answer is of a file of {stream.total_bytes} bytes, not {job.part.size_bytes}"
        raise RangeRefused(job.path, problem)


def _final(path: str, failure: HubError, n_failed: int) -> HubError:
    if isinstance(failure, HubUnreachable):
        return failure
    return DownloadFailed(path, f"{failure.message}; gave up after {n_failed} tries without progress")
