"""A file on its way: its bytes in a sparse part, and a journal of the blocks that are there.

    parts/<key>.part        the bytes, each at its final place
    parts/<key>.journal     "influence 1 <size> <block>\\n", then for each whole block "<index> <crc32>\\n"
                            and for one that must come again "<index> -\\n"; emptied only where all does
    parts/<path>-<sha>.done whole, verified, flushed; waits for the others (transfer.py)

The key is made of path, size and published hash, so that only bytes of the same
content are ever put together, whichever commit or process asks for it. A block's
line is written after its bytes; a block of an earlier run is held to its line
when it is hashed (hashing.py), so that a lost write, a torn line or a changed
byte costs that block and nothing else. No order of flushes is needed for that;
flushing every 64 MiB bounds what a loss of power costs.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable

from influence.dataclass import dataclass
from influence.hub.checksum import crc32
from influence.hub.manifest import PARTS, FileRecord
from influence.hub.records import RemoteFile
from influence.hub.safe_folder import SafeFolder, write_all, write_all_at, write_failed

_FLUSH_BYTES = 64 << 20
_READ_BYTES = 1 << 20
_MIN_BLOCK_BYTES = 1 << 20
_MAX_BLOCKS = 4096  # bounds journal and manifest: 60 GB come in blocks of 16 MiB
_MAX_JOURNAL_BYTES = 1 << 20
_LINE = re.compile(rb"([0-9]{1,9}) ([0-9a-f]{8}|-)")


def block_bytes_of(size_bytes: int, smallest: int = _MIN_BLOCK_BYTES) -> int:
    """The length of a file's blocks: the smallest doubled until there are few enough."""
    block = smallest
    while block * _MAX_BLOCKS < size_bytes:
        block *= 2
    return block


def part_key(file: RemoteFile, size_bytes: int, sha: str) -> str:
    """What parts of the same content share; a file without a published hash is known by its commit."""
    identity = file.published_hash or sha
    return hashlib.sha256(f"{file.path}\0{size_bytes}\0{identity}".encode()).hexdigest()[:32]


