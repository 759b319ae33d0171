"""Where a stream of bytes goes: to its place in the part, and into memory where its hash is near."""

from __future__ import annotations

from influence.hub.checksum import crc32
from influence.hub.hashing import RunningHash
from influence.hub.journal import Part
from influence.hub.wire import one_room


class Cursor:
    """Writes a stream of bytes that belong at `position`, from a block's beginning, and notes each whole block.

    A block that is there already is passed over: its hash may be taken.
    """

    def __init__(self, part: Part, position: int, running: RunningHash) -> None:
        self._part, self._hash = part, running
        self.position = position
        self._begin = self._end = position  # of the block that was entered
        self._is_there = False
        self._crc = 0
        self._buffer: memoryview | None = None  # the block's, if it will be hashed soon
        self._elsewhere = one_room()

    def room(self) -> memoryview:
        """Where the next bytes may be received: at their place in the block's buffer, if it has one."""
        self._enter()
        if self._buffer is None:
            return self._elsewhere()
        return self._buffer[self.position - self._begin : self._end - self._begin]

    def feed(self, data: memoryview) -> bool:
        """Whether a new block became whole."""
        is_whole = False
        while data:
            self._enter()
            piece = data[: self._end - self.position]
            if not self._is_there:
                self._write(piece)
            self.position += len(piece)
            data = data[len(piece) :]
            if self.position == self._end and not self._is_there:
                self._finish()
                is_whole = True
        return is_whole

    def close(self) -> None:
        """Give up a block in the middle."""
        if self._buffer is not None:
            self._hash.give_back(self._buffer)
            self._buffer = None

    def _enter(self) -> None:
        """Begin with a new block, where the last is over and another follows."""
        if self.position < self._end or self.position >= self._part.size_bytes:
            return
        block = self.position // self._part.block_bytes
        self._begin, self._end = self._part.place(block)
        self._is_there, self._crc = self._part.has(block), 0
        self._buffer = None if self._is_there else self._hash.room_for(block)

    def _write(self, piece: memoryview) -> None:
        if self._buffer is not None and piece.obj is not self._buffer.obj:  # it came by another way
            at = self.position - self._begin
            self._buffer[at : at + len(piece)] = piece
        self._part.write(self.position, piece)
        self._crc = crc32(piece, self._crc)

    def _finish(self) -> None:
        block = self._begin // self._part.block_bytes
        self._hash.written(block, self._buffer)
        self._buffer = None
        self._part.block_done(block, self._crc)
