"""Requests without a proxy: bodies of every framing, and which connections are used again."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import httpx2
import pytest

from influence.hub import direct
from influence.hub.direct import DirectTransport
from influence.hub.wire import PIECES, one_room
from support.fake_clock import FakeClock

KNOWN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\nabcde"


class Host:
    """Accepts connections, and has said on each, before it is asked, all that it will say."""

    def __init__(self, *says: bytes, hangs_up: bool = False) -> None:
        self._says, self._hangs_up = says, hangs_up
        self.far_ends: list[socket.socket] = []
        self.client = httpx2.Client(
            transport=DirectTransport(ssl.create_default_context(), self._connect, most_idle=2),
            timeout=httpx2.Timeout(5, read=0.05),
        )

    def _connect(self, host: str, port: int, timeout_s: float | None) -> socket.socket:
        near, far = socket.socketpair()
        self.far_ends.append(far)
        far.sendall(self._says[len(self.far_ends) - 1])
        if self._hangs_up:
            far.shutdown(socket.SHUT_WR)
        return near

    @contextlib.contextmanager
    def answer(self, url: str = "http://host/file") -> Iterator[httpx2.Response]:
        with contextlib.closing(
            self.client.send(self.client.build_request("GET", url), stream=True)
        ) as answer:
            yield answer

    def body(self) -> bytes:
        with self.answer() as answer:
            return b"".join(map(bytes, answer.extensions[PIECES](one_room())))

    def close(self) -> None:
        self.client.close()
        for far in self.far_ends:
            far.close()


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    hosts: list[Host] = []
    yield hosts
    for host in hosts:
        host.close()


@pytest.mark.parametrize("said", [KNOWN, CHUNKED])
def test_a_body_read_to_its_end_leaves_the_connection_for_the_next_request(
    said: bytes, hosts: list[Host]
) -> None:
    hosts.append(host := Host(said))
    assert host.body() == b"abcde"
    host.far_ends[0].sendall(KNOWN.replace(b"abcde", b"fghij"))
    with pytest.MonkeyPatch.context() as patch:  # the second answer is there before it is asked for
        patch.setattr(direct.PlainWire, "is_quiet", True)
        assert host.body() == b"fghij"
    assert len(host.far_ends) == 1
    assert host.far_ends[0].recv(4096).count(b"GET /file HTTP/1.1\r\n") == 2


@pytest.mark.parametrize(
    "said",
    [
        KNOWN.replace(b"OK\r\n", b"OK\r\nConnection: keep-alive, Close\r\n"),
        KNOWN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        KNOWN + b"more than was announced",
        CHUNKED + b"more",
    ],
)
def test_a_connection_that_can_not_go_on_is_not_used_again(said: bytes, hosts: list[Host]) -> None:
    hosts.append(host := Host(said, KNOWN))
    assert [host.body(), host.body()] == [b"abcde", b"abcde"]
    assert len(host.far_ends) == 2
    host.far_ends[0].recv(4096)
    assert host.far_ends[0].recv(4096) == b""


def test_a_body_that_is_left_unread_ends_its_connection(hosts: list[Host]) -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\nbegun"
    hosts.append(host := Host(long, KNOWN))
    with host.answer() as answer:
        assert bytes(next(answer.extensions[PIECES](one_room()))) == b"begun"
    assert host.body() == b"abcde"
    assert len(host.far_ends) == 2


def test_an_unread_body_that_has_come_with_its_head_does_not(hosts: list[Host]) -> None:
    hosts.append(host := Host(KNOWN))
    with host.answer():
        pass
    with contextlib.suppress(httpx2.ReadTimeout):
        host.body()
    assert len(host.far_ends) == 1


def test_a_connection_that_the_host_closed_while_idle_is_left(hosts: list[Host]) -> None:
    hosts.append(host := Host(KNOWN, KNOWN))
    host.body()
    host.far_ends[0].close()
    assert host.body() == b"abcde"
    assert len(host.far_ends) == 2


def test_a_connection_that_was_idle_for_long_is_left(
    hosts: list[Host], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct.time, "monotonic", clock.monotonic)
    hosts.append(host := Host(KNOWN, KNOWN))
    host.body()
    clock.now += 16
    assert host.body() == b"abcde"
    assert len(host.far_ends) == 2


def test_another_origin_has_its_own_connection(hosts: list[Host]) -> None:
    hosts.append(host := Host(KNOWN, KNOWN))
    host.body()
    with host.answer("http://host:81/file"):
        pass
    assert len(host.far_ends) == 2


def test_no_more_connections_stay_idle_than_allowed(hosts: list[Host]) -> None:
    hosts.append(host := Host(KNOWN, KNOWN, KNOWN))
    with host.answer(), host.answer(), host.answer():
        pass
    ended = [far for far in host.far_ends if far.recv(4096) and is_at_end(far)]
    assert len(ended) == 1


def is_at_end(far: socket.socket) -> bool:
    far.setblocking(False)
    try:
        return far.recv(1) == b""
    except BlockingIOError:
        return False


@pytest.mark.parametrize("said", [KNOWN[:-2], CHUNKED[:-9], UNFRAMED])
def test_silence_in_a_body_is_a_timeout(said: bytes, hosts: list[Host]) -> None:
    hosts.append(host := Host(said))
    with pytest.raises(httpx2.ReadTimeout):
        host.body()


@pytest.mark.parametrize("said", [KNOWN[:-2], CHUNKED[:-9], KNOWN[:20], b""])
def test_an_answer_that_is_cut_is_an_error_of_the_line(said: bytes, hosts: list[Host]) -> None:
    hosts.append(host := Host(said, hangs_up=True))
    with pytest.raises(httpx2.RemoteProtocolError):
        host.body()


@pytest.mark.parametrize(
    "said",
    [
        b"no http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        CHUNKED.replace(b"3\r\n", b"x\r\n"),
    ],
)
def test_what_is_no_http_is_an_error_of_the_line(said: bytes, hosts: list[Host]) -> None:
    hosts.append(host := Host(said))
    with pytest.raises(httpx2.RemoteProtocolError):
        host.body()


def test_a_word_before_the_answer_is_passed_over(hosts: list[Host]) -> None:
    hosts.append(host := Host(b"HTTP/1.1 103 Early Hints\r\nLink: </style>\r\n\r\n" + KNOWN))
    assert host.body() == b"abcde"


@pytest.mark.parametrize("said", [KNOWN, CHUNKED])
def test_whoever_knows_nothing_of_pieces_reads_the_same_body(said: bytes, hosts: list[Host]) -> None:
    hosts.append(host := Host(said))
    with host.answer() as answer:
        assert answer.read() == b"abcde"


def test_an_answer_without_a_body_leaves_its_connection(hosts: list[Host]) -> None:
    hosts.append(host := Host(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"))
    assert host.body() == b""
    with contextlib.suppress(httpx2.ReadTimeout):
        host.body()
    assert len(host.far_ends) == 1


def test_a_scheme_that_is_no_http_is_refused(hosts: list[Host]) -> None:
    hosts.append(host := Host())
    with pytest.raises(httpx2.UnsupportedProtocol):
        host.client.get("ftp://host/file")
