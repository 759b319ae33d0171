"""Our own protocol, end to end on the demo model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from support.sse import read_events

PROMPT = {"prompt": "Tell me a story about a fox.", "max_tokens": 24, "temperature": 0}


def generated(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/generate", json={**PROMPT, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def streamed(client: TestClient, **body: Any) -> list[tuple[str, Any]]:
    response = client.post("/v1/generate_stream", json={**PROMPT, **body})
    assert response.status_code == 200, response.text
    return [(name, json.loads(data)) for name, data in read_events(response.content)]


def test_a_prompt_gets_its_text_reason_and_usage(client: TestClient) -> None:
    answer = generated(client)
    assert answer["text"]
    assert answer["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 24
    assert usage["total_tokens"] == usage["prompt_tokens"] + 24


@pytest.mark.parametrize("body", [{}, {"temperature": 1.1, "seed": 7}, {"stop": [" the"]}, {"raw": True}])
def test_the_pieces_of_a_stream_are_the_text_of_a_whole_answer(
    client: TestClient, body: dict[str, Any]
) -> None:
    whole = generated(client, **body)
    *tokens, (last, end) = streamed(client, **body)
    assert {name for name, _ in tokens} <= {"token"}
    assert "".join(text for _, text in tokens) == whole["text"]
    assert last == "done"
    assert (end["finish_reason"], end["stop_string"]) == (whole["finish_reason"], whole["stop_string"])
    assert end["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_a_text_can_be_held_to_a_schema_or_a_pattern(client: TestClient) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["age"],
        "additionalProperties": False,
    }
    told = json.loads(generated(client, json_schema=schema, max_tokens=60)["text"])
    assert isinstance(told["age"], int)
    assert generated(client, regex="(yes|no)")["text"] in ("yes", "no")
    both = client.post("/v1/generate", json={**PROMPT, "regex": "a", "json_schema": schema})
    assert both.status_code == 400


def test_token_ids_are_taken_as_a_prompt(client: TestClient) -> None:
    ids = client.post("/tokenize", json={"prompt": "Once upon a time"}).json()["tokens"]
    assert (
        generated(client, prompt=ids)["text"]
        == generated(client, prompt="Once upon a time", raw=True)["text"]
    )


def test_tokens_come_back_as_the_text_they_were(client: TestClient) -> None:
    text = "Once upon a time, a fox said: “hello”."
    ids = client.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    assert client.post("/detokenize", json={"tokens": ids}).json() == {"prompt": text}


def test_a_template_is_applied_as_generation_applies_it(client: TestClient) -> None:
    messages = [{"role": "user", "content": PROMPT["prompt"]}]
    applied = client.post("/apply-template", json={"messages": messages}).json()
    assert PROMPT["prompt"] in applied["prompt"]
    assert client.post("/tokenize", json={"messages": messages}).json()["tokens"] == applied["tokens"]
    assert generated(client, prompt=applied["tokens"])["text"] == generated(client)["text"]


def test_tokenizer_info_has_what_a_scorer_asks_for(client: TestClient) -> None:
    assert set(client.get("/tokenizer_info").json()) == {
        "eos_token",
        "bos_token",
        "pad_token",
        "chat_template",
    }
