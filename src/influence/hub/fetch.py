"""Brings the missing spans of some parts over several connections, as many as help.

1. every file's missing bytes are cut into spans of at most 64 MiB, in one queue
2. a connection (a thread) takes a span, asks for its bytes, writes block by block
3. a try that fails goes on from the byte where it broke; only a file that fails
   `tries` times without a new block ends the download
4. who brings a file's last block checks the whole file; a wrong one comes anew, once
5. the caller's thread hands out events and decides how many connections may work
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass, field

from influence.errors import (
    DownloadFailed,
    HubError,
    HubUnreachable,
    IntegrityError,
    LineBroken,
    LinkExpired,
    RangeRefused,
)
from influence.hub.clock import Clock
from influence.hub.events import Event, FileDone, FileStarted, OnEvent, Progress, Restarted, Retrying, Waiting
from influence.hub.journal import Cursor, Part
from influence.hub.manifest import FileRecord
from influence.hub.pacing import backoff
from influence.hub.source import Source, Stream

_MIN_RATE = 1000  # bytes/s; less over _PACE_S, and another connection is tried
_PACE_S = 60.0
_TICK_S = 0.2
_LEAVE_S = 2.0  # how long an interrupted user waits for us at most


class Pace:
    """Notices a line that is alive but useless."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since, self._n_bytes = clock.monotonic(), 0

    def came(self, n_bytes: int, what: str) -> None:
        """LineBroken if less than 1 kB/s came in the last minute."""
        self._n_bytes += n_bytes
        elapsed = self._clock.monotonic() - self._since
        if elapsed < _PACE_S:
            return
        if self._n_bytes < _MIN_RATE * elapsed:
            raise LineBroken(what, f"only {self._n_bytes} bytes came in {elapsed:.0f} s")
        self._since, self._n_bytes = self._clock.monotonic(), 0


class Tuner:
    """How many connections help: doubled while the speed grows by a quarter, then left at the best number."""

    WINDOW_S = 1.0
    _GAIN = 1.25

    def __init__(self, most: int) -> None:
        self.n_connections = min(2, most)
        self._most = most
        self._best: tuple[float, int] = (0.0, 1)
        self._settled = most <= 1

    def observe(self, bytes_per_s: float) -> int:
        """The number for the next window, after the speed of the last one."""
        if self._settled:
            return self.n_connections
        if bytes_per_s > self._best[0] * self._GAIN:
            self._best = (bytes_per_s, self.n_connections)
            self._settled = self.n_connections == self._most
            self.n_connections = min(2 * self.n_connections, self._most)
        elif bytes_per_s:
            self._settled, self.n_connections = True, self._best[1]
        return self.n_connections


class _Stopped(Exception):
    """Another thread ended the download."""


