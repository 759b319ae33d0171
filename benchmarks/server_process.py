"""Servers under load: ours and llama.cpp's, each in a process of its own, or one that runs already."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import URLError

_START_S = 300.0
_ASK_AGAIN_S = 0.2


class ServerFailed(Exception):
    """A server did not start, or can't be reached; says why in its own words."""


@dataclass(frozen=True, slots=True)
class Server:
    """One that answers, and the program that loads it."""

    place: Mapping[str, Any]  # where it is, as its client is told
    description: str
    client: str = "load_client.py"


class ServerProcess:
    """A server that is started, waited for, and ended with the block."""

    def __init__(self, command: Sequence[str | Path], url: str, description: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        self._url, self._description = url, description

    def __enter__(self) -> Server:
        try:
            return reached(self._url, self._description, self._still_runs)
        except ServerFailed:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _still_runs(self) -> None:
        if self._process.poll() is not None:
            self._log.seek(0)
            words = self._log.read().decode("utf-8", "replace")[-1500:]
            raise ServerFailed(f"{self._description} ended with {self._process.returncode}:\n{words}")


class RunningServer:
    """One that somebody else started, for a `with` block like ServerProcess."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> Server:
        return reached(self._url, self._url)

    def __exit__(self, *_: object) -> None:
        """It is not ours to end."""


def no_server(folder: Path, threads: int, context: int) -> Server:
    """The generator without HTTP, loaded anew for each turn."""
    place = {"folder": str(folder), "threads": threads, "context": context}
    return Server(place, f"influence without a server, {threads} threads", "direct_client.py")


def our_server(folder: Path, threads: int, n_clients: int, context: int) -> ServerProcess:
    """`influence serve` on a model folder."""
    port = _free_port()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "influence",
        "serve",
        "-m",
        folder,
        "-p",
        str(port),
        "--quiet",
    ]
    options = ["--threads", str(threads), "--context", str(context), "--max-concurrent", str(n_clients)]
    return ServerProcess(
        [*command, *options], f"http://127.0.0.1:{port}", f"influence serve, {threads} threads"
    )


def llama_server(program: Path, gguf: Path, threads: int, n_clients: int, context: int) -> ServerProcess:
    """llama.cpp's server on the same weights, with a slot for each client."""
    port = _free_port()
    command: list[str | Path] = [program, "-m", gguf, "--host", "127.0.0.1", "--port", str(port)]
    options = ["-t", threads, "-tb", threads, "-np", n_clients, "-c", n_clients * context]
    url = f"http://127.0.0.1:{port}"
    return ServerProcess([*command, *map(str, options)], url, f"llama-server, {threads} threads")


def reached(url: str, description: str, check: Callable[[], None] = lambda: None) -> Server:
    """The server once it lists its model. Raises ServerFailed; `check()` may say sooner that it won't."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        check()
        try:
            with urllib.request.urlopen(
                f"{url.rstrip('/').removesuffix('/v1')}/v1/models", timeout=5
            ) as answer:
                name = str(json.load(answer)["data"][0]["id"])
                return Server({"url": url, "model": name}, description)
        except (URLError, OSError, ValueError, KeyError, IndexError):
            time.sleep(_ASK_AGAIN_S)
    raise ServerFailed(f"{url} lists no model")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
