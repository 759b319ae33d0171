"""Brings what is missing of some parts over several connections, as many as help.

1. every file's missing bytes are cut into spans, in one queue (spans.py)
2. a connection (a thread) takes a span, asks for its bytes, writes block by block (connection.py)
3. a try that fails goes on from the byte where it broke; only a file that fails
   `tries` times without a new block ends the download
4. behind the connections two threads hash and one flushes; a file that is whole and
   wrong comes anew, once
5. the caller's thread hands out events and measures for the tuner, which says how
   many connections may work
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from functools import partial

from influence.dataclass import dataclass
from influence.errors import IntegrityError
from influence.hub.behind import Behind
from influence.hub.clock import Clock
from influence.hub.connection import Connection
from influence.hub.events import Event, FileDone, FileStarted, OnEvent, Progress, Restarted
from influence.hub.journal import Part
from influence.hub.manifest import FileRecord
from influence.hub.memory import BlockMemory
from influence.hub.source import Source
from influence.hub.spans import SMALLEST_SPLIT_BYTES, Job, Span, split_largest
from influence.hub.tuner import Moment, Tuner

_TICK_S = 0.05
_LEAVE_S = 2.0  # how long an interrupted user waits for us at most
_BUSY = 0.5  # of the processors: a hub on this machine, or one on a very fast line, needs the rest
_N_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_N_HASHING = 2  # one keeps up with any line; two, where whole files of an earlier run are only to be checked


class _Stopped(Exception):
    """Another thread ended the download."""


@dataclass(frozen=True)
class _Counts:
    """Of all connections since the start."""

    at_s: float
    busy_s: float  # of the processors
    n_bytes: tuple[int, ...]  # by connection
    n_failed: int
    n_limited: int

    def since(self, before: _Counts) -> Moment:
        came = [now - then for now, then in zip(self.n_bytes, before.n_bytes, strict=True)]
        elapsed_s = self.at_s - before.at_s
        return Moment(
            bytes_per_s=sum(came) / elapsed_s,
            n_flowing=sum(n_bytes > 0 for n_bytes in came),
            n_failed=self.n_failed - before.n_failed,
            was_limited=self.n_limited > before.n_limited,
            is_busy=self.busy_s - before.busy_s >= _BUSY * _N_PROCESSORS * elapsed_s,
        )


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
        self._clock, self._on_event, self._span_bytes = clock, on_event, span_bytes
        memory = BlockMemory()
        self._jobs = [Job(part, memory) for part in parts]
        self._tuner = Tuner(max(connections, 1))
        self._bytes_per_s = 0.0
        self._events: queue.Queue[Event] = queue.Queue()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._hashing = Behind(self._catch_up, self._end, _N_HASHING)
        self._flushing = Behind(self._flush, self._end, 1)
        self._connections = [
            Connection(
                source,
                clock,
                tries,
                on_event=self._events.put,
                on_block=partial(self._block_came, number),
                check_running=self._check_running,
            )
            for number in range(max(connections, 1))
        ]
        self._spans: deque[Span] = deque()
        self._under_way: set[Span] = set()
        self._n_open = len(self._jobs)
        self._failure: BaseException | None = None
        self._records: dict[str, FileRecord] = {}
        self._shown = 0

    def run(self, base_bytes: int, total_bytes: int) -> dict[str, FileRecord]:
        """Bring everything. `base_bytes` of `total_bytes` are elsewhere, and only counted in Progress.

        Raises the first error that is final; every whole block is kept, then and
        when the caller is interrupted.
        """
        for job in self._jobs:
            self._spans.extend(job.spans(self._span_bytes))
            self._hashing.wake(job)
        threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(len(self._connections))
        ]
        for thread in threads:
            thread.start()
        try:
            self._watch(base_bytes, total_bytes)
        finally:
            self._end(None)
            patience_s = _LEAVE_S / (len(threads) + _N_HASHING + 1) if self._is_interrupted else None
            for thread in threads:
                thread.join(patience_s)
            self._hashing.close(patience_s)
            self._flushing.close(patience_s)
        self._hand_out()
        return self._records

    @property
    def _is_interrupted(self) -> bool:
        return self._failure is None and self._n_open > 0

    # -- the caller's thread ------------------------------------------------------------------------------

    def _watch(self, base_bytes: int, total_bytes: int) -> None:
        last = self._counts()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stop.is_set() or not self._n_open, _TICK_S)
                is_over = self._stop.is_set() or not self._n_open
            self._hand_out()
            self._show(base_bytes, total_bytes)
            if is_over:
                break
            counts = self._counts()
            if counts.at_s - last.at_s >= self._tuner.moment_s:
                self._tune(counts.since(last))
                last = counts
        if self._failure:
            raise self._failure

    def _counts(self) -> _Counts:
        return _Counts(
            self._clock.monotonic(),
            self._clock.processor(),
            tuple(connection.n_bytes for connection in self._connections),
            sum(connection.n_failed for connection in self._connections),
            sum(connection.n_limited for connection in self._connections),
        )

    def _tune(self, moment: Moment) -> None:
        self._bytes_per_s = moment.bytes_per_s
        with self._changed:
            self._tuner.observe(moment)
            self._changed.notify_all()

    def _hand_out(self) -> None:
        while not self._events.empty():
            self._on_event(self._events.get())

    def _show(self, base_bytes: int, total_bytes: int) -> None:
        """Progress; a file that comes anew is counted again where it passes what was shown."""
        done = sum(job.part.done_bytes for job in self._jobs)
        self._shown = max(self._shown, base_bytes + done)
        under_way = tuple(
            (job.path, job.part.done_bytes, job.part.size_bytes)
            for job in self._jobs
            if job.is_started and job.path not in self._records
        )
        self._on_event(Progress(self._shown, total_bytes, self._tuner.n_connections, under_way))

    # -- a connection's thread ----------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        try:
            while (span := self._take(number)) is not None:
                self._start(span.job)
                self._connections[number].bring(span)
                self._put_back(span)
        except _Stopped:
            pass
        except BaseException as error:
            self._end(error)

    def _take(self, number: int) -> Span | None:
        with self._changed:
            while not self._stop.is_set() and self._n_open:
                may_work = number < self._tuner.n_connections
                span = self._next_span() if may_work else None
                if span:
                    self._under_way.add(span)
                    return span
                self._changed.wait(_TICK_S if may_work else None)  # the tuner's word wakes all
        return None

    def _put_back(self, span: Span) -> None:
        with self._changed:
            self._under_way.discard(span)
            if span.n_left:
                self._insert(span.rest())

    def _insert(self, rest: Span) -> None:
        """Before all else, but behind what lies before it in its file: the hash wants that first."""
        before = (
            index
            for index, span in enumerate(self._spans)
            if span.job is rest.job and span.position < rest.position
        )
        self._spans.insert(max(before, default=-1) + 1, rest)

    def _block_came(self, number: int, job: Job) -> bool:
        """Whether the connection of that number may go on: the tuner may have lowered theirs."""
        self._hashing.wake(job)
        if job.part.is_flush_due:
            self._flushing.wake(job)
        return number < self._tuner.n_connections

    def _next_span(self) -> Span | None:
        if self._spans:
            return self._spans.popleft()
        # What a connection brings in a second is not worth a new request.
        a_second = int(self._bytes_per_s / self._tuner.n_connections)
        return split_largest(self._under_way, max(SMALLEST_SPLIT_BYTES, a_second))

    def _start(self, job: Job) -> None:
        with job.lock:
            if not job.is_started:
                job.is_started = True
                self._events.put(FileStarted(job.path, job.part.size_bytes, job.part.done_bytes))

    def _check_running(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _end(self, failure: BaseException | None) -> None:
        with self._changed:
            if self._failure is None and not isinstance(failure, _Stopped):
                self._failure = failure
            self._stop.set()
            self._changed.notify_all()

    # -- behind the connections ---------------------------------------------------------------------------

    def _catch_up(self, job: Job) -> None:
        """Hash what is there of a file; end it when all is."""
        if job.is_done:
            return
        changed = job.hash.advance(self._check_running)
        if changed is not None:
            job.part.drop(changed)
            self._ask_for([Span(job, *job.part.place(changed))])
        elif job.hash.is_whole:
            self._finish(job)

    def _flush(self, job: Job) -> None:
        if not job.is_done:
            job.part.flush()

    def _finish(self, job: Job) -> None:
        self._start(job)
        measured = job.hash.measured()
        problem = measured.problem(job.part.file)
        if problem is None:
            job.is_done = True
            self._file_done(job.part.finish(measured))
            return
        job.n_restarts += 1
        job.part.restart()
        job.hash.restart()
        if job.n_restarts > 1:
            raise IntegrityError(job.path, *problem)
        self._events.put(Restarted(job.path))
        self._ask_for(job.spans(self._span_bytes))

    def _ask_for(self, spans: list[Span]) -> None:
        """What a hash waits for comes before all else."""
        with self._changed:
            self._spans.extendleft(reversed(spans))
            self._changed.notify_all()

    def _file_done(self, record: FileRecord) -> None:
        self._events.put(FileDone(record.path, record.size_bytes))
        with self._changed:
            self._records[record.path] = record
            self._n_open -= 1
            self._changed.notify_all()
