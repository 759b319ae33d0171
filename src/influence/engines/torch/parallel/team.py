"""All ranks of a model, as rank 0 holds them together.

A thread hears every rank. Whichever fails, is killed or does not answer in
time: all are ended, this rank's collectives too, and whatever rank 0 waits for
raises one RankFailed that says which and why. So nobody waits for the dead.
"""

from __future__ import annotations

import math
import pickle
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from influence.engines.torch.parallel.commands import Failed, RankDevice, Start
from influence.engines.torch.parallel.group import ALONE, Group, PeerLost, RankGroup
from influence.engines.torch.parallel.process import RankProcess
from influence.engines.torch.placement import Placement
from influence.errors import InfluenceError, RankFailed

_START_LIMIT_S = 300.0  # torch and the driver, on a machine that has other things to do
_STEP_LIMIT_S = 300.0  # a step takes seconds at most, the first one of a kind compiles its kernels
_LOOK_S = 1.0  # between two looks at the clock
_VERDICT_S = 10.0  # in which the rank that broke a collective is found

_LOST = object()  # the reply of a rank that gives none any more


class Team:
    """The other ranks' processes, and this one's place among them.

    Knows no model: commands carry the number of one. For one thread at a time.
    """

    def __init__(self, devices: Sequence[RankDevice]) -> None:
        """A rank on each device, of which the first is this process; raises RankFailed."""
        self.devices = tuple(devices)
        self.numbers = count()
        self._group: Group = ALONE
        self._lock = threading.Lock()  # guards the next two
        self._failure: RankFailed | None = None
        self._closing = False
        self._failed = threading.Event()
        self._deadline = math.inf
        self._folder = tempfile.TemporaryDirectory(prefix="influence-", ignore_cleanup_errors=True)
        self._processes = [RankProcess(rank, self._folder.name) for rank in range(1, len(devices))]
        self._replies: dict[int, SimpleQueue[Any]] = {one.rank: SimpleQueue() for one in self._processes}
        self._thread = threading.Thread(target=self._watch, name="influence-ranks", daemon=True)
        self._thread.start()
        try:
            self.placement = self._meet()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        return len(self.devices)

    @property
    def is_whole(self) -> bool:
        return self._failure is None and not self._closing

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the other ranks."""
        return tuple(process.process_id for process in self._processes)

    def tell(self, message: Any) -> None:
        """All other ranks."""
        self._send([pickle.dumps(message)] * len(self._processes))

    def tell_each(self, messages: Sequence[Any]) -> None:
        """Each of the others its own."""
        self._send([pickle.dumps(message) for message in messages])

    def _send(self, pickled: Sequence[bytes]) -> None:
        for process, message in zip(self._processes, pickled, strict=True):
            try:
                process.tell(message)
            except OSError as error:
                raise PeerLost(str(error)) from error

    def gather(self) -> list[Any]:
        """The next reply of each of the others, in their order."""
        replies = [self._replies[process.rank].get() for process in self._processes]
        if any(reply is _LOST for reply in replies):
            raise PeerLost("no reply")
        return replies

    @contextmanager
    def guarded(self, limit_s: float | None = None) -> Iterator[None]:
        """For all that tells ranks or waits for a device: raises RankFailed if any of them is lost meanwhile.

        Our own errors pass, for they are raised where ranks are still in step.
        After any other the ranks are not, and all end.
        """
        self._require_whole()
        self._deadline = time.monotonic() + (_STEP_LIMIT_S if limit_s is None else limit_s)
        try:
            yield
        except InfluenceError:
            self._require_whole()
            raise
        except Exception as error:
            raise self._verdict(error) from error
        except BaseException:
            self._fail(0, "it was interrupted in the midst of a step")
            raise
        finally:
            self._deadline = math.inf
        self._require_whole()

    def close(self) -> None:
        """End all other ranks. Idempotent."""
        with self._lock:
            self._closing = True
        for process in self._processes:
            process.end()
        self._thread.join()
        for process in self._processes:
            process.close()
        self._group.leave()
        self._group = ALONE
        self._folder.cleanup()

    def _meet(self) -> Placement:
        meeting = Path(self._folder.name) / "meeting"
        with self.guarded(_START_LIMIT_S):
            self.tell_each(
                [
                    Start(process.rank, self.size, meeting, self.devices[process.rank])
                    for process in self._processes
                ]
            )
            where = self.devices[0].placement()
            self.gather()
            self._group = RankGroup(0, self.size, meeting, where.device)
            self.gather()
        return replace(where, group=self._group)

    def _require_whole(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _verdict(self, error: Exception) -> RankFailed:
        """What broke a step: another rank, if one did, or this one."""
        if isinstance(error, PeerLost):
            self._failed.wait(_VERDICT_S)
        cause = Failed.by(error)
        self._fail(0, cause.cause)
        return self._failure or RankFailed(self._name(0), cause.cause)

    def _name(self, rank: int) -> str:
        return f"rank {rank} of {self.size} ({self.devices[rank]})"

    def _fail(self, rank: int, cause: str, hint: str = "") -> None:
        """The first failure is the one that counts."""
        self._lose(RankFailed(self._name(rank), cause, hint=hint))

    def _lose(self, failure: RankFailed) -> None:
        with self._lock:
            if self._failure is not None or self._closing:
                return
            self._failure = failure
        for process in self._processes:
            process.end()
        self._failed.set()
        for replies in self._replies.values():
            replies.put(_LOST)
        self._group.leave()

    # In the thread.

    def _watch(self) -> None:
        while not self._closing and self._failure is None:
            ready = wait([process.connection for process in self._processes], _LOOK_S)
            for process in self._processes:
                if process.connection in ready:
                    self._hear(process)
            if time.monotonic() > self._deadline:
                self._lose(RankFailed(f"one of {self.size} ranks", "a step did not end in time"))

    def _hear(self, process: RankProcess) -> None:
        try:
            message = process.connection.recv()
        except (EOFError, OSError):
            self._fail(process.rank, process.last_words())
            return
        if isinstance(message, Failed):
            self._fail(process.rank, message.cause, message.hint)
        else:
            self._replies[process.rank].put(message)
