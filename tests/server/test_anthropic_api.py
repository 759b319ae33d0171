"""Anthropic's protocol, end to end on the demo model and on one that calls tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from influence.server.app import create_app
from support.scripted import ScriptedEngine, scripted_service
from support.sse import read_events

PATH = "/v1/messages"
ASK = [{"role": "user", "content": "Tell me a story about a fox."}]
GREEDY: dict[str, Any] = {"model": "demo", "messages": ASK, "max_tokens": 12, "temperature": 0}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Oslo"]}},
        "required": ["city"],
    },
}


@pytest.fixture(scope="module")
def parrot() -> Iterator[tuple[TestClient, ScriptedEngine]]:
    with (
        scripted_service() as (service, engine),
        TestClient(create_app(service), base_url="http://localhost") as client,
    ):
        yield client, engine


def whole(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post(PATH, json={**GREEDY, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def events(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream; each is named twice, and the same."""
    response = client.post(PATH, json={**GREEDY, **body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for name, data in read_events(response.content):
        found.append(json.loads(data))
        assert found[-1]["type"] == name
    return found


def rebuilt(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client builds from events; fails where they come in another order than they may."""
    first, *middle, delta, last = found
    assert (first["type"], delta["type"], last["type"]) == ("message_start", "message_delta", "message_stop")
    message: dict[str, Any] = first["message"]
    assert message["content"] == []
    open_json: str | None = None
    is_open = False
    for event in middle:
        if event["type"] == "content_block_start":
            assert not is_open and event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
            is_open, open_json = True, "" if event["content_block"]["type"] == "tool_use" else None
            continue
        assert is_open and event["index"] == len(message["content"]) - 1
        block = message["content"][-1]
        if event["type"] == "content_block_stop":
            is_open = False
            if open_json is not None:
                block["input"] = json.loads(open_json)
        elif event["delta"]["type"] == "text_delta":
            block["text"] += event["delta"]["text"]
        else:
            assert open_json is not None
            open_json += event["delta"]["partial_json"]
    assert not is_open
    message["usage"] |= delta["usage"]
    return message | delta["delta"]


def comparable(message: dict[str, Any]) -> dict[str, Any]:
    """Without the ids, which are made anew each time."""
    blocks = [{key: value for key, value in block.items() if key != "id"} for block in message["content"]]
    return {**message, "id": "", "content": blocks}


def same(client: TestClient, **body: Any) -> dict[str, Any]:
    """The message, which must be the same streamed and whole."""
    message = whole(client, **body)
    assert comparable(rebuilt(events(client, **body))) == comparable(message)
    return message


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"temperature": 1.0, "top_k": 50, "top_p": 0.9, "stop_sequences": ["\n"]},
        {"stop_sequences": [" there"], "max_tokens": 60},
        {"system": "Be kind."},
        {"system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]},
        {"metadata": {"user_id": "u"}, "service_tier": "auto", "thinking": {"type": "disabled"}},
    ],
    ids=lambda body: "+".join(body) or "plain",
)
def test_a_message_is_the_same_streamed_and_whole_where_nothing_is_drawn(
    client: TestClient, body: dict[str, Any]
) -> None:
    message = same(client, **{**body, "temperature": 0})
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "demo")
    assert message["id"].startswith("msg_")
    assert message["usage"]["input_tokens"] > 0


def test_why_a_message_ended_is_said(client: TestClient) -> None:
    assert same(client)["stop_reason"] == "max_tokens"
    stopped = same(client, stop_sequences=[" time"])
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", " time")
    assert stopped["content"][0]["text"] == "Once upon a"
    ended = same(client, max_tokens=1000)
    assert (ended["stop_reason"], ended["stop_sequence"]) == ("end_turn", None)


def test_an_empty_answer_has_a_block(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    client, engine = parrot
    engine.say("")
    assert same(client, model="parrot")["content"] == [{"type": "text", "text": ""}]


def test_free_calls_are_blocks_after_the_text(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    client, engine = parrot
    engine.say(f"I will look.\n{CALL}\n{CALL.replace('Paris', 'Oslo')}")
    message = same(client, model="parrot", tools=[WEATHER], max_tokens=200)
    assert message["stop_reason"] == "tool_use"
    text, *calls = message["content"]
    assert text == {"type": "text", "text": "I will look."}
    assert [(call["name"], call["input"]["city"]) for call in calls] == [
        ("get_weather", "Paris"),
        ("get_weather", "Oslo"),
    ]
    assert len({call["id"] for call in calls}) == 2


@pytest.mark.parametrize(
    "choice", [{"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "get_weather"}]
)
def test_a_call_can_be_forced(client: TestClient, choice: dict[str, Any]) -> None:
    message = same(client, tools=[WEATHER], tool_choice=choice, max_tokens=300)
    assert message["stop_reason"] == "tool_use"
    (call,) = message["content"]
    assert call["input"]["city"] in ("Paris", "Oslo")


def test_a_schema_of_the_output_is_kept_to(client: TestClient) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"enum": [1, 2]}},
        "required": ["age"],
        "additionalProperties": False,
    }
    for wanted in (
        {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        {"output_format": {"type": "json_schema", "schema": schema}},
    ):
        text = same(client, **wanted, max_tokens=200)["content"][0]["text"]
        assert json.loads(text)["age"] in (1, 2)


def test_calls_and_results_of_before_reach_the_template(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    client, engine = parrot
    engine.say("Mild.")
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": [{"type": "text", "text": "15 degrees"}],
    }
    messages = [
        *ASK,
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Wait."}, call],
        },
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
    ]
    body = {"model": "parrot", "messages": messages, "tools": [WEATHER]}
    assert same(client, **body)["content"][0]["text"] == "Mild."
    applied = client.post(
        "/apply-template",
        json={
            "messages": [
                *ASK,
                {
                    "role": "assistant",
                    "content": "Wait.",
                    "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}],
                },
                {"role": "tool", "content": "15 degrees"},
                {"role": "user", "content": "And?"},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "get_weather",
                        "description": "The weather of a city.",
                        "parameters": WEATHER["input_schema"],
                    },
                }
            ],
        },
    ).json()
    counted = client.post("/v1/messages/count_tokens?beta=true", json=body).json()
    assert counted == {"input_tokens": len(applied["tokens"])}


def test_tokens_are_counted_as_a_message_uses_them(client: TestClient) -> None:
    body = {"model": "demo", "messages": ASK, "system": "Be kind."}
    counted = client.post("/v1/messages/count_tokens", json=body).json()["input_tokens"]
    assert counted == whole(client, system="Be kind.")["usage"]["input_tokens"]


IMAGE = {"type": "image", "source": {"type": "url", "url": "http://localhost/x.png"}}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages[0].role"),
        ({"messages": [*ASK, {"role": "assistant", "content": "Once"}]}, "last one"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "a", "content": [IMAGE]}],
                    }
                ]
            },
            "content[0].content[0]",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "text"),
        (
            {"messages": [*ASK, {"role": "assistant", "content": [{"type": "tool_use"}]}, *ASK]},
            "messages[1].content[0]",
        ),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1000}, "temperature"),
        ({"stop_sequences": [""]}, "stop"),
        ({"tools": [WEATHER]}, "template knows no tools"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({"tools": [WEATHER], "tool_choice": {"type": "often"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "no"}}, "tool_choice"),
        ({"mcp_servers": [{"url": "http://localhost"}]}, "mcp_servers"),
        ({"output_format": {"type": "xml"}}, "output_config.format"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_can_not_be_done_is_refused(client: TestClient, body: dict[str, Any], word: str) -> None:
    response = client.post(PATH, json={**GREEDY, **body})
    assert response.status_code == 400, response.text
    answer = response.json()
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    assert word in answer["error"]["message"]
    assert answer["request_id"] == response.headers["x-request-id"]


def test_another_model_is_not_found(client: TestClient) -> None:
    response = client.post(PATH, json={**GREEDY, "model": "claude"})
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"


def test_its_clients_get_the_list_of_models_in_their_shape(client: TestClient) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    models = client.get("/v1/models", headers=headers).json()
    assert [model["id"] for model in models["data"]] == ["demo", "storyteller"]
    assert models["has_more"] is False
    assert client.get("/v1/models/demo", headers=headers).json()["type"] == "model"


def test_a_server_that_ends_is_overloaded_to_its_clients() -> None:
    with (
        scripted_service() as (service, _),
        TestClient(create_app(service), base_url="http://localhost") as client,
    ):
        service.is_draining = True
        response = client.post(PATH, json={**GREEDY, "model": "parrot"})
    assert response.status_code == 529
    assert response.json()["error"]["type"] == "overloaded_error"
    assert int(response.headers["retry-after"]) >= 1