def path_key(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def done_name(path: str, sha256: str) -> str:
    """Where a whole file waits for its name."""
    return f"{PARTS}/{path_key(path)}-{sha256}.done"


@dataclass(frozen=True)
class Measured:
    """What a file's content is."""

    sha256: str
    git_sha1: str | None  # where it was asked for
    size_bytes: int
    blocks: tuple[int, ...]

    def problem(self, file: RemoteFile) -> tuple[str, str] | None:
        """(found, expected) where the content is not the published one."""
        if file.size_bytes is not None and file.size_bytes != self.size_bytes:
            return f"{self.size_bytes} bytes", f"{file.size_bytes} bytes"
        if file.sha256 and file.sha256 != self.sha256:
            return f"sha256 {self.sha256}", f"sha256 {file.sha256}"
        if file.git_sha1 and file.git_sha1 != self.git_sha1:
            return f"git-sha1 {self.git_sha1}", f"git-sha1 {file.git_sha1}"
        return None

    def record(self, file: RemoteFile, modified_ns: int, block_bytes: int) -> FileRecord:
        git_sha1 = file.git_sha1 if file.git_sha1 == self.git_sha1 else None
        return FileRecord(
            file.path, self.size_bytes, self.sha256, git_sha1, modified_ns, block_bytes, self.blocks
        )


def measure(
    fd: int, block_bytes: int, *, git: bool, on_read: Callable[[int], None] = lambda n_bytes: None
) -> Measured:
    """Hashes of an open file, read once; git's, if wanted, is over a line with the size and the content.

    `on_read` is told the length of each piece that was read.
    """
    size = os.fstat(fd).st_size
    sha256, git_sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    blocks = []
    for begin in range(0, size, block_bytes):
        crc = 0
        for position in range(begin, min(begin + block_bytes, size), _READ_BYTES):
            chunk = os.pread(fd, min(_READ_BYTES, begin + block_bytes - position), position)
            sha256.update(chunk)
            if git:
                git_sha1.update(chunk)
            crc = crc32(chunk, crc)
            on_read(len(chunk))
        blocks.append(crc)
    return Measured(sha256.hexdigest(), git_sha1.hexdigest() if git else None, size, tuple(blocks))


class Part:
    """The part and the journal of one file; several threads may write different blocks of it."""

    def __init__(
        self, folder: SafeFolder, file: RemoteFile, size_bytes: int, sha: str, block_bytes: int
    ) -> None:
        """Opens both, and takes over the blocks of earlier runs, which are still to be held to their lines."""
        self.file = file
        self.size_bytes = size_bytes
        self.block_bytes = block_bytes
        self.whole_turn = threading.Lock()  # held by the one thread that reads the file from its start
        self._folder = folder
        key = part_key(file, size_bytes, sha)
        self.part_name, self.journal_name = f"{PARTS}/{key}.part", f"{PARTS}/{key}.journal"
        self._lock = threading.Lock()
        self._n_unflushed = 0
        self._have: dict[int, int] = {}  # block -> CRC-32
        self._earlier: set[int] = set()  # blocks that an earlier run wrote
        self._data = folder.open(self.part_name, write=True)
        self._journal = folder.open(self.journal_name, write=True, append=True)
        self._resume()

    def close(self) -> None:
        os.close(self._data)
        os.close(self._journal)

    @property
    def n_blocks(self) -> int:
        return -(-self.size_bytes // self.block_bytes)

    @property
    def done_bytes(self) -> int:
        """Of whole blocks on the disk."""
        with self._lock:
            n_last = self.size_bytes - (self.n_blocks - 1) * self.block_bytes
            full = len(self._have) * self.block_bytes
            return full - (self.block_bytes - n_last if self.n_blocks - 1 in self._have else 0)

    @property
    def is_flush_due(self) -> bool:
        """Whether a loss of power would by now cost more than it should."""
        with self._lock:
            return self._n_unflushed >= _FLUSH_BYTES

    def has(self, block: int) -> bool:
        with self._lock:
            return block in self._have

    def is_of_earlier_run(self, block: int) -> bool:
        with self._lock:
            return block in self._earlier

    def checksum(self, block: int) -> int | None:
        """A block's CRC-32; None if it is not here."""
        with self._lock:
            return self._have.get(block)

    def checksums(self) -> tuple[int, ...]:
        """Of all blocks that are here, in order."""
        with self._lock:
            return tuple(self._have[block] for block in sorted(self._have))

    def place(self, block: int) -> tuple[int, int]:
        """The bytes of a block, as (begin, end)."""
        return block * self.block_bytes, min((block + 1) * self.block_bytes, self.size_bytes)

    def missing(self, span_bytes: int) -> list[tuple[int, int]]:
        """The bytes not here, as (begin, end) of at most `span_bytes`, rounded up to blocks."""
        per_span = max(span_bytes // self.block_bytes, 1)
        spans: list[tuple[int, int]] = []
        for block in range(self.n_blocks):
            begin, end = self.place(block)
            if self.has(block):
                continue
            if spans and spans[-1][1] == begin and begin - spans[-1][0] < per_span * self.block_bytes:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((begin, end))
        return spans

    def read_into(self, buffer: memoryview, position: int) -> int:
        """How many bytes were read; 0 where the part was cut."""
        return os.preadv(self._data, [buffer], position)

    def write(self, position: int, data: bytes | memoryview) -> None:
        """Bytes at their place; they count once `block_done` is told of their block."""
        try:
            write_all_at(self._folder.system, self._data, data, position)
        except OSError as error:
            raise write_failed(self._folder.path / self.part_name, error) from error

    def block_done(self, block: int, crc: int) -> None:
        """Note that a block's bytes are all written."""
        with self._lock:
            self._append(b"%d %08x\n" % (block, crc))
            self._have[block] = crc
            self._earlier.discard(block)
            self._n_unflushed += self.block_bytes

    def drop(self, block: int) -> None:
        """Forget a block: it comes again."""
        with self._lock:
            self._append(b"%d -\n" % block)
            del self._have[block]

    def restart(self) -> None:
        """Forget all."""
        with self._lock:
            self._begin()

    def flush(self) -> None:
        """Bring bytes and journal to the disk; connections may go on writing."""
        with self._lock:
            self._n_unflushed = 0
        try:
            self._folder.system.flush(self._data)
            self._folder.system.flush(self._journal)
        except OSError as error:
            raise write_failed(self._folder.path / self.part_name, error) from error

    def finish(self, measured: Measured) -> FileRecord:
        """Flush the verified file, put it where it waits for its name, and remove the journal."""
        self.flush()
        modified_ns = os.fstat(self._data).st_mtime_ns
        self._folder.rename(self.part_name, done_name(self.file.path, measured.sha256))
        self._folder.remove(self.journal_name)
        return measured.record(self.file, modified_ns, self.block_bytes)

    def _append(self, line: bytes) -> None:
        try:
            write_all(self._folder.system, self._journal, line)
        except OSError as error:
            raise write_failed(self._folder.path / self.journal_name, error) from error

    def _resume(self) -> None:
        try:
            self._folder.system.truncate(self._data, self.size_bytes)  # sparse: takes no space yet
        except OSError as error:
            raise write_failed(self._folder.path / self.part_name, error) from error
        n_bytes = min(os.fstat(self._journal).st_size, _MAX_JOURNAL_BYTES)
        journal = os.pread(self._journal, n_bytes, 0)
        if not journal.startswith(self._first_line):
            self._begin()
            return
        if not journal.endswith(b"\n"):  # its process died at this line, which the next must not join
            self._append(b"\n")
        self._have = self._noted(journal)
        self._earlier = set(self._have)

    def _noted(self, journal: bytes) -> dict[int, int]:
        """The blocks that a journal speaks of, the last word counting; torn lines do not."""
        noted: dict[int, int] = {}
        for line in map(_LINE.fullmatch, journal.split(b"\n")[1:-1]):
            if line and line[2] == b"-":
                noted.pop(int(line[1]), None)
            elif line and int(line[1]) < self.n_blocks:
                noted[int(line[1])] = int(line[2], 16)
        return noted

    @property
    def _first_line(self) -> bytes:
        return b"influence 1 %d %d\n" % (self.size_bytes, self.block_bytes)

    def _begin(self) -> None:
        """An empty journal."""
        try:
            self._folder.system.truncate(self._journal, 0)
        except OSError as error:
            raise write_failed(self._folder.path / self.journal_name, error) from error
        self._append(self._first_line)
        self._have = {}
