"""Computed prompts on disk, so that a new process need not compute them again.

    FOLDER/<name>.kv     one block of the KV cache: 16 bytes of magic, 32 of SHA-256, the block's bytes
    FOLDER/.<name>.<pid>.tmp     being written

A block's keys and values depend on all tokens up to its end, and so does its name:

    name(block) = SHA-256(name(block before), the block's token ids)
    name before the first = SHA-256(engine, spec, weights, salt, and where rope depends on it the context)

so prompts that begin alike share files, no file says which tokens it belongs
to, and models can share a folder. The checksum covers the name too: what was
cut short, changed or renamed is removed and computed again. Whoever can write
into the folder can change answers, as with the weights themselves.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

import influence
from influence.engines.base import Blocks, Engine
from influence.generation.token_ids import Ids

_MAGIC = b"influence-kv-1\n\0"
_HEADER_BYTES = len(_MAGIC) + hashlib.sha256().digest_size
_BLOCK_FILE = re.compile(r"([0-9a-f]{64})\.kv")
_UNFINISHED_FILE = re.compile(r"\.[0-9a-f]{64}\.\d+\.tmp")
_ABANDONED_S = 3600.0  # a file that long unfinished belongs to a process that was killed

# What may wait to be written: beyond it a prompt is not stored, rather than memory filled.
_MAX_PENDING_BYTES = 256 << 20

_log = logging.getLogger(__name__)


class PromptStore:
    """Blocks of one engine's KV cache in a folder, least recently used ones removed beyond a size.

    Files are read and written in threads of its own; asking what is there
    takes no disk access. Raises OSError at its making if the folder can't be
    made or listed; later errors of the disk are logged and cost no answer.
    """

    def __init__(self, folder: Path, engine: Engine, weights_digest: str, *, max_bytes: int) -> None:
        """`weights_digest`: what tells these weights from any others (`weights.digest.files_digest`)."""
        pool = engine.kv_pool
        self._folder = folder
        self._block_size, self._block_bytes = pool.block_size, pool.block_bytes
        self._depends_on_context = engine.spec.rope_depends_on_context
        self._root = _hash_of([influence.__version__, engine.kv_identity, repr(engine.spec), weights_digest])
        self._max_bytes = max_bytes
        self._lock = threading.Lock()  # guards the two below
        self._pending_bytes = 0
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by name, least recently used first
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._list_folder()
        # Two, so that a request never waits behind what is written for later ones.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="influence-prompts-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="influence-prompts-write")

    def names(self, token_ids: Ids, salt: str, context: int) -> list[str]:
        """The names of the whole blocks of a history, in their order."""
        depends = [salt, context] if self._depends_on_context else [salt]
        name = hashlib.sha256(self._root + _hash_of(depends)).hexdigest()
        names = []
        for end in range(self._block_size, len(token_ids) + 1, self._block_size):
            block = np.asarray(token_ids[end - self._block_size : end], "<i8").tobytes()
            name = hashlib.sha256(bytes.fromhex(name) + block).hexdigest()
            names.append(name)
        return names

    def n_stored(self, names: Sequence[str]) -> int:
        """How many of the names, from the first on, are there."""
        with self._lock:
            return next((i for i, name in enumerate(names) if name not in self._sizes), len(names))

    def load(self, names: Sequence[str], on_done: Callable[[], None]) -> Future[Blocks]:
        """Begin to read blocks; the result is those from the first on that are whole, maybe none.

        `on_done` is called in another thread when the result is there.
        """
        future = self._reader.submit(self._load, list(names))
        future.add_done_callback(lambda _: on_done())
        return future

    def save(self, names: Sequence[str], blocks: Blocks) -> None:
        """Begin to write blocks; those that are too many to wait for the disk are left out."""
        with self._lock:
            if self._pending_bytes + blocks.nbytes > _MAX_PENDING_BYTES:
                return
            self._pending_bytes += blocks.nbytes
        self._writer.submit(self._save, list(names), blocks)

    def close(self) -> None:
        """Write what waits to be written. Idempotent."""
        self._reader.shutdown()
        self._writer.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # In the store's threads, but for the first.

    def _list_folder(self) -> None:
        """Take stock; other files than ours are not looked at."""
        found = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process may remove or rename it just now
                state = path.lstat()
                if match := _BLOCK_FILE.fullmatch(path.name):
                    found.append((state.st_mtime, match[1], state.st_size))
                elif _UNFINISHED_FILE.fullmatch(path.name) and state.st_mtime < time.time() - _ABANDONED_S:
                    path.unlink()
        self._sizes.update((name, size) for _, name, size in sorted(found))

    def _load(self, names: list[str]) -> Blocks:
        rows = []
        for name in names:
            row = self._read(name)
            if row is None:
                break
            rows.append(row)
        self._touch(names[: len(rows)])
        return np.array(rows, np.uint8).reshape(len(rows), self._block_bytes)

    def _read(self, name: str) -> npt.NDArray[np.uint8] | None:
        path = self._path(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            if not isinstance(error, FileNotFoundError):  # removed by another process
                _log.warning("a stored prompt can't be read: %s", error)
            self._forget(name)
            return None
        payload = memoryview(content)[_HEADER_BYTES:]
        if content[:_HEADER_BYTES] != _header(name, payload) or len(payload) != self._block_bytes:
            _log.warning("a stored prompt is damaged and will be computed again: %s", path.name)
            self._remove(name)
            return None
        return np.frombuffer(payload, np.uint8)

    def _save(self, names: list[str], blocks: Blocks) -> None:
        try:
            for name, block in zip(names, blocks, strict=True):
                self._write(name, block)
            self._touch(names)
            self._keep_to_size()
        except OSError as error:
            _log.warning("a prompt can't be stored: %s", error)
        finally:
            with self._lock:
                self._pending_bytes -= blocks.nbytes

    def _write(self, name: str, block: npt.NDArray[np.uint8]) -> None:
        """A file by this name is whole or not there; that it survives a power cut is the checksum's business."""
        payload = block.data
        unfinished = self._folder / f".{name}.{os.getpid()}.tmp"
        try:
            with open(unfinished, "xb", opener=_private) as file:
                file.write(_header(name, payload))
                file.write(payload)
            unfinished.replace(self._path(name))
        except OSError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        with self._lock:
            self._sizes[name] = _HEADER_BYTES + len(payload)

    def _touch(self, names: Sequence[str]) -> None:
        """Note a use. A block's predecessors count as used after it: without them it is of no use."""
        for name in reversed(names):
            with suppress(OSError):
                os.utime(self._path(name))
            with self._lock:
                if name in self._sizes:
                    self._sizes.move_to_end(name)

    def _keep_to_size(self) -> None:
        while True:
            with self._lock:
                if not self._sizes or sum(self._sizes.values()) <= self._max_bytes:
                    return
                oldest = next(iter(self._sizes))
            self._remove(oldest)

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            self._path(name).unlink(missing_ok=True)
        self._forget(name)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._sizes.pop(name, None)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.kv"


def _hash_of(facts: Sequence[object]) -> bytes:
    return hashlib.sha256(json.dumps(facts).encode()).digest()


def _header(name: str, payload: memoryview) -> bytes:
    checksum = hashlib.sha256(bytes.fromhex(name))
    checksum.update(payload)
    return _MAGIC + checksum.digest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
