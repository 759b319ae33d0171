"""HTTP/1.1 without a proxy: connections that are used again, and bodies read into one buffer.

h11 writes every request and reads every head. A body whose length its head tells
comes straight from the wire to where its reader wants it; any other (chunked, or up
to the connection's end) goes through h11. Errors are httpx2's.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import h11
import httpx2

from influence.hub.wire import PIECE_BYTES, PIECES, PlainWire, Room, TlsWire, Wire, one_room

_KEPT_S = 15.0  # idle; hosts close after 5 to 75
_MAX_HEAD_BYTES = 100 << 10
_HEAD_READ_BYTES = 64 << 10

Origin = tuple[str, str, int]  # scheme, host, port
Connect = Callable[[str, int, float | None], socket.socket]


class DirectTransport(httpx2.BaseTransport):
    """Requests without a body, each over an idle connection of its origin or a new one; usable from several threads.

    `connect(host, port, timeout_s)` opens TCP connections.
    """

    def __init__(self, certificates: ssl.SSLContext, connect: Connect, most_idle: int) -> None:
        self._certificates, self._connect, self._most_idle = certificates, connect, most_idle
        certificates.set_alpn_protocols(["http/1.1"])
        self._idle: dict[Origin, list[tuple[Wire, float]]] = {}  # with when it became idle
        self._lock = threading.Lock()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        origin = _origin_of(request.url)
        wire = self._idle_wire(origin) or self._new_wire(origin, timeouts.get("connect"))
        exchange = _Exchange(wire, timeouts.get("read"), partial(self._keep, origin, wire))
        try:
            exchange.send(request, timeouts.get("write"))
            head = exchange.receive_head()
        except BaseException:
            wire.close()
            raise
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=exchange,
            extensions={PIECES: exchange.pieces, "reason_phrase": head.reason},
        )

    def close(self) -> None:
        """Close the idle connections; one at work is closed by who uses it."""
        with self._lock:
            idle, self._idle, self._most_idle = self._idle, {}, 0
        for wire, _ in (entry for wires in idle.values() for entry in wires):
            wire.close()

    def _idle_wire(self, origin: Origin) -> Wire | None:
        """The one used last: the others may expire."""
        while True:
            with self._lock:
                if not self._idle.get(origin):
                    return None
                wire, since = self._idle[origin].pop()
            if time.monotonic() - since < _KEPT_S and wire.is_quiet:
                return wire
            wire.close()

    def _new_wire(self, origin: Origin, timeout_s: float | None) -> Wire:
        scheme, host, port = origin
        with _httpx_errors(httpx2.ConnectError, httpx2.ConnectTimeout):
            connection = self._connect(host, port, timeout_s)
            if scheme == "https":
                return TlsWire(connection, self._certificates, host, timeout_s)
            return PlainWire(connection)

    def _keep(self, origin: Origin, wire: Wire) -> None:
        with self._lock:
            is_welcome = sum(map(len, self._idle.values())) < self._most_idle
            if is_welcome:
                self._idle.setdefault(origin, []).append((wire, time.monotonic()))
        if not is_welcome:
            wire.close()


class _Exchange(httpx2.SyncByteStream):
    """One request and its answer, over a wire that goes to `keep` when all of the body was read."""

    def __init__(self, wire: Wire, silence_s: float | None, keep: Callable[[], None]) -> None:
        self._wire, self._silence_s, self._keep = wire, silence_s, keep
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._n_left: int | None = None  # of a body whose length is known
        self._early = b""  # that came with the head
        self._may_be_kept = False
        self._is_closed = False

    def send(self, request: httpx2.Request, timeout_s: float | None) -> None:
        try:
            asked = h11.Request(
                method=request.method, target=request.url.raw_path, headers=request.headers.raw
            )
            data = (self._http.send(asked) or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise httpx2.LocalProtocolError(str(error)) from error
        # A host that refuses may close before it has read; its answer says why.
        with contextlib.suppress(httpx2.WriteError), _httpx_errors(httpx2.WriteError, httpx2.WriteTimeout):
            self._wire.send(data, timeout_s)

    def receive_head(self) -> h11.Response:
        while not isinstance(event := self._next_event(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise httpx2.RemoteProtocolError("Server disconnected without sending a response.")
        self._n_left = _length_of(event)
        if self._n_left is not None:
            self._early = self._http.trailing_data[0]
            self._may_be_kept = len(self._early) <= self._n_left and _allows_another(event)
        return event

    def __iter__(self) -> Iterator[bytes]:
        return map(bytes, self.pieces(one_room()))

    def pieces(self, room: Room) -> Iterator[memoryview]:
        """The body as it comes, as it was sent; see PIECES."""
        return self._by_h11() if self._n_left is None else self._by_length(room)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        is_whole = self._n_left is not None and self._n_left <= len(self._early)
        if self._may_be_kept and is_whole:
            self._keep()
        else:
            self._wire.close()

    def _by_length(self, room: Room) -> Iterator[memoryview]:
        assert self._n_left is not None
        early, self._early = memoryview(self._early)[: self._n_left], b""
        self._n_left -= len(early)
        if early:
            yield early
        while self._n_left:
            buffer = room()[: min(self._n_left, PIECE_BYTES)]
            n_bytes = self._receive_into(buffer)
            if not n_bytes:
                raise httpx2.RemoteProtocolError(
                    f"peer closed connection without sending complete message body ({self._n_left} bytes are missing)"
                )
            self._n_left -= n_bytes
            yield buffer[:n_bytes]

    def _by_h11(self) -> Iterator[memoryview]:
        while not isinstance(event := self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield memoryview(event.data)
        if self._http.their_state is h11.DONE and not self._http.trailing_data[0]:
            self._n_left, self._may_be_kept = 0, True

    def _next_event(self) -> Any:
        """h11's next one, which is none of NEED_DATA."""
        with _httpx_errors(httpx2.ReadError, httpx2.ReadTimeout):
            buffer = None
            while (event := self._http.next_event()) is h11.NEED_DATA:
                buffer = buffer or memoryview(bytearray(_HEAD_READ_BYTES))
                n_bytes = self._receive_into(buffer)
                if not n_bytes and self._http.their_state is h11.SEND_RESPONSE:
                    raise httpx2.RemoteProtocolError("Server disconnected without sending a response.")
                self._http.receive_data(bytes(buffer[:n_bytes]))
            return event

    def _receive_into(self, buffer: memoryview) -> int:
        with _httpx_errors(httpx2.ReadError, httpx2.ReadTimeout):
            return self._wire.receive_into(buffer, self._silence_s)