@dataclass(slots=True)
class _Job:
    """One file's part, and how it fared."""

    part: Part
    spans_left: int = 0
    n_failed: int = 0  # since the last new block
    restarts: int = 0
    started: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Fetcher:
    """One download of some parts. `run` gives the verified files' records, by path."""

    def __init__(
        self,
        source: Source,
        parts: list[Part],
        *,
        clock: Clock,
        on_event: OnEvent,
        connections: int = 16,
        tries: int = 5,
        span_bytes: int = 64 << 20,
    ) -> None:
        self._source, self._clock, self._on_event = source, clock, on_event
        self._most, self._tries, self._span_bytes = max(connections, 1), tries, span_bytes
        self._jobs = [_Job(part) for part in parts]
        self._tuner = Tuner(self._most)
        self._events: queue.Queue[Event] = queue.Queue()
        self._changed = threading.Condition()
        self._spans: deque[tuple[_Job, int, int]] = deque()
        self._n_open = len(self._jobs)
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._records: dict[str, FileRecord] = {}
        self._shown = 0

    def run(self, base_bytes: int, total_bytes: int) -> dict[str, FileRecord]:
        """Bring everything. `base_bytes` of `total_bytes` are elsewhere, and only counted in Progress.

        Raises the first error that is final; every whole block is kept, then and
        when the caller is interrupted.
        """
        for job in self._jobs:
            self._enqueue(job)
        threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(self._most)
        ]
        for thread in threads:
            thread.start()
        try:
            self._watch(base_bytes, total_bytes)
        finally:
            self._end(None)
            for thread in threads:
                thread.join(_LEAVE_S / len(threads) if self._interrupted else None)
        self._hand_out()
        return self._records

    @property
    def _interrupted(self) -> bool:
        return self._failure is None and self._n_open > 0

    # -- the caller's thread ------------------------------------------------------------------------------

    def _watch(self, base_bytes: int, total_bytes: int) -> None:
        window_at, window_bytes = self._clock.monotonic(), self._done_bytes
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stop.is_set() or not self._n_open, _TICK_S)
                over = self._stop.is_set() or not self._n_open
            self._hand_out()
            self._show(base_bytes, total_bytes)
            if over:
                break
            now, done = self._clock.monotonic(), self._done_bytes
            if now - window_at >= Tuner.WINDOW_S:
                self._tuner.observe((done - window_bytes) / (now - window_at))
                window_at, window_bytes = now, done
                with self._changed:
                    self._changed.notify_all()
        if self._failure:
            raise self._failure

    @property
    def _done_bytes(self) -> int:
        return sum(job.part.done_bytes for job in self._jobs)

    def _hand_out(self) -> None:
        while not self._events.empty():
            self._on_event(self._events.get())

    def _show(self, base_bytes: int, total_bytes: int) -> None:
        """Progress; a file that comes anew is counted again where it passes what was shown."""
        self._shown = max(self._shown, base_bytes + self._done_bytes)
        under_way = tuple(
            (job.part.file.path, job.part.done_bytes, job.part.size_bytes)
            for job in self._jobs
            if job.started and job.part.file.path not in self._records
        )
        self._on_event(Progress(self._shown, total_bytes, self._tuner.n_connections, under_way))

    # -- a connection's thread ----------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        try:
            while (taken := self._take(number)) is not None:
                job, begin, end = taken
                self._bring(job, begin, end)
                self._span_done(job)
        except _Stopped:
            pass
        except BaseException as error:
            self._end(error)

    def _take(self, number: int) -> tuple[_Job, int, int] | None:
        with self._changed:
            while not self._stop.is_set() and self._n_open:
                if self._spans and number < self._tuner.n_connections:
                    return self._spans.popleft()
                self._changed.wait(_TICK_S)
        return None

    def _enqueue(self, job: _Job) -> None:
        spans = job.part.missing(self._span_bytes) or [(0, 0)]  # nothing missing: only to be checked
        job.spans_left = len(spans)
        with self._changed:
            self._spans.extend((job, begin, end) for begin, end in spans)
            self._changed.notify_all()

    def _bring(self, job: _Job, begin: int, end: int) -> None:
        """One span, try after try."""
        with job.lock:
            if not job.started:
                job.started = True
                self._events.put(FileStarted(job.part.file.path, job.part.size_bytes, job.part.done_bytes))
        cursor = Cursor(job.part, begin)
        while cursor.position < end:
            try:
                with self._source.open(job.part.file.path, cursor.position, end) as stream:
                    if stream.kind != "whole":
                        self._receive(job, stream, cursor, end)
                        continue
                    if cursor.position == 0:
                        self._take_whole(job, stream, 0, end)
                if cursor.position > 0:
                    with self._source.open(job.part.file.path, 0, None) as stream:
                        self._take_whole(job, stream, cursor.position, end)
                cursor = Cursor(job.part, end)
            except (LineBroken, LinkExpired, RangeRefused, HubUnreachable) as failure:
                self._failed(job, failure)

    def _receive(self, job: _Job, stream: Stream, cursor: Cursor, end: int) -> None:
        self._check_size(job, stream)
        pace, begin = Pace(self._clock), cursor.position
        for chunk in stream.chunks():
            self._check_running()
            if cursor.position + len(chunk) > end:
                raise RangeRefused(job.part.file.path, "more bytes came than were asked for")
            self._feed(job, cursor, chunk)
            pace.came(len(chunk), job.part.file.path)
        if cursor.position == begin:
            raise LineBroken(job.part.file.path, "the answer was empty")

    def _take_whole(self, job: _Job, stream: Stream, begin: int, end: int) -> None:
        """Where ranges are ignored: one thread at a time reads the file from its start, for all its spans."""
        blocks = range(begin // job.part.block_bytes, (end - 1) // job.part.block_bytes + 1)
        with job.part.whole_turn:
            if not all(job.part.has(block) for block in blocks):
                self._receive_whole(job, stream)

    def _receive_whole(self, job: _Job, stream: Stream) -> None:
        part, cursor, pace = job.part, Cursor(job.part, 0), Pace(self._clock)
        self._check_size(job, stream)
        for chunk in stream.chunks():
            self._check_running()
            if cursor.position + len(chunk) > part.size_bytes:
                raise RangeRefused(part.file.path, f"more than its {part.size_bytes} bytes came")
            self._feed(job, cursor, chunk)
            pace.came(len(chunk), part.file.path)
        if cursor.position < part.size_bytes:
            raise LineBroken(part.file.path, f"ended after {cursor.position} of {part.size_bytes} bytes")

    def _feed(self, job: _Job, cursor: Cursor, chunk: bytes) -> None:
        block = cursor.position // job.part.block_bytes
        cursor.feed(chunk)
        if cursor.position // job.part.block_bytes > block:
            job.n_failed = 0

    def _check_size(self, job: _Job, stream: Stream) -> None:
        """The listing's size counts; an answer of another size is of another file."""
        if stream.total_bytes is not None and stream.total_bytes != job.part.size_bytes:
            problem = f"the answer is of a file of {stream.total_bytes} bytes, not {job.part.size_bytes}"
            raise RangeRefused(job.part.file.path, problem)

    def _check_running(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _failed(self, job: _Job, failure: HubError) -> None:
        """Wait for the next try of a file; DownloadFailed after the last, or the failure if it will last."""
        path = job.part.file.path
        with job.lock:
            job.n_failed += 1
            n_failed = job.n_failed
        if n_failed >= self._tries or (isinstance(failure, HubUnreachable) and failure.lasting):
            raise _final(path, failure, n_failed) from failure
        self._events.put(Retrying(path, n_failed, failure.message))
        if not isinstance(failure, LinkExpired):
            asked = failure.wait_s if isinstance(failure, LineBroken) else None
            self._pause(backoff(n_failed, self._clock) if asked is None else asked, failure.message)

    def _pause(self, seconds: float, reason: str) -> None:
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            self._check_running()
            self._events.put(Waiting(left, reason))
            self._clock.sleep(min(left, 1.0))

    def _span_done(self, job: _Job) -> None:
        with job.lock:
            job.spans_left -= 1
            if job.spans_left:
                return
        measured = job.part.check()
        problem = measured.problem(job.part.file)
        if problem is None:
            self._file_done(job, job.part.finish(measured))
            return
        job.restarts += 1
        job.part.restart()
        if job.restarts > 1:
            raise IntegrityError(job.part.file.path, *problem)
        self._events.put(Restarted(job.part.file.path))
        self._enqueue(job)

    def _file_done(self, job: _Job, record: FileRecord) -> None:
        self._events.put(FileDone(record.path, record.size_bytes))
        with self._changed:
            self._records[record.path] = record
            self._n_open -= 1
            self._changed.notify_all()

    def _end(self, failure: BaseException | None) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = failure
            self._stop.set()
            self._changed.notify_all()


def _final(path: str, failure: HubError, n_failed: int) -> HubError:
    if isinstance(failure, HubUnreachable):
        return failure
    return DownloadFailed(path, f"{failure.message}; gave up after {n_failed} tries without progress")
