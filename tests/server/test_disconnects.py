"""Clients that leave, in every state: what they held is free within a step."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import cycle
from types import SimpleNamespace

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from influence.server import native_api
from influence.server.runs import Run
from influence.server.service import CompletionRequest, Service
from influence.server.settings import Settings
from influence.server.streaming import SSE, sse, streamed
from support.gated_engine import GatedEngine
from support.servers import is_free, listening, served_demo, until
from support.wire import connect, exchange, post, read_response, read_to_end, reset

N = int(os.environ.get("INFLUENCE_DISCONNECTS", "40"))  # of each kind, in each way
N_PLACES = 8
N_QUEUED = 20
LONG = {"prompt": "Tell me a story.", "max_tokens": 900, "ignore_eos": True}
PROMPT_IDS = {"prompt": [7] * 900, "max_tokens": 1}


class Bench:
    """A service whose engine works when the test says so."""

    def __init__(self, service: Service, engine: GatedEngine, port: int) -> None:
        self.service, self.engine, self.port = service, engine, port
        self.new_ids = cycle(range(10, 1000))  # first tokens of prompts that nobody has computed

    def send(self, path: str, body: object) -> socket.socket:
        sock = connect(self.port)
        sock.sendall(post(path, body))
        return sock

    def n_unfinished(self) -> int:
        return self.service.generator.facts().n_unfinished

    def n_generated(self) -> int:
        return self.service.generator.facts().loop.n_generated_tokens

    def answers(self) -> bool:
        request = post("/v1/generate", {"prompt": "Once", "max_tokens": 2})
        return exchange(self.port, request)[0] == 200


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    engines: list[GatedEngine] = []

    def wrap(engine: object) -> GatedEngine:
        engines.append(GatedEngine(engine))  # type: ignore[arg-type]
        return engines[0]

    with served_demo(wrap=wrap, max_running=N_PLACES) as service, listening(service) as port:  # type: ignore[arg-type]
        yield Bench(service, engines[0], port)


def streaming(bench: Bench) -> list[socket.socket]:
    """Clients whose reply has begun."""
    socks = [bench.send("/v1/generate_stream", LONG) for _ in range(N_PLACES)]
    assert all(sock.recv(1) for sock in socks)
    return socks


def waiting(bench: Bench) -> list[socket.socket]:
    """Clients whose reply is being written, and comes as a whole."""
    n_before = bench.n_generated()
    socks = [bench.send("/v1/generate", LONG) for _ in range(N_PLACES)]
    until(lambda: bench.n_unfinished() == N_PLACES and bench.n_generated() > n_before)
    return socks


def in_prefill(bench: Bench) -> list[socket.socket]:
    """Clients whose prompts, each another, are in the engine right now."""
    bench.engine.shut()
    prompts = [
        {**PROMPT_IDS, "prompt": [next(bench.new_ids), *PROMPT_IDS["prompt"]]} for _ in range(N_PLACES)
    ]
    socks = [bench.send("/v1/generate", prompt) for prompt in prompts]
    until(lambda: bench.n_unfinished() == N_PLACES)
    assert bench.engine.arrived.wait(20)
    return socks


def queued(bench: Bench) -> list[socket.socket]:
    """Clients behind as many as there are places, who leave with them."""
    running = waiting(bench)
    bench.engine.shut()
    assert bench.engine.arrived.wait(20)
    socks = [bench.send("/v1/generate", PROMPT_IDS) for _ in range(N_QUEUED)]
    until(lambda: bench.n_unfinished() == N_PLACES + N_QUEUED)
    return [*socks, *running]


@pytest.mark.parametrize("go", [socket.socket.close, reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("begin", [streaming, waiting, in_prefill, queued])
def test_whoever_leaves_frees_what_he_held(
    bench: Bench, begin: Callable[[Bench], list[socket.socket]], go: Callable[[socket.socket], None]
) -> None:
    n_left = 0
    while n_left < N:
        socks = begin(bench)
        for sock in socks:
            go(sock)
        until(lambda: all(run.is_cancelled for run in bench.service.runs))
        bench.engine.gate.set()
        until(lambda: is_free(bench.service))
        n_left += N_QUEUED if begin is queued else N_PLACES
    assert bench.answers()


def test_a_queued_request_whose_client_left_is_never_computed(bench: Bench) -> None:
    bench.engine.shut()
    running = [bench.send("/v1/generate", {**LONG, "max_tokens": 4}) for _ in range(N_PLACES)]
    assert bench.engine.arrived.wait(20)
    until(lambda: bench.n_unfinished() == N_PLACES)
    behind = [bench.send("/v1/generate", PROMPT_IDS) for _ in range(10)]
    until(lambda: bench.n_unfinished() == N_PLACES + 10)
    for sock in behind:
        sock.close()
    until(lambda: sum(run.is_cancelled for run in bench.service.runs) == 10)
    n_before = bench.engine.n_tokens
    bench.engine.gate.set()
    for sock in running:
        assert read_response(sock)[0] == 200
        sock.close()
    until(lambda: is_free(bench.service))
    assert bench.engine.n_tokens - n_before < 900


def test_a_client_that_leaves_stops_its_request_within_a_step(bench: Bench) -> None:
    sock = bench.send("/v1/generate_stream", LONG)
    assert sock.recv(1)
    bench.engine.shut()
    assert bench.engine.arrived.wait(20)
    sock.close()
    until(lambda: all(run.is_cancelled for run in bench.service.runs))
    n_before = bench.engine.n_tokens
    bench.engine.gate.set()
    until(lambda: is_free(bench.service))
    assert bench.engine.n_tokens - n_before <= 2  # the step at the gate, and perhaps one that had begun


def test_a_crowd_that_gives_up_leaves_the_server_ready(bench: Bench) -> None:
    bench.engine.shut()
    crowd = [bench.send("/v1/generate", LONG) for _ in range(200)]
    until(lambda: bench.n_unfinished() == 200)
    for sock in crowd:
        sock.close()
    bench.engine.gate.set()
    assert bench.answers()
    until(lambda: is_free(bench.service))


async def loud_frames(run: Run) -> AsyncIterator[bytes]:
    """So much for each event that no buffer on the way holds it all."""
    async for _ in run:
        yield sse(b"x" * 200_000)


async def loud(request: Request) -> Response:
    service: Service = request.scope["app"].service
    params = service.params({"max_tokens": 200, "ignore_eos": True})
    run = service.submit(CompletionRequest([5, 6], params))
    return streamed(request, run, loud_frames, SSE, lambda error: b"")


LOUD = SimpleNamespace(
    BODIES={}, routes=lambda service: [Route("/loud", loud)], error_body=native_api.error_body
)


def test_a_client_that_stops_reading_is_cut_off_and_others_go_on() -> None:
    settings = Settings(send_timeout_s=0.3)
    with served_demo(settings) as service, listening(service, (native_api, LOUD)) as port:
        deaf = [connect(port, receive_bytes=4096) for _ in range(4)]
        for sock in deaf:
            sock.sendall(b"GET /loud HTTP/1.1\r\nhost: localhost\r\n\r\n")
        until(lambda: len(service.runs) == 4)
        request = post("/v1/generate", {"prompt": "Once", "max_tokens": 8})
        assert exchange(port, request)[0] == 200
        until(lambda: b'path="/loud",status="499"} 4.0' in service.metrics.text())
        until(lambda: is_free(service))
        for sock in deaf:
            with sock:
                assert len(read_to_end(sock)) < 200 * 200_000
