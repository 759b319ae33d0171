"""How fast this machine reads memory now: the denominator of every decode speed.

Threads add up equal parts of a buffer that no cache holds. A vectorised sum of
64-bit integers needs far less arithmetic than memory gives it data, so that the
time is the reading's. numpy sums without the interpreter's lock.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

# Three times the largest last-level cache that a single socket reports today.
BUFFER_BYTES = 3 * (512 << 20)


class ReadProbe:
    """Owns the buffer and the threads; `gb_per_s` may be asked at any time, for about a tenth of a second."""

    def __init__(self, n_threads: int, n_bytes: int = BUFFER_BYTES) -> None:
        # Every page is written, since untouched ones all read the same zero page.
        buffer = np.ones(n_bytes // 8, dtype=np.int64)
        self._parts: list[npt.NDArray[Any]] = np.array_split(buffer, n_threads)
        self._pool = ThreadPoolExecutor(n_threads)
        self._n_bytes = buffer.nbytes
        self.gb_per_s()

    def gb_per_s(self, n_passes: int = 3) -> float:
        """The median of a few passes over the buffer."""
        return statistics.median(self._pass_gb_per_s() for _ in range(n_passes))

    def _pass_gb_per_s(self) -> float:
        start = time.perf_counter()
        total = sum(self._pool.map(np.add.reduce, self._parts))
        seconds = time.perf_counter() - start
        if total * 8 != self._n_bytes:
            raise RuntimeError("the read probe summed wrong numbers")
        return self._n_bytes / seconds / 1e9

    def close(self) -> None:
        self._pool.shutdown()
        self._parts = []
