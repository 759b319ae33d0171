"""Bytes over TCP and TLS: all that has arrived, nothing that was not sent, and the end told from silence."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from influence.hub.wire import PIECE_BYTES, PlainWire, TlsWire, Wire
from support.fake_hub.certificates import authority_file, server_context

Far = socket.socket | ssl.SSLSocket
Pair = Callable[[str], tuple[Wire, Far]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Makes a wire of a kind ("plain", "tls") and its far end, a socket of the standard library."""
    with contextlib.ExitStack() as stack:

        def make(kind: str) -> tuple[Wire, Far]:
            here, there = socket.socketpair()
            stack.callback(here.close)
            stack.enter_context(there)
            there.settimeout(10)
            if kind == "plain":
                return PlainWire(here), there
            wire, far = shaken(here, there)
            stack.callback(wire.close)
            return wire, stack.enter_context(far)

        yield make


def shaken(
    here: socket.socket, there: socket.socket, certificate: str = "good"
) -> tuple[Wire, ssl.SSLSocket]:
    far: list[ssl.SSLSocket] = []
    shown = server_context(certificate)

    def serve() -> None:
        with contextlib.suppress(ssl.SSLError):
            far.append(shown.wrap_socket(there, server_side=True))

    server = threading.Thread(target=serve)
    server.start()
    try:
        trusted = ssl.create_default_context(cafile=str(authority_file()))
        wire = TlsWire(here, trusted, "localhost", 10)
    finally:
        server.join()
    return wire, far[0]


def received(wire: Wire, n_bytes: int) -> bytes:
    buffer = memoryview(bytearray(n_bytes))
    return bytes(buffer[: wire.receive_into(buffer, 10)])


KINDS = pytest.mark.parametrize("kind", ["plain", "tls"])


@KINDS
def test_all_that_has_arrived_comes_at_once_and_no_more_is_waited_for(kind: str, pair: Pair) -> None:
    wire, far = pair(kind)
    far.sendall(b"abc")
    far.sendall(b"def")
    assert received(wire, 100) == b"abcdef"


@KINDS
def test_what_does_not_fit_into_the_buffer_comes_with_the_next_call(kind: str, pair: Pair) -> None:
    wire, far = pair(kind)
    far.sendall(b"more than fits")
    assert [received(wire, 10), received(wire, 10)] == [b"more than ", b"fits"]


@KINDS
def test_megabytes_come_as_they_were_sent(kind: str, pair: Pair) -> None:
    wire, far = pair(kind)
    sent = bytes(range(251)) * 20_000
    sender = threading.Thread(target=far.sendall, args=(sent,))
    sender.start()
    came = bytearray()
    while len(came) < len(sent):
        came += received(wire, PIECE_BYTES)
    sender.join()
    assert came == sent


@KINDS
def test_what_is_sent_arrives(kind: str, pair: Pair) -> None:
    wire, far = pair(kind)
    wire.send(b"a question", 10)
    assert far.recv(100) == b"a question"


@KINDS
def test_silence_is_a_timeout_and_not_the_end(kind: str, pair: Pair) -> None:
    wire, _ = pair(kind)
    with pytest.raises(TimeoutError):
        wire.receive_into(memoryview(bytearray(10)), 0.01)


@KINDS
def test_a_connection_that_is_cut_gives_what_came_and_then_the_end(kind: str, pair: Pair) -> None:
    wire, far = pair(kind)
    far.sendall(b"half")
    far.close()
    assert [received(wire, 10), received(wire, 10), received(wire, 10)] == [b"half", b"", b""]


def test_a_goodbye_of_tls_is_the_end_though_the_connection_stays_open(pair: Pair) -> None:
    wire, far = pair("tls")
    assert isinstance(far, ssl.SSLSocket)
    far.sendall(b"all")
    far.setblocking(False)
    with contextlib.suppress(ssl.SSLWantReadError):
        far.unwrap()
    assert [received(wire, 10), received(wire, 10)] == [b"all", b""]


@KINDS
def test_a_wire_is_quiet_until_something_comes_unasked(kind: str, pair: Pair) -> None:
    wire, far = pair(kind)
    far.sendall(b"answer")
    assert received(wire, 6) == b"answer"
    assert wire.is_quiet
    far.sendall(b"?")
    assert not wire.is_quiet


@KINDS
def test_a_wire_whose_far_end_went_is_not_quiet(kind: str, pair: Pair) -> None:
    wire, far = pair(kind)
    far.close()
    assert not wire.is_quiet


def test_bytes_left_in_an_opened_record_are_not_forgotten_as_quiet(pair: Pair) -> None:
    wire, far = pair("tls")
    far.sendall(b"answer and more")
    assert received(wire, 6) == b"answer"
    assert not wire.is_quiet


def test_bytes_that_were_changed_on_their_way_are_refused() -> None:
    here, near_middle = socket.socketpair()
    far_middle, there = socket.socketpair()
    spoils = threading.Event()
    with here, near_middle, far_middle, there:
        carriers = [
            threading.Thread(target=carry, args=ends)
            for ends in ((near_middle, far_middle, threading.Event()), (far_middle, near_middle, spoils))
        ]
        for carrier in carriers:
            carrier.start()
        wire, far = shaken(here, there)
        far.sendall(b"good")
        assert received(wire, 10) == b"good"
        spoils.set()
        far.sendall(b"evil")
        with pytest.raises(ssl.SSLError):
            received(wire, 10)
        wire.close()
        far.close()
        for carrier in carriers:
            carrier.join()


def carry(source: socket.socket, target: socket.socket, spoils: threading.Event) -> None:
    """All bytes from one socket to the other, a bit of each packet turned where `spoils` is set."""
    with contextlib.suppress(OSError):
        while packet := bytearray(source.recv(1 << 16)):
            packet[-1] ^= spoils.is_set()
            target.sendall(packet)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("certificate", ["expired", "wronghost", "untrusted"])
def test_a_host_that_proves_nothing_gets_no_byte_of_ours(certificate: str) -> None:
    here, there = socket.socketpair()
    with here, there, pytest.raises(ssl.SSLCertVerificationError):
        shaken(here, there, certificate)


def test_a_host_that_hangs_up_while_shaking_hands_is_an_error() -> None:
    here, there = socket.socketpair()
    there.close()
    with here, pytest.raises(OSError, match=r"EOF|Broken pipe|reset"):
        TlsWire(here, ssl.create_default_context(), "localhost", 10)
