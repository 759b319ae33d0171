"""What a socket may do: slow, large, broken and many, by hand."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from influence.server import native_api
from influence.server.service import Service
from influence.server.settings import Settings
from support.servers import listening, served_demo, until
from support.wire import connect, exchange, is_closed, post, read_response

GET_HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
ASK = {"prompt": "Tell me a story.", "max_tokens": 8, "temperature": 0}
# Short enough for a test, long enough for a busy machine to answer an honest client.
HURRIED = Settings(
    header_timeout_s=0.4,
    body_timeout_s=0.4,
    idle_timeout_s=2,
    linger_s=0.4,
    max_connections=8,
    max_body_bytes=1 << 20,
)


@pytest.fixture(scope="module")
def port(service: Service) -> Iterator[int]:
    with listening(service) as port:
        yield port


@pytest.fixture(scope="module")
def hurried() -> Iterator[int]:
    with served_demo(HURRIED) as service, listening(service) as port:
        yield port


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: loc"], ids=["nothing", "a part"])
def test_headers_that_never_end_are_given_up(hurried: int, sent: bytes) -> None:
    with connect(hurried) as slow:
        slow.sendall(sent)
        assert exchange(hurried, GET_HEALTH, "GET")[0] == 200
        assert read_response(slow)[0] == 408
        assert is_closed(slow)


def test_a_slow_drip_does_not_buy_time(hurried: int) -> None:
    with connect(hurried) as slow:
        slow.settimeout(0.1)
        answer = b""
        for byte in b"GET /health HTTP/1.1\r\nx-" + b"a" * 100:
            try:
                slow.sendall(bytes([byte]))
                answer = slow.recv(100)
            except (TimeoutError, ConnectionError):
                continue
            break
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_never_ends_is_given_up(hurried: int) -> None:
    with connect(hurried) as slow:
        slow.sendall(post("/v1/generate", b'{"prompt": "a', "x-a: b").replace(b"length: 13", b"length: 100"))
        status, _, body = read_response(slow)
        assert (status, json.loads(body)["error"]["type"]) == (408, "invalid_request_error")
        assert is_closed(slow)


@pytest.mark.parametrize(
    "headers",
    [b"x: " + b"a" * 40_000, b"\r\n".join(b"x-%d: a" % i for i in range(120)), b"x: " + b"a" * 200_000],
    ids=["40 kB at once", "120 headers", "200 kB"],
)
def test_large_or_many_headers_are_refused(port: int, headers: bytes) -> None:
    with connect(port) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n\r\n")
        assert read_response(sock)[0] == 431
        assert is_closed(sock)


def test_an_honest_number_of_headers_is_taken(port: int) -> None:
    headers = b"\r\n".join(b"x-%d: %s" % (i, b"a" * 200) for i in range(90))
    assert (
        exchange(port, b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n\r\n", "GET")[0]
        == 200
    )


def test_a_large_body_is_refused_by_its_stated_length(hurried: int) -> None:
    with connect(hurried) as sock:
        sock.sendall(post("/v1/generate", b"", "x: y").replace(b"length: 0", b"length: 300000000"))
        status, _, body = read_response(sock)
        assert status == 413
        assert "1 MiB" in json.loads(body)["error"]["message"]
        assert is_closed(sock)


def test_a_large_body_in_chunks_is_refused_before_it_is_held(hurried: int) -> None:
    head = post("/v1/generate", b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    with connect(hurried) as sock:
        sock.sendall(head)
        n_sent = 0
        try:
            while n_sent < 300_000_000:
                sock.sendall(chunk)
                n_sent += 65536
        except ConnectionError:
            pass
        assert n_sent < 300_000_000


def test_a_refused_body_that_ends_leaves_the_connection_usable(hurried: int) -> None:
    body = b"a" * ((1 << 20) + 1)
    with connect(hurried) as sock:
        sock.sendall(post("/v1/generate", body))
        assert read_response(sock)[0] == 413
        sock.sendall(GET_HEALTH)
        assert read_response(sock, "GET")[0] == 200


BROKEN = {
    "length and chunks": b"POST /v1/generate HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "a negative length": b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    "another coding": b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    "a space in a name": b"GET / HTTP/1.1\r\nhost : localhost\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nhost: local\x00host\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.com\r\n\r\n",
    "a blank line": b"\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "a whole address": b"GET http://localhost/health HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a byte that is no ASCII": b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a carriage return": b"GET / HTTP/1.1\rhost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_sound_request_is_refused(port: int, case: str) -> None:
    with connect(port) as sock:
        sock.sendall(BROKEN[case])
        assert read_response(sock)[0] in (400, 501), case
    assert exchange(port, GET_HEALTH, "GET")[0] == 200


def test_a_bad_chunk_ends_the_connection_without_a_second_answer(port: int) -> None:
    head = post("/v1/generate", b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    with connect(port) as sock:
        sock.sendall(head + b"zz\r\n" + GET_HEALTH)
        assert read_response(sock)[0] == 400
        assert is_closed(sock)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "TRACE", "OPTIONS", "PATCH", "HEAD", "BREW"])
def test_another_method_hears_which_there_are(port: int, method: str) -> None:
    status, headers, body = exchange(
        port, f"{method} /v1/generate HTTP/1.1\r\nhost: localhost\r\n\r\n".encode(), method
    )
    assert (status, headers["allow"]) == (405, "POST")
    assert (body == b"") is (method == "HEAD")


def test_a_client_that_waits_for_leave_gets_it_or_a_refusal(hurried: int) -> None:
    request = post("/v1/generate", ASK, "expect: 100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    with connect(hurried) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        assert read_response(sock)[0] == 200
    with connect(hurried) as sock:
        sock.sendall(head.replace(b"application/json", b"text/plain") + b"\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 415 ")


def test_requests_sent_together_are_answered_in_order(port: int) -> None:
    bad = post("/v1/generate", b"{")
    with connect(port) as sock:
        sock.sendall(post("/v1/generate", ASK) + bad + GET_HEALTH)
        answers = [read_exactly_one(sock) for _ in range(3)]
    assert [status for status, _ in answers] == [200, 400, 200]
    assert json.loads(answers[2][1]) == {"status": "ok", "model": "demo"}


def read_exactly_one(sock: socket.socket) -> tuple[int, bytes]:
    """One answer with a stated length, and not a byte of the next."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += sock.recv(length - len(body))
    return int(head.split()[1]), body


