"""The server's life: its port, its signals, and an end that cuts no answer short.

bind -> (weights load) -> ready
SIGTERM -> not ready, nothing new is taken -> what runs goes on, at most drain_s
        -> what still runs ends with an error that says why -> exit code 0
a second signal -> the process ends at once
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import uvicorn

from influence.errors import PortUnavailable
from influence.server.app import App
from influence.server.connections import Connection, accepted_at_once, connection_limit
from influence.server.service import Service
from influence.server.settings import Settings

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_BACKLOG = 128
_log = logging.getLogger("influence.server")


def bind(host: str, port: int) -> socket.socket:
    """The port, open: clients that come early wait. Raises PortUnavailable with the reason and who has it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise PortUnavailable(host, port, "there is no such address", hint="check --host") from error
    # With its protocol, by which asyncio knows that it may turn Nagle's delay off.
    sock = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Not later: until it listens, another server could take the same port.
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _unavailable(host, port, error) from error
    return sock


def run(service: Service, app: App, sock: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until a signal ends it; `on_ready` is called once requests are taken."""
    asyncio.run(_Life(service, app, sock, on_ready).run())


class _Life:
    """From ready to the end, in the event loop."""

    def __init__(self, service: Service, app: App, sock: socket.socket, on_ready: Callable[[], None]) -> None:
        self._service = service
        self._sock = sock
        self._on_ready = on_ready
        self._server = new_server(app, service.settings)
        self._ending = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        serving = asyncio.create_task(self._server.serve(sockets=[self._sock]))
        ending = asyncio.create_task(self._ending.wait())
        self._on_ready()
        await asyncio.wait((serving, ending), return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            await self._drain()
            self._server.should_exit = True
        ending.cancel()
        await serving
        await self._leave_a_stuck_engine()

    def _on_signal(self, number: int) -> None:
        if self._ending.is_set():
            os._exit(128 + number)
        self._service.is_draining = True
        self._ending.set()

    async def _drain(self) -> None:
        n_running = len(self._service.runs)
        if n_running:
            _log.info("draining: %d requests run, at most %g s", n_running, self._service.settings.drain_s)
        try:
            async with asyncio.timeout(self._service.settings.drain_s):
                await self._service.idle()
        except TimeoutError:
            self._service.abort_all()

    async def _leave_a_stuck_engine(self) -> None:
        """Wait for the engine's last step, but not for ever: every answer is out already."""
        farewell_s = self._service.settings.farewell_s
        try:
            async with asyncio.timeout(farewell_s):
                await self._service.idle()
        except TimeoutError:
            _log.error("the engine did not end its step within %g s: left behind", farewell_s)
            logging.shutdown()
            os._exit(0)


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals to us."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(_BACKLOG)  # again: asyncio has one number for this and for how many it takes at once


def new_server(app: App, settings: Settings) -> uvicorn.Server:
    """The app with all limits on its sockets; takes no signal, ends when `should_exit` is set."""
    return _Server(_config(app, settings))


def _config(app: App, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=partial(Connection, settings, connection_limit(settings)),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # anybody can write them
        server_header=False,
        timeout_keep_alive=int(settings.idle_timeout_s),
        timeout_graceful_shutdown=math.ceil(settings.farewell_s),
        backlog=accepted_at_once(),
    )


def _unavailable(host: str, port: int, error: OSError) -> PortUnavailable:
    if error.errno == errno.EADDRINUSE:
        owner = _listener(port)
        return PortUnavailable(
            host,
            port,
            f"{owner or 'another program'} has it",
            hint="stop that program, or give another port with -p",
        )
    if error.errno == errno.EACCES:
        return PortUnavailable(
            host, port, "only an administrator may open it", hint="give a port above 1023 with -p"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return PortUnavailable(host, port, "this machine does not have that address", hint="check --host")
    return PortUnavailable(host, port, error.strerror or "it can't be opened", hint="check --host and -p")


def _listener(port: int) -> str:
    """The program that listens on a port, as far as this user may see it."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return ""
    return ""
