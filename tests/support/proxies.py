"""Proxies on this machine: HTTP CONNECT and SOCKS5, each with an optional name and password."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def connect_proxy(password: str = "") -> Iterator[tuple[str, list[str]]]:
    """(its host:port, what it was asked for); with a password, "user:password" must be given."""
    wanted = "Basic " + base64.b64encode(f"user:{password}".encode()).decode()
    asked: list[str] = []

    def serve(client: socket.socket) -> socket.socket | None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        lines = head.decode().split("\r\n")
        asked.append(lines[0])
        if password and f"proxy-authorization: {wanted}".lower() not in head.decode().lower():
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return None
        host, _, port = lines[0].split(" ")[1].rpartition(":")
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        return server

    with _listening(serve) as address:
        yield address, asked


@contextlib.contextmanager
def socks_proxy() -> Iterator[tuple[str, list[str]]]:
    """(its host:port, what it was asked for), RFC 1928 without a password."""
    asked: list[str] = []

    def serve(client: socket.socket) -> socket.socket:
        client.recv(2 + client.recv(2, socket.MSG_PEEK)[1])
        client.sendall(b"\x05\x00")
        _, _, _, kind = client.recv(4)
        host = socket.inet_ntoa(client.recv(4)) if kind == 1 else client.recv(client.recv(1)[0]).decode()
        port = int.from_bytes(client.recv(2), "big")
        asked.append(f"{host}:{port}")
        server = socket.create_connection((host, port))
        client.sendall(b"\x05\x00\x00\x01" + bytes(6))
        return server

    with _listening(serve) as address:
        yield address, asked


@contextlib.contextmanager
def _listening(serve: Callable[[socket.socket], socket.socket | None]) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    clients: list[socket.socket] = []

    def start(target: Callable[..., None], *args: object) -> None:
        threads.append(threading.Thread(target=target, args=args, daemon=True))
        threads[-1].start()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                start(tunnel, client)

    def tunnel(client: socket.socket) -> None:
        with contextlib.closing(client), contextlib.suppress(OSError):
            server = serve(client)
            if server:
                with contextlib.closing(server):
                    start(_pump, server, client)
                    _pump(client, server)

    start(accept)
    try:
        host, port = listener.getsockname()
        yield f"{host}:{port}"
    finally:
        for open_socket in (listener, *clients):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(timeout=5)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
