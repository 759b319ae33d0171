"""A stream that can't go on ends with its protocol's own error, never as if it were whole."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from influence.server.app import create_app
from influence.server.service import Service
from support.scripted import ScriptedEngine, scripted_service
from support.sse import read_events

ASK = [{"role": "user", "content": "hi"}]
BODY: dict[str, Any] = {"model": "parrot", "messages": ASK, "prompt": "hi", "max_tokens": 50, "stream": True}
STREAMS = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/api/chat", "/api/generate"]


@pytest.fixture
def parrot() -> Iterator[tuple[TestClient, Service, ScriptedEngine]]:
    with (
        scripted_service() as (service, engine),
        TestClient(create_app(service), base_url="http://localhost", raise_server_exceptions=False) as client,
    ):
        engine.say("one two three four five six seven eight nine ten")
        yield client, service, engine


def last_of(path: str, content: bytes) -> tuple[str, dict[str, Any]]:
    """(event's name, its data) of the last thing that a stream says; text must have come before."""
    if path.startswith("/api/"):
        *before, last = [json.loads(line) for line in content.splitlines()]
        found = ("", last)
    else:
        *before, (name, data) = read_events(content)
        found = (name, json.loads(data))
    assert before, "the status was sent before the failure"
    return found


def check_error(path: str, content: bytes, word: str) -> None:
    name, told = last_of(path, content)
    error = told["error"]
    assert b"[DONE]" not in content
    assert word in (error if path.startswith("/api/") else error["message"])
    if path == "/v1/messages":
        assert name == told["type"] == "error"
    elif path.startswith("/v1/"):
        assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", STREAMS)
def test_an_engine_that_fails_ends_the_stream_with_an_error(
    parrot: tuple[TestClient, Service, ScriptedEngine], path: str
) -> None:
    client, _, engine = parrot

    def fail_at_the_fifth(steps: object) -> None:
        if len(engine.batches) >= 5:
            raise RuntimeError("/secret/path at 0x7f00")

    engine.before_forward = fail_at_the_fifth
    response = client.post(path, json=BODY)
    assert response.status_code == 200
    check_error(path, response.content, "running the model failed")
    assert "secret" not in response.text


@pytest.mark.parametrize("path", STREAMS)
def test_a_server_that_ends_tells_its_streams(
    parrot: tuple[TestClient, Service, ScriptedEngine], path: str
) -> None:
    client, service, engine = parrot
    told = threading.Event()

    def end_at_the_fifth(steps: object) -> None:
        if len(engine.batches) == 5 and not told.is_set():
            assert service._mailbox is not None
            service._mailbox.loop.call_soon_threadsafe(end)
            assert told.wait(20)

    def end() -> None:
        service.abort_all()
        told.set()

    engine.before_forward = end_at_the_fifth
    engine.say("word " * 100)
    check_error(path, client.post(path, json={**BODY, "max_tokens": 400}).content, "shutting down")


@pytest.mark.parametrize("path", STREAMS)
def test_an_answer_that_is_not_streamed_fails_with_a_status(
    parrot: tuple[TestClient, Service, ScriptedEngine], path: str
) -> None:
    client, _, engine = parrot

    def fail(steps: object) -> None:
        raise RuntimeError("/secret/path at 0x7f00")

    engine.before_forward = fail
    response = client.post(path, json={**BODY, "stream": False})
    assert response.status_code == 500
    assert response.headers["x-should-retry"] == "false"
    assert "secret" not in response.text
