"""Calls that a model makes of its own accord, and how they come and go through OpenAI's protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from influence.server import tool_use
from influence.server.app import create_app
from influence.text.tool_formats import HERMES
from support.openai_wire import chat, chunks, tool_calls
from support.scripted import ScriptedEngine, scripted_service

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.fixture(scope="module")
def parrot() -> Iterator[tuple[TestClient, ScriptedEngine]]:
    with (
        scripted_service() as (service, engine),
        TestClient(create_app(service), base_url="http://localhost") as client,
    ):
        yield client, engine


def replied(parrot: tuple[TestClient, ScriptedEngine], text: str, **body: Any) -> dict[str, Any]:
    """The choice that the client gets when the model says `text`, the same streamed and not."""
    client, engine = parrot
    engine.say(text)
    body = {"messages": ASK, "tools": [WEATHER], "max_tokens": 200, **body}
    whole: dict[str, Any] = chat(client, **body)["choices"][0]
    streamed = chunks(client, **body)
    pieces = [chunk["choices"][0]["delta"] for chunk in streamed]
    assert "".join(piece.get("content") or "" for piece in pieces) == (whole["message"]["content"] or "")
    assert [call["function"] for call in tool_calls(pieces)] == [
        call["function"] for call in whole["message"].get("tool_calls", [])
    ]
    assert streamed[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert streamed[-1]["choices"][0]["delta"] == {}
    return whole


def test_a_call_in_the_models_own_words_is_a_call_for_the_client(
    parrot: tuple[TestClient, ScriptedEngine],
) -> None:
    choice = replied(parrot, CALL)
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


def test_text_before_a_call_is_content(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    choice = replied(parrot, f"I will look.\n{CALL}")
    assert choice["message"]["content"] == "I will look."
    assert len(choice["message"]["tool_calls"]) == 1


def test_several_calls_have_ids_of_their_own(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    choice = replied(parrot, f"{CALL}\n{CALL.replace('Paris', 'Oslo')}")
    calls = choice["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"])["city"] for call in calls] == ["Paris", "Oslo"]
    assert len({call["id"] for call in calls}) == 2


def test_one_call_at_most_where_parallel_calls_are_off(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    choice = replied(parrot, f"{CALL}\n{CALL}", parallel_tool_calls=False)
    assert len(choice["message"]["tool_calls"]) == 1


@pytest.mark.parametrize("text", ["It is sunny.", "<tool_call>\nsunny\n</tool_call>", "1 < 2 <tool"])
def test_what_is_no_call_is_text(parrot: tuple[TestClient, ScriptedEngine], text: str) -> None:
    choice = replied(parrot, text)
    assert choice["message"]["content"] == text
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]


def test_a_call_that_the_token_limit_cut_is_text_and_says_length(
    parrot: tuple[TestClient, ScriptedEngine],
) -> None:
    choice = replied(parrot, CALL, max_tokens=12)
    assert choice["finish_reason"] == "length"
    assert CALL.startswith(choice["message"]["content"])


def test_calls_are_not_looked_for_where_the_choice_is_none(
    parrot: tuple[TestClient, ScriptedEngine],
) -> None:
    assert replied(parrot, CALL, tool_choice="none")["message"]["content"] == CALL


def test_a_call_between_special_tokens_is_seen(
    parrot: tuple[TestClient, ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = replace(HERMES, openings=("<|system|>",), closings=("<|user|>",))
    monkeypatch.setattr(tool_use, "tool_format", lambda source: marked)
    choice = replied(parrot, '<|system|>{"name": "get_weather", "arguments": {"city": "Oslo"}}<|user|>')
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["get_weather"]
    assert replied(parrot, "a<|system|>b", tools=None)["message"]["content"] == "ab"


def test_forced_calls_are_those_of_the_models_own_words(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    choice = replied(parrot, f"{CALL}\n{CALL.replace('Paris', 'Oslo')}", tool_choice="required")
    assert choice["finish_reason"] == "tool_calls"
    calls = [json.loads(call["function"]["arguments"]) for call in choice["message"]["tool_calls"]]
    assert calls == [{"city": "Paris"}, {"city": "Oslo"}]


def test_a_forced_call_is_made_whatever_the_model_would_rather_say(
    parrot: tuple[TestClient, ScriptedEngine],
) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"properties": {"n": {"enum": [7]}}, "required": ["n"]}}}  # fmt: skip
    choice = replied(parrot, "I would rather not.", tools=[tool], tool_choice=named)
    (call,) = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"n": 7}


def test_a_schema_that_no_forced_call_can_follow_is_refused_with_its_place(
    parrot: tuple[TestClient, ScriptedEngine],
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"not": {}}}}}}
    response = parrot[0].post(
        "/v1/chat/completions", json={"messages": ASK, "tools": [tool], "tool_choice": "required"}
    )
    assert response.status_code == 400
    assert "tools/f/parameters/properties/a/not" in response.json()["error"]["message"]


def test_a_forced_list_of_calls_by_a_model_that_knows_no_tools_is_as_many_calls(
    parrot: tuple[TestClient, ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_use, "tool_format", lambda source: None)
    one = '{"name": "get_weather", "arguments": {"city": "a\\"}]"}}'
    choice = replied(parrot, f"[{one},{one}]", tool_choice="required")
    assert choice["finish_reason"] == "tool_calls"
    calls = [call["function"]["arguments"] for call in choice["message"]["tool_calls"]]
    assert [json.loads(arguments) for arguments in calls] == [{"city": 'a"}]'}] * 2


def test_a_streamed_call_names_itself_once_and_with_its_index(
    parrot: tuple[TestClient, ScriptedEngine],
) -> None:
    client, engine = parrot
    engine.say(CALL)
    found = chunks(client, messages=ASK, tools=[WEATHER], max_tokens=200)
    deltas = [call for chunk in found for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [call["index"] for call in deltas] == [0] * len(deltas)
    assert sum("id" in call for call in deltas) == 1
    assert all(isinstance(call["function"]["arguments"], str) for call in deltas)


def test_calls_and_answers_of_before_reach_the_template(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    client, engine = parrot
    engine.say("Mild.")
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    messages = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "15 degrees"},
    ]
    usage = chat(client, messages=messages, tools=[WEATHER])["usage"]
    expected = client.post(
        "/apply-template",
        json={
            "messages": [
                *ASK,
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}],
                },
                {"role": "tool", "content": "15 degrees"},
            ],
            "tools": [WEATHER],
        },
    ).json()
    assert "<tool_response>\n15 degrees" in expected["prompt"]
    assert usage["prompt_tokens"] == len(expected["tokens"])


def test_a_model_without_tools_says_so_instead_of_never_calling(client: TestClient) -> None:
    response = client.post("/v1/chat/completions", json={"messages": ASK, "tools": [WEATHER]})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "tools_not_supported"