async def delays(request: Request) -> Response:
    """Whether the stack of this connection holds small pieces back for more."""
    transport = request.scope["state"]["abort"].__self__
    option = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    return Response(b"no" if option else b"yes")


DELAYS = SimpleNamespace(
    BODIES={}, routes=lambda service: [Route("/delays", delays)], error_body=native_api.error_body
)


def test_small_answers_are_not_held_back_by_the_network_stack(service: Service) -> None:
    """Where Nagle's delay meets a delayed acknowledgement, each answer takes 40 ms."""
    with listening(service, (native_api, DELAYS)) as port:
        assert exchange(port, b"GET /delays HTTP/1.1\r\nhost: localhost\r\n\r\n", "GET")[2] == b"no"


def test_an_old_client_gets_a_stream_that_ends_by_closing(port: int) -> None:
    request = post("/v1/generate_stream", ASK).replace(b"HTTP/1.1", b"HTTP/1.0")
    with connect(port) as sock:
        sock.sendall(request)
        status, headers, body = read_response(sock)
    assert status == 200 and "transfer-encoding" not in headers
    assert b"event: done" in body


def test_idle_connections_make_room_for_a_new_one(hurried: int) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(hurried)) for _ in range(40)]
        for sock in idle[-4:]:
            sock.sendall(GET_HEALTH)
            assert read_response(sock, "GET")[0] == 200
        assert is_closed(idle[0])
        assert exchange(hurried, GET_HEALTH, "GET")[0] == 200


def test_an_idle_connection_is_closed_after_its_time(hurried: int) -> None:
    with connect(hurried) as sock:
        sock.sendall(GET_HEALTH)
        assert read_response(sock, "GET")[0] == 200
        assert is_closed(sock)


def test_where_all_are_busy_a_new_connection_is_told_so() -> None:
    with (
        served_demo(Settings(max_connections=2)) as service,
        listening(service) as port,
        ExitStack() as stack,
    ):
        busy = [stack.enter_context(connect(port)) for _ in range(2)]
        for sock in busy:
            sock.sendall(
                post("/v1/generate", b"", "expect: 100-continue").replace(b"length: 0", b"length: 9")
            )
            assert sock.recv(100).startswith(b"HTTP/1.1 100 ")  # its body is awaited
        assert exchange(port, GET_HEALTH, "GET")[0] == 503
        busy[0].close()
        until(lambda: exchange_or_none(port) == 200)


def exchange_or_none(port: int) -> int | None:
    try:
        return exchange(port, GET_HEALTH, "GET")[0]
    except OSError:
        return None
