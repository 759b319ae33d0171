"""Bytes over TCP or TLS, as many at once as have arrived.

TLS gives a record of 16 KiB a call, and OpenSSL asks the system twice for each.
Here the system is asked for all that has arrived, up to 256 KiB, and the records
are opened from memory: half of the work, and no byte of the body is copied on
its way into the reader's buffer.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

# Larger pieces fall out of the processor's cache before they are written: 64 KiB and 1 MiB were slower.
PIECE_BYTES = 256 << 10

# Says where the next bytes are to go: asked anew for each piece, which may be shorter than its room.
Room = Callable[[], memoryview]

# An extension of our responses: a function of a Room that gives the body as `Iterator[memoryview]`.
# A piece is good until the next is asked for; it lies in its room, unless it came with the head.
PIECES = "influence.pieces"


def one_room() -> Room:
    """The same room for every piece."""
    buffer = memoryview(bytearray(PIECE_BYTES))
    return lambda: buffer


class Wire(Protocol):
    """A connection, used by one thread at a time; all but `close` raise OSError, TimeoutError after silence."""

    def send(self, data: bytes, timeout_s: float | None) -> None: ...

    def receive_into(self, buffer: memoryview, timeout_s: float | None) -> int:
        """How many bytes came: waits for the first, not for more; 0 at the end."""
        ...

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for, as the end would be."""
        ...

    def close(self) -> None: ...


class PlainWire:
    """TCP alone: a hub on this machine."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, data: bytes, timeout_s: float | None) -> None:
        self._connection.settimeout(timeout_s)
        self._connection.sendall(data)

    def receive_into(self, buffer: memoryview, timeout_s: float | None) -> int:
        self._connection.settimeout(timeout_s)
        return self._connection.recv_into(buffer)

    @property
    def is_quiet(self) -> bool:
        return _is_quiet(self._connection)

    def close(self) -> None:
        self._connection.close()


class TlsWire:
    """TLS over a TCP connection, which it owns."""

    def __init__(
        self,
        connection: socket.socket,
        certificates: ssl.SSLContext,
        host: str,
        timeout_s: float | None,
    ) -> None:
        """Shakes hands; ssl.SSLCertVerificationError for a host that proves nothing. Then the connection is closed."""
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = certificates.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._arrived = memoryview(bytearray(PIECE_BYTES))  # still encrypted
        self._is_at_end = False
        self._connection.settimeout(timeout_s)
        try:
            self._shake_hands()
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes, timeout_s: float | None) -> None:
        self._connection.settimeout(timeout_s)
        self._tls.write(data)
        self._flush()

    def receive_into(self, buffer: memoryview, timeout_s: float | None) -> int:
        self._connection.settimeout(timeout_s)
        while not (n_bytes := self._opened_into(buffer)) and not self._is_at_end:
            self._arrive()
        return n_bytes

    @property
    def is_quiet(self) -> bool:
        return not self._tls.pending() and not self._incoming.pending and _is_quiet(self._connection)

    def close(self) -> None:
        self._connection.close()

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._arrive()
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # tell the host why, if it still listens
                    self._flush()
                raise
        self._flush()

    def _opened_into(self, buffer: memoryview) -> int:
        """How many bytes the records that have arrived hold, as far as the buffer reaches."""
        n_bytes = 0
        read = cast(Callable[[int, memoryview], int], self._tls.read)
        try:
            while n_bytes < len(buffer) and not self._is_at_end:
                n_more = read(len(buffer) - n_bytes, buffer[n_bytes:])
                n_bytes += n_more
                self._is_at_end = not n_more
        except ssl.SSLWantReadError:
            self._flush()  # an answer to a change of keys
        except ssl.SSLEOFError:
            self._is_at_end = True  # without a goodbye: whoever knows the length sees what is missing
        except ssl.SSLError:
            if not n_bytes:  # what was opened before is given first; the next call meets the error again
                raise
        return n_bytes

    def _arrive(self) -> None:
        """Wait for more, or for the end."""
        if n_bytes := self._connection.recv_into(self._arrived):
            self._incoming.write(self._arrived[:n_bytes])
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._connection.sendall(self._outgoing.read())


def _is_quiet(connection: socket.socket) -> bool:
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return not waiting.poll(0)
