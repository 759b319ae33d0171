"""A rank's process, seen from rank 0: started, told, heard, ended.

commands  ->  socket  ┐
                      │  worker.py, in a session of its own: Ctrl-C is for us
replies   <-  socket  ┘
nothing   ->  stdin      ends when we do, however we do, and the rank with it
"""

from __future__ import annotations

import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from multiprocessing.connection import Pipe as pipe

_END_S = 5.0  # a rank ends at once; one that does not is killed


class RankProcess:
    """One of the ranks after the first."""

    def __init__(self, rank: int, folder: str) -> None:
        """`folder` goes with the last of us."""
        self.rank = rank
        self.connection: Connection
        self.connection, theirs = pipe()
        module = "influence.engines.torch.parallel.worker"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # ours is for data
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def process_id(self) -> int:
        return self._process.pid

    def tell(self, pickled: bytes) -> None:
        """Raises OSError if the process is gone."""
        self.connection.send_bytes(pickled)

    def last_words(self) -> str:
        """How a process ended that is silent."""
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return "it no longer answers"
        if code < 0:
            return f"its process was ended by signal {-code} ({signal.strsignal(-code)})"
        return f"its process ended with exit code {code}"

    def end(self) -> None:
        """The process is gone after this. Idempotent."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Nobody hears or tells it any more."""
        self.end()
        self.connection.close()
