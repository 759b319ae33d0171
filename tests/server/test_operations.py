"""What an operator relies on: health that is true, numbers that add up, failures that stay alone."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from influence.engines.base import Step
from influence.server.app import create_app
from influence.server.service import Service
from influence.server.settings import Settings
from support.gated_engine import GatedEngine
from support.servers import is_free, listening, served_demo, until
from support.sse import read_events
from support.wire import connect, exchange, post, read_response

ASK = {"prompt": "Tell me a story.", "max_tokens": 8, "temperature": 0}
GET_HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
PROMPT_TOKEN = 7


class Bench:
    """A service over a gated engine, on a socket: three places, and a queue of four."""

    def __init__(self, service: Service, engine: GatedEngine, port: int) -> None:
        self.service, self.engine, self.port = service, engine, port

    def ask(self, **body: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
        status, headers, content = exchange(self.port, post("/v1/generate", {**ASK, **body}))
        return status, headers, json.loads(content)

    def send(self, path: str = "/v1/generate", **body: Any) -> socket.socket:
        sock = connect(self.port)
        sock.sendall(post(path, {**ASK, **body}))
        return sock

    def n_unfinished(self) -> int:
        return self.service.generator.facts().n_unfinished


@pytest.fixture
def bench() -> Iterator[Bench]:
    engines: list[GatedEngine] = []

    def wrap(engine: Any) -> GatedEngine:
        engines.append(GatedEngine(engine))
        return engines[0]

    settings = Settings(watchdog_s=0.2)
    options = {"max_running": 3, "max_unfinished": 7}
    with served_demo(settings, wrap=wrap, **options) as service, listening(service) as port:
        yield Bench(service, engines[0], port)


def test_a_failing_engine_fails_that_request_with_an_id_and_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(steps: Sequence[Step]) -> None:
        raise RuntimeError("secret /path/of/ours at 0x7f00")

    bench.engine.before_forward = fail
    status, headers, body = bench.ask()
    assert (status, body["error"]["code"]) == (500, "engine_error")
    assert body["error"]["request_id"] == headers["x-request-id"]
    assert headers["x-should-retry"] == "false"
    assert "secret" not in json.dumps(body) and "0x" not in json.dumps(body)
    assert headers["x-request-id"] in caplog.text and "secret" in caplog.text
    bench.engine.before_forward = lambda steps: None
    assert bench.ask()[0] == 200
    until(lambda: is_free(bench.service))


def test_a_stream_whose_engine_fails_ends_with_the_error(bench: Bench) -> None:
    def fail_later(steps: Sequence[Step]) -> None:
        if bench.engine.n_tokens > n_before + 12:
            raise RuntimeError("secret")

    n_before = bench.engine.n_tokens
    bench.engine.before_forward = fail_later
    with bench.send("/v1/generate_stream", max_tokens=100, ignore_eos=True) as sock:
        status, _, content = read_response(sock)
    events = read_events(content)
    assert status == 200
    assert [name for name, _ in events].count("error") == 1
    assert events[-1][0] == "error" and json.loads(events[-1][1])["error"]["code"] == "engine_error"
    assert b"secret" not in content


def test_whoever_makes_the_batch_fail_fails_alone(bench: Bench) -> None:
    def fail_for_one(steps: Sequence[Step]) -> None:
        if any(list(step.token_ids)[:3] == [PROMPT_TOKEN] * 3 for step in steps):
            raise RuntimeError("this one")

    bench.engine.before_forward = fail_for_one
    bench.engine.shut()
    good = [bench.send(), bench.send()]
    bad = bench.send(prompt=[PROMPT_TOKEN] * 8)
    until(lambda: bench.n_unfinished() == 3)
    bench.engine.gate.set()
    assert [read_response(sock)[0] for sock in good] == [200, 200]
    assert read_response(bad)[0] == 500
    for sock in (*good, bad):
        sock.close()


def test_an_engine_that_hangs_shows_in_health_and_in_no_other_way(bench: Bench) -> None:
    assert exchange(bench.port, GET_HEALTH, "GET")[0] == 200
    bench.engine.shut()
    with bench.send() as stuck:
        until(lambda: exchange(bench.port, GET_HEALTH, "GET")[0] == 503)
        _, _, body = exchange(bench.port, GET_HEALTH, "GET")
        assert json.loads(body)["status"] == "stalled"
        live = exchange(bench.port, GET_HEALTH.replace(b"/health", b"/health/live"), "GET")
        assert live[0] == 200
        bench.engine.gate.set()
        assert read_response(stuck)[0] == 200
    assert exchange(bench.port, GET_HEALTH, "GET")[0] == 200


def test_more_than_the_queue_holds_is_told_to_come_back(bench: Bench) -> None:
    bench.engine.shut()
    taken = [bench.send() for _ in range(7)]
    until(lambda: bench.n_unfinished() == 7)
    for path, shape in (
        ("/v1/generate", lambda error: error["error"]["type"] == "server_busy"),
        ("/api/generate", lambda error: isinstance(error["error"], str)),
        ("/v1/messages", lambda error: error["error"]["type"] == "overloaded_error"),
        ("/v1/completions", lambda error: error["error"]["type"] == "rate_limit_error"),
    ):
        body = {**ASK, "model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
        status, headers, content = exchange(bench.port, post(path, body))
        assert status in (503, 529), path
        assert int(headers["retry-after"]) >= 1
        assert shape(json.loads(content)), path
    bench.engine.gate.set()
    for sock in taken:
        assert read_response(sock)[0] == 200
        sock.close()
    assert bench.ask()[0] == 200


def test_ten_times_the_capacity_gets_answers_or_busy_and_nothing_else(bench: Bench) -> None:
    crowd = [bench.send() for _ in range(70)]
    statuses = [read_response(sock)[0] for sock in crowd]
    for sock in crowd:
        sock.close()
    assert set(statuses) <= {200, 503} and statuses.count(200) >= 7
    until(lambda: is_free(bench.service))


def test_a_short_request_does_not_wait_for_a_long_prompt(bench: Bench) -> None:
    bench.engine.shut()
    long = bench.send(prompt=[5 + i for i in range(1000)], ignore_eos=True)
    until(lambda: bench.n_unfinished() == 1)
    short = bench.send(prompt=[5, 6, 7])
    until(lambda: bench.n_unfinished() == 2)
    bench.engine.gate.set()
    first_s = {}
    for name, sock in (("short", short), ("long", long)):
        with sock:
            first_s[name] = json.loads(read_response(sock)[2])["statistics"]["first_token_s"]
    assert first_s["short"] < first_s["long"]


def samples(client: TestClient) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_numbers_add_up_and_prometheus_reads_them() -> None:
    with served_demo() as service, TestClient(create_app(service), base_url="http://localhost") as client:
        for _ in range(3):
            client.post("/v1/generate", json={**ASK, "ignore_eos": True})
        client.post("/v1/generate", json={})
        for path in ("/a", "/b", "/v1/models/made-up-by-a-client"):
            client.get(path)
        client.request("BREW", "/c")
        found = samples(client)
    path = '"path": "/v1/generate", "status"'
    assert found[f'influence_requests_total{{"method": "POST", {path}: "200"}}'] == 3
    assert found[f'influence_requests_total{{"method": "POST", {path}: "400"}}'] == 1
    assert found['influence_requests_total{"method": "GET", "path": "other", "status": "404"}'] == 2
    assert found['influence_completions_total{"model": "demo", "reason": "length"}'] == 3
    assert found["influence_generated_tokens_total{}"] == 24
    assert 0 <= found["influence_accepted_tokens_total{}"] <= found["influence_drafted_tokens_total{}"]
    assert found["influence_requests_unfinished{}"] == 0
    assert not [name for name in found if "made-up" in name or "BREW" in name]


def test_the_description_has_every_route_and_every_body(service: Service, client: TestClient) -> None:
    app, document = create_app(service), client.get("/openapi.json").json()
    assert len(app.bodies) >= 10
    for route in app.routes:
        for method in set(route.methods or ()) - {"HEAD"}:
            operation = document["paths"][route.path.replace(":path}", "}")][method.lower()]
            assert operation["summary"]
            if (
                method == "POST" and route.path in app.bodies
            ):  # others take anything, to say that they are not there
                assert "$ref" in operation["requestBody"]["content"]["application/json"]["schema"]
    assert (
        "prompt"
        in document["components"]["schemas"]["influence.server.native_api.GenerateRequest"]["required"]
    )