def _origin_of(url: httpx2.URL) -> Origin:
    if url.scheme not in ("http", "https"):
        raise httpx2.UnsupportedProtocol(f"Request URL has an unsupported protocol '{url.scheme}://'.")
    return url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)


def _length_of(head: h11.Response) -> int | None:
    """The body's length, None where its head does not tell; h11 has refused lengths that contradict each other."""
    headers = dict(head.headers)
    if head.status_code in (204, 304):
        return 0
    if b"transfer-encoding" in headers or b"content-length" not in headers:
        return None
    return int(headers[b"content-length"])


def _allows_another(head: h11.Response) -> bool:
    """Whether the connection stays open behind the answer (RFC 9112, 9.3)."""
    said = b",".join(value for name, value in head.headers if name == b"connection").lower()
    return head.http_version == b"1.1" and b"close" not in said


@contextlib.contextmanager
def _httpx_errors(
    failed: type[httpx2.TransportError], timed_out: type[httpx2.TransportError]
) -> Iterator[None]:
    """Within, errors of the system become `timed_out` or `failed`, those of h11 RemoteProtocolError."""
    try:
        yield
    except TimeoutError as error:
        raise timed_out(str(error)) from error
    except OSError as error:
        raise failed(str(error)) from error
    except h11.RemoteProtocolError as error:
        raise httpx2.RemoteProtocolError(str(error)) from error
