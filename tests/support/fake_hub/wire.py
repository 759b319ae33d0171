"""HTTP/1.1 by hand: enough to serve files, and to break any promise in the middle of one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from support.fake_hub.content import Content, content_of
from support.fake_hub.modes import Mode

_MAX_HEAD_BYTES = 64 << 10
_CHUNK_BYTES = 256 << 10


class Cut(Exception):
    """The connection is to end here, in this way."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


@dataclass
class Request:
    """What was asked, and, once it was answered, what was sent."""

    origin: str  # "hub", "cdn", "plain" or "other"
    method: str
    path: str  # with the query
    headers: dict[str, str]  # lower-case names
    status: int = 0
    bytes_served: int = 0  # of the body
    is_file: bool = False  # whether the body is a file's

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    content: Content = field(default_factory=lambda: content_of(b""))
    begin: int = 0
    end: int | None = None  # of the content; None for all of it
    framing: str = "length"  # or "chunked"
    length_lie: int = 0  # added to the true Content-Length
    wire_modes: Sequence[Mode] = ()
    is_file: bool = False

    @property
    def stop(self) -> int:
        return self.content.size_bytes if self.end is None else self.end


def read_request(connection: socket.socket, origin: str) -> Request | None:
    """The next request of a connection, None at its end. Bodies are not for this server."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4096)
        if not piece or len(head) > _MAX_HEAD_BYTES:
            return None
        head += piece
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    pairs = [line.split(":", 1) for line in lines]
    return Request(origin, method, path, {name.lower(): value.strip() for name, value in pairs})


def send_reply(connection: socket.socket, request: Request, reply: Reply, closing: threading.Event) -> None:
    """Send it, counting into the request; Cut if a mode says so."""
    request.status, request.is_file = reply.status, reply.is_file
    connection.sendall(_head(reply))
    if request.method == "HEAD" or reply.status == 304:
        return
    send = _sender(connection, request, reply.framing == "chunked")
    for piece in _pieces(reply, closing):
        send(piece)
    if reply.framing == "chunked":
        connection.sendall(b"0\r\n\r\n")
    if reply.length_lie:
        raise Cut("cut")


def _head(reply: Reply) -> bytes:
    headers = list(reply.headers)
    if reply.framing == "chunked":
        headers.append(("Transfer-Encoding", "chunked"))
    else:
        headers.append(("Content-Length", str(reply.stop - reply.begin + reply.length_lie)))
    lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}", *(f"{k}: {v}" for k, v in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def _phrase(status: int) -> str:
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Unknown"


def _sender(connection: socket.socket, request: Request, chunked: bool) -> Callable[[bytes], None]:
    def send(piece: bytes) -> None:
        request.bytes_served += len(piece)  # before it is sent: who has it may look at once
        try:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        except OSError:
            request.bytes_served -= len(piece)
            raise

    return send


def _pieces(reply: Reply, closing: threading.Event) -> Iterator[bytes]:
    """The body as the wire modes leave it; Cut where one ends it."""
    modes = {mode.name: mode.options for mode in reply.wire_modes}
    ending = next((name for name in ("cut", "eof", "rst", "stall") if name in modes), "")
    stop = min(reply.stop, reply.begin + modes[ending]["at"]) if ending else reply.stop
    step = 1 if "dribble" in modes else _CHUNK_BYTES
    for begin in range(reply.begin, stop, step):
        piece = reply.content.read(begin, min(begin + step, stop))
        if "corrupt" in modes:
            piece = _corrupted(piece, modes["corrupt"]["at"] - begin)
        yield from _slowly(piece, modes["slow"]["bytes_per_s"]) if "slow" in modes else (piece,)
        if "dribble" in modes:
            closing.wait(modes["dribble"]["delay_s"])
    if ending == "stall":
        closing.wait()
    if ending:
        raise Cut(ending)


def _corrupted(piece: bytes, at: int) -> bytes:
    if not 0 <= at < len(piece):
        return piece
    return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]


def _slowly(piece: bytes, bytes_per_s: float) -> Iterator[bytes]:
    """The piece in slices, each sent when its time has come."""
    step = max(int(bytes_per_s / 50), 1)
    for begin in range(0, len(piece), step):
        yield piece[begin : begin + step]
        time.sleep(len(piece[begin : begin + step]) / bytes_per_s)


def end(connection: socket.socket, how: str) -> None:
    """Close as a mode says: "cut" in good order, "eof" without TLS' farewell, "rst" by a reset."""
    if how == "rst":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "cut" and isinstance(connection, ssl.SSLSocket):
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was shut down already
            connection.settimeout(0.5)
            connection.unwrap()
    with contextlib.suppress(OSError):
        if how == "eof":
            connection.shutdown(socket.SHUT_RDWR)
    connection.close()
