"""Buffers for whole blocks: received into, written from, and hashed before they are used again."""

from __future__ import annotations

import threading

_MOST_BYTES = 10 << 20  # as many blocks of 1 MiB as are kept for one hash (hashing.py), and two on their way


class BlockMemory:
    """At most so many bytes in buffers, shared by all threads of a download."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._lock = threading.Lock()
        self._n_left = most_bytes  # for new buffers
        self._free: list[memoryview] = []

    def take(self, n_bytes: int) -> memoryview | None:
        """A buffer of that length, whatever is in it; None where too much is in use."""
        with self._lock:
            for index in reversed(range(len(self._free))):  # the last one used may still be in a cache
                if len(self._free[index]) == n_bytes:
                    return self._free.pop(index)
            while self._free and self._n_left < n_bytes:
                self._n_left += len(self._free.pop())
            if self._n_left < n_bytes:
                return None
            self._n_left -= n_bytes
        return memoryview(bytearray(n_bytes))

    def give_back(self, buffer: memoryview) -> None:
        """A whole buffer that nobody reads or writes any more."""
        with self._lock:
            self._free.append(buffer)
