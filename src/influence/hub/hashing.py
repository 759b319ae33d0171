"""A part's hashes, computed behind the connections that write it.

Blocks are hashed in the order of the file, as far as they are there. They are
read back from the page cache, which costs a tenth of hashing them and takes
what was written, not what was received. Blocks of an earlier run are held to
their line of the journal on the way: nothing waits for old bytes to be read
before new ones come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from influence.hub.checksum import crc32
from influence.hub.journal import Measured, Part

_PIECE_BYTES = 256 << 10  # stays in the processor's cache between reading and hashing


class RunningHash:
    """How far a part is hashed. Used by one thread at a time."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.restart()

    def restart(self) -> None:
        """Begin anew, the part having lost its blocks."""
        self._next_block = 0
        self._sha256 = hashlib.sha256()
        head = b"blob %d\0" % self._part.size_bytes
        self._git_sha1 = hashlib.sha1(head, usedforsecurity=False) if self._part.file.git_sha1 else None

    @property
    def is_whole(self) -> bool:
        return self._next_block == self._part.n_blocks

    def advance(self, check_running: Callable[[], None]) -> int | None:
        """Hash on as far as blocks are there; the block that it stopped at if that is not as it was written.

        `check_running` is called now and then, and may raise to give up; then nothing is lost.
        """
        while self._part.has(self._next_block):
            if not self._take(self._next_block, check_running):
                return self._next_block
            self._next_block += 1
        return None

    def measured(self) -> Measured:
        """What the whole content is."""
        git_sha1 = self._git_sha1.hexdigest() if self._git_sha1 else None
        return Measured(self._sha256.hexdigest(), git_sha1, self._part.size_bytes, self._part.checksums())

    def _take(self, block: int, check_running: Callable[[], None]) -> bool:
        """Hash one block; False, and no hash is changed, if it is not as it was written."""
        sha256, git_sha1 = self._sha256.copy(), self._git_sha1.copy() if self._git_sha1 else None
        position, end = self._part.place(block)
        buffer = memoryview(bytearray(min(_PIECE_BYTES, end - position)))
        is_old, crc = self._part.is_of_earlier_run(block), 0
        while position < end:
            check_running()
            piece = buffer[: self._part.read_into(buffer[: end - position], position)]
            if not piece:  # the part was cut
                return False
            sha256.update(piece)
            if git_sha1:
                git_sha1.update(piece)
            crc = crc32(piece, crc) if is_old else 0
            position += len(piece)
        if is_old and crc != self._part.checksum(block):
            return False
        self._sha256, self._git_sha1 = sha256, git_sha1
        return True
