"""OpenAI's protocol read by hand: what a test sees is what came over the wire."""

from __future__ import annotations

import json
from typing import Any

from starlette.testclient import TestClient

from support.sse import read_events


def posted(client: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request that must succeed."""
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def chat(client: TestClient, **body: Any) -> dict[str, Any]:
    return posted(client, "/v1/chat/completions", body)


def stream_of(client: TestClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end with [DONE]."""
    response = client.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.content.endswith(b"\n\ndata: [DONE]\n\n")
    *events, _ = read_events(response.content)
    return [json.loads(data) for _, data in events]


def chunks(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    return stream_of(client, "/v1/chat/completions", body)


def content(found: list[dict[str, Any]], index: int = 0) -> str:
    """The text of one choice of a stream of chats."""
    choices = [choice for chunk in found for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def tool_calls(deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls of a choice put together as clients do: strings of one index are joined."""
    calls: dict[int, dict[str, Any]] = {}
    for piece in (piece for delta in deltas for piece in delta.get("tool_calls", ())):
        call = calls.setdefault(piece["index"], {"id": "", "function": {"name": "", "arguments": ""}})
        call["id"] += piece.get("id", "")
        for key in ("name", "arguments"):
            call["function"][key] += piece["function"].get(key, "")
    return list(calls.values())


def refusal(client: TestClient, path: str, body: dict[str, Any], status: int = 400) -> dict[str, Any]:
    """The error of a request that must be refused, in OpenAI's shape."""
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    return error
