"""The process that renders chat templates, seen from ours: started, fed, timed, killed.

    request line  ->  stdin  ┐
                             │  template_worker.py, without our environment,
    reply line    <-  stdout ┘  terminal or open files

It is started at the first request (or by `start`, to be ready for it), serves
one request at a time, and is killed when it exceeds a limit or with its owner.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_START_S = 20.0  # usually 0.1; nothing of the template runs before
# The worker limits its own processor time. This is for one that gets no processor, or stands still.
_MAX_WAIT_FACTOR = 10
_LINE_OVERHEAD_BYTES = 1 << 16
_BYTES_PER_CHARACTER = 12  # the longest that JSON writes one: two \uXXXX


class RenderingFailed(Exception):
    """The process gave no answer; `reason` is "time", "size" or "crash"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TemplateProcess:
    """A worker process and the pipe to it; usable from several threads, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._is_ready = False

    def start(self) -> None:
        """Start the process unless it runs; does not wait for it."""
        with self._lock:
            self._running()

    def render(
        self, template: str, variables: Mapping[str, Any], *, max_characters: int, limit_s: float
    ) -> dict[str, Any]:
        """The worker's reply (see template_worker.py), which may take it `limit_s` of processor time.

        Raises RenderingFailed; TypeError and ValueError for variables that are not JSON.
        """
        request = {
            "template": template,
            "variables": variables,
            "max_characters": max_characters,
            "limit_s": limit_s,
        }
        line = json.dumps(request, default=_plain).encode() + b"\n"
        with self._lock:
            try:
                return self._exchange(line, max_characters, limit_s)
            except RenderingFailed:
                self._kill()
                raise

    def close(self) -> None:
        """End the process; a later request starts a new one."""
        with self._lock:
            self._kill()

    def _exchange(self, line: bytes, max_characters: int, limit_s: float) -> dict[str, Any]:
        process = self._running()
        max_bytes = (max_characters + len(line)) * _BYTES_PER_CHARACTER + _LINE_OVERHEAD_BYTES
        if not self._is_ready:
            _read_line(process, max_bytes, _START_S)
            self._is_ready = True
        _write(process, line)
        reply: dict[str, Any] = json.loads(_read_line(process, max_bytes, limit_s * _MAX_WAIT_FACTOR))
        return reply

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._kill()
        self._process = _spawn()
        self._finalizer = weakref.finalize(self, _end, self._process)
        return self._process

    def _kill(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None
        self._is_ready = False


def _spawn() -> subprocess.Popen[bytes]:
    worker = Path(__file__).with_name("template_worker.py")
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(worker), *_library_paths()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env={name: os.environ[name] for name in ("TZ", "LD_LIBRARY_PATH") if name in os.environ},
        start_new_session=True,  # Ctrl-C is for us; we end the worker
    )


def _library_paths() -> list[str]:
    """Where jinja2 and what it needs are installed, found without importing them."""
    specs = [find_spec(name) for name in ("jinja2", "markupsafe")]
    return sorted({str(Path(spec.origin).parent.parent) for spec in specs if spec and spec.origin})


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _write(process: subprocess.Popen[bytes], line: bytes) -> None:
    stream = process.stdin
    remaining = memoryview(line)
    try:
        while remaining and stream is not None:
            remaining = remaining[stream.write(remaining) or 0 :]
    except OSError as error:
        raise RenderingFailed("crash") from error


def _read_line(process: subprocess.Popen[bytes], max_bytes: int, limit_s: float) -> bytes:
    if process.stdout is None:
        raise RenderingFailed("crash")
    descriptor = process.stdout.fileno()
    deadline = time.monotonic() + limit_s
    line = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise RenderingFailed("time")
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                raise RenderingFailed("time" if process.wait() == -signal.SIGPROF else "crash")
            line += chunk
            if len(line) > max_bytes:
                raise RenderingFailed("size")
    return bytes(line)


def _plain(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
