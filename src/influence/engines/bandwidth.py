"""How fast this machine reads its memory, by reading some."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from influence.engines import machine, native

Words = npt.NDArray[np.uint64]

# Several times a last-level cache where there is memory for it, and never much of what is free.
_BUFFER_BYTES = 256 << 20
_LARGEST_SHARE = 8
_CHUNK_WORDS = 1 << 18  # 2 MB: the clock is looked at between chunks


def measure_bandwidth(limit_s: float = 0.25) -> float:
    """Bytes per second that all usable cores read together: the best pass of as many as `limit_s` allows.

    Half of the time at most goes to writing the buffer, by the threads that
    read it: memory that was never written is not there, and pages lie near the
    core that touches them first.
    """
    n_threads = machine.usable_cores()
    n_words = min(_BUFFER_BYTES, machine.available_memory() // _LARGEST_SHARE) // 8
    start = time.perf_counter()
    with ThreadPoolExecutor(n_threads) as threads:
        shares = np.array_split(np.empty(max(n_threads, n_words), np.uint64), n_threads)
        parts = list(threads.map(lambda share: _filled(share, start + limit_s / 2), shares))
        best_s = _read_all(threads, parts)
        while time.perf_counter() + best_s < start + limit_s:
            best_s = min(best_s, _read_all(threads, parts))
    return sum(part.nbytes for part in parts) / best_s


def _filled(words: Words, deadline: float) -> Words:
    """The part of `words` that could be written before the deadline, one chunk at least."""
    n_written = 0
    while n_written < words.size and (n_written == 0 or time.perf_counter() < deadline):
        words[n_written : n_written + _CHUNK_WORDS] = 1
        n_written = min(words.size, n_written + _CHUNK_WORDS)
    return words[:n_written]


def _read_all(threads: ThreadPoolExecutor, parts: list[Words]) -> float:
    """Seconds that one pass over all parts takes."""
    start = time.perf_counter()
    list(threads.map(native.read_once, parts))
    return time.perf_counter() - start
