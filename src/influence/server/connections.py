"""What a socket may do: limits that apply before, between and after requests.

uvicorn's protocol on h11, with what it leaves open: a client that never ends
its headers, headers that are too many, a body that goes on after it was
refused, an answer that nobody reads, more connections than there are files.

    connected -> headers -> [app] -> answer -> idle -> headers ...
      header_timeout_s ^      linger_s ^    ^ idle_timeout_s
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import h11
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from influence.server import native_api
from influence.server.errors import refused
from influence.server.settings import Settings

# What may be read ahead of the request being answered; reading on is how a leaving client is seen.
_MAX_READ_AHEAD_BYTES = 64 << 10
# Probes of a peer that says nothing: one that lost its power is gone within 30 s.
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
_MAX_ACCEPTED_AT_ONCE = 128
_MESSAGES = {
    400: "this is not an HTTP request",
    408: "the headers took too long to arrive",
    431: "the headers are too large or too many",
    503: "too many connections",
}


class Connection(H11Protocol):
    """One client's socket."""

    def __init__(
        self,
        settings: Settings,
        max_connections: int,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings = settings
        self._max_connections = max_connections
        self._parser = self.conn = _Parser(settings)
        self._header_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._is_turned_away = False
        self._n_discarded = 0  # bytes of a refused body
        self._idle_since_s = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}
        _probe_silent_peer(transport.get_extra_info("socket"))
        self._is_turned_away = not self._has_room()
        self._watch()
        if len(self.connections) > 2 * self._max_connections:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_turned_away:  # only now: an answer before the question is lost with the connection
            self._refuse(503)
            return
        if self._linger_timer is not None:
            self._n_discarded += len(data)
            if self._n_discarded > self._settings.max_body_bytes:
                self.transport.abort()
                return
        super().data_received(data)
        if not self.transport.is_closing():
            self._watch()
            if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) < _MAX_READ_AHEAD_BYTES:
                self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        self._stop_linger_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._idle_since_s = self.loop.time()
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.their_state is h11.SEND_BODY:
            self._n_discarded = 0
            self._linger_timer = self.loop.call_later(self._settings.linger_s, self.transport.close)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; at once where its last answer was never read."""
        if self.transport.get_write_buffer_size() > 0:
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """The parser refused what came: say so if no answer has begun, and hang up."""
        self._refuse(self._parser.status)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        """Time the headers while they are awaited, and no longer an answered request's body once it ended."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_header_timer()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self._settings.header_timeout_s, self._refuse, 408)
        if self.conn.their_state is not h11.SEND_BODY:
            self._stop_linger_timer()

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_linger_timer(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def _has_room(self) -> bool:
        """Whether this connection may stay; the one that was idle for longest makes room for it."""
        if len(self.connections) <= self._max_connections:
            return True
        idle = [c for c in self.connections if isinstance(c, Connection) and c is not self and c.is_idle]
        if not idle:
            return False
        oldest = min(idle, key=lambda connection: connection._idle_since_s)
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True

    def _refuse(self, status: int) -> None:
        """Answer in place of the app, and hang up."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self.transport.is_closing():
            self.transport.write(_response(self.conn, status))
        self.transport.close()


class _Parser(h11.Connection):
    """h11's, with a limit on headers that came whole; `status` is what the last refusal means."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=settings.max_header_bytes)
        self._settings = settings
        self.status = 400

    def next_event(self) -> Any:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.status = error.error_status_hint
            raise
        if isinstance(event, h11.Request):
            self.status = 431 if self._is_too_large(event) else 400
            if self.status == 431 or _is_ambiguous(event):
                raise h11.RemoteProtocolError("a request that is not taken", error_status_hint=self.status)
        return event

    def _is_too_large(self, request: h11.Request) -> bool:
        headers = list(request.headers)
        n_bytes = len(request.target) + sum(len(name) + len(value) for name, value in headers)
        return len(headers) > self._settings.max_headers or n_bytes > self._settings.max_header_bytes


def _is_ambiguous(request: h11.Request) -> bool:
    """Whether another reader of the same bytes could see another request: two lengths, a foreign version."""
    names = {name for name, _ in request.headers}
    return {b"content-length", b"transfer-encoding"} <= names or request.http_version not in (b"1.0", b"1.1")


def _response(conn: h11.Connection, status: int) -> bytes:
    """A whole answer, the connection's last."""
    error = refused(status, _MESSAGES.get(status, _MESSAGES[400]))
    body = msgspec.json.encode(native_api.error_body(error, "-"))
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    response = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
    parts = [conn.send(response), conn.send(h11.Data(data=body)), conn.send(h11.EndOfMessage())]
    return b"".join(part for part in parts if part)


def _probe_silent_peer(sock: socket.socket | None) -> None:
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def connection_limit(settings: Settings) -> int:
    """The most connections: what is set, or half of the files this process may open."""
    return min(settings.max_connections, max(1, _n_files() // 2))


def accepted_at_once() -> int:
    """How many connections one turn of the loop may take: each has its file before it can be turned away."""
    return min(_MAX_ACCEPTED_AT_ONCE, max(1, _n_files() // 8))


def _n_files() -> int:
    """The files that this process may have open."""
    try:
        import resource
    except ImportError:  # no such limit on this system
        return sys.maxsize
    n_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return n_files if n_files >= 0 else sys.maxsize
