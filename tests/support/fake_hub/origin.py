"""One listening address of the fake hub: a thread that accepts, and a thread for each connection."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

from support.fake_hub.wire import Cut, Reply, Request, end, read_request, send_reply


class Origin:
    """Listens from the start until `close`; every request is appended to `log` before it is answered."""

    def __init__(
        self,
        name: str,
        answer: Callable[[Request], Reply],
        log: list[Request],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._name, self._answer, self._log, self._tls = name, answer, log, tls
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.n_connections = 0
        self._start(self._accept)

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.n_connections += 1
            with self._lock:
                self._open.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        raw = connection
        how = "cut"
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._replace(raw, connection)
            while request := read_request(connection, self._name):
                self._log.append(request)
                send_reply(connection, request, self._answer(request), self._closing)
        except Cut as cut:
            how = cut.how
        except (OSError, ValueError):
            how = "closed"
        self._replace(connection, None)
        end(connection, how)

    def _replace(self, old: socket.socket, new: socket.socket | None) -> None:
        with self._lock:
            self._open.discard(old)
            if new:
                self._open.add(new)

    def drop_connections(self) -> None:
        """End every connection now, in the middle of whatever it carries."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            thread.join(timeout=5)
