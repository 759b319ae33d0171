"""A part's hashes, computed behind the connections that write it.

Blocks are hashed in the order of the file, as far as they are there. One that
was written just ahead of the hash is still in memory and is hashed from there;
any other is read back from the page cache. Both are the bytes that were written,
and neither is what a bad disk makes of them later: that is for `verify` to find.
Blocks of an earlier run are read back and held to their line of the journal on
the way: nothing waits for old bytes to be read before new ones come.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from influence.hub.checksum import crc32
from influence.hub.journal import Measured, Part
from influence.hub.memory import BlockMemory

_PIECE_BYTES = 256 << 10  # stays in the processor's cache between reading and hashing
_NEAR = 8  # blocks ahead of the hash that are kept in memory
_LONGEST_WAIT_S = 0.05  # for a hash that is nearly near, before a block is read back after all


class RunningHash:
    """How far a part is hashed. Used by one thread at a time, but for `room_for`, `written` and `give_back`.

    Buffers of blocks come from `memory` and go back there.
    """

    def __init__(self, part: Part, memory: BlockMemory) -> None:
        self._part, self._memory = part, memory
        self._changed = threading.Condition()
        self._kept: dict[int, memoryview] = {}  # blocks that were written, and not hashed yet
        self._keeps = True
        self.restart()

    def restart(self) -> None:
        """Begin anew, the part having lost its blocks."""
        self._next_block = 0
        self._drop_kept()
        self._sha256 = hashlib.sha256()
        head = b"blob %d\0" % self._part.size_bytes
        self._git_sha1 = hashlib.sha1(head, usedforsecurity=False) if self._part.file.git_sha1 else None

    @property
    def is_whole(self) -> bool:
        return self._next_block == self._part.n_blocks

    def room_for(self, block: int) -> memoryview | None:
        """A buffer to receive a block into, for `written` or `give_back`; None if it will be read back.

        A line that outruns the hash waits for it a little: a block that is not read back costs less.
        """
        if not self._keeps or not 0 <= block - self._next_block < 2 * _NEAR:
            return None
        with self._changed:
            self._changed.wait_for(lambda: self._is_near(block) or not self._is_at_work, _LONGEST_WAIT_S)
        return self._memory.take(self._part.block_bytes) if self._is_near(block) else None

    def written(self, block: int, buffer: memoryview | None) -> None:
        """A block is on its way to the part's journal, and `buffer` begins with what was written."""
        with self._changed:
            old = self._kept.pop(block, None)
            if buffer is not None and self._keeps:
                self._kept[block], buffer = buffer, None
        for unused in (old, buffer):
            if unused is not None:
                self.give_back(unused)

    def give_back(self, buffer: memoryview) -> None:
        self._memory.give_back(buffer)

    def read_all_back(self) -> None:
        """From now on hash what is in the part alone: more than one connection may write the same block."""
        self._keeps = False
        self._drop_kept()

    def advance(self, check_running: Callable[[], None]) -> int | None:
        """Hash on as far as blocks are there; the block that it stopped at if that is not as it was written.

        `check_running` is called now and then, and may raise to give up; then nothing is lost.
        """
        while self._is_at_work:
            check_running()
            if not (self._take_kept(self._next_block) or self._take(self._next_block, check_running)):
                return self._next_block
            with self._changed:
                self._next_block += 1
                self._changed.notify_all()
        return None

    def measured(self) -> Measured:
        """What the whole content is."""
        git_sha1 = self._git_sha1.hexdigest() if self._git_sha1 else None
        return Measured(self._sha256.hexdigest(), git_sha1, self._part.size_bytes, self._part.checksums())

    @property
    def _is_at_work(self) -> bool:
        """Whether there is something to hash."""
        return self._part.has(self._next_block)

    def _is_near(self, block: int) -> bool:
        return block - self._next_block < _NEAR

    def _drop_kept(self) -> None:
        with self._changed:
            kept, self._kept = self._kept, {}
        for buffer in kept.values():
            self.give_back(buffer)

    def _take_kept(self, block: int) -> bool:
        """Hash a block that is in memory; False if it is not."""
        with self._changed:
            buffer = self._kept.pop(block, None)
        if buffer is None:
            return False
        begin, end = self._part.place(block)
        self._sha256.update(buffer[: end - begin])
        if self._git_sha1:
            self._git_sha1.update(buffer[: end - begin])
        self.give_back(buffer)
        return True

    def _take(self, block: int, check_running: Callable[[], None]) -> bool:
        """Read a block back and hash it; False, and no hash is changed, if it is not as it was written."""
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
