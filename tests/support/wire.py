"""HTTP by hand, over a socket: what a client library would never send."""

from __future__ import annotations

import json
import socket
import struct
from http.client import HTTPResponse
from typing import Any

TIMEOUT_S = 20


def connect(port: int, *, receive_bytes: int | None = None) -> socket.socket:
    sock = socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.settimeout(TIMEOUT_S)
    sock.connect(("127.0.0.1", port))
    return sock


def post(path: str, body: Any, *headers: str) -> bytes:
    """A request as bytes; `body` is JSON unless it is bytes already."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(content)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def read_response(sock: socket.socket, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body."""
    response = HTTPResponse(sock, method=method)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    with response:
        return response.status, headers, response.read()


def exchange(port: int, request: bytes, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own."""
    with connect(port) as sock:
        sock.sendall(request)
        return read_response(sock, method)


def read_to_end(sock: socket.socket) -> bytes:
    """All that still comes, until the other side hangs up."""
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def is_closed(sock: socket.socket) -> bool:
    """Whether the other side hung up, nothing more being sent; waits for either."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
