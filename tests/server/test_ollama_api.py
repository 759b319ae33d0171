"""Ollama's protocol, end to end on the demo model and on one that calls tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

from influence.generation.params import GenerationParams
from influence.server.app import create_app
from support.generators import Gate
from support.scripted import ScriptedEngine, scripted_service

ASK = [{"role": "user", "content": "Tell me a story about a fox."}]
GREEDY: dict[str, Any] = {"model": "demo", "options": {"temperature": 0, "num_predict": 12}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


@pytest.fixture(scope="module")
def parrot() -> Iterator[tuple[TestClient, ScriptedEngine]]:
    with (
        scripted_service() as (service, engine),
        TestClient(create_app(service), base_url="http://localhost") as client,
    ):
        yield client, engine


def whole(client: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post(path, json={**body, "stream": False})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def lines(client: TestClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a stream, one a line and no line empty, which is what their clients split it by."""
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/x-ndjson")
    assert response.content.endswith(b"\n")
    return [json.loads(line) for line in response.content[:-1].split(b"\n")]


def refusal(client: TestClient, path: str, body: dict[str, Any], status: int = 400) -> str:
    """The error of a request that must be refused: a string, as their clients take it."""
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error: str = response.json()["error"]
    assert isinstance(error, str) and error
    return error


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.2, "seed": 7, "top_k": 40, "top_p": 0.9, "min_p": 0.01},
        {"stop": [" there"], "num_predict": 40},
        {"repeat_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.1},
        {"num_ctx": 512, "num_thread": 1, "num_keep": 3, "mirostat": 0},
    ],
    ids=lambda options: "+".join(options) or "plain",
)
@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/generate", {"prompt": "Hello"}), ("/api/chat", {"messages": ASK})],
    ids=["generate", "chat"],
)
def test_a_stream_says_the_same_as_a_whole_answer(
    client: TestClient, path: str, body: dict[str, Any], options: dict[str, Any]
) -> None:
    body = {**GREEDY, **body, "options": {**GREEDY["options"], **options}}
    answer, found = whole(client, path, body), lines(client, path, body)

    def said(piece: dict[str, Any]) -> str:
        text: str = piece["response"] if path == "/api/generate" else piece["message"]["content"]
        return text

    assert "".join(said(piece) for piece in found) == said(answer)
    assert [piece["done"] for piece in found] == [False] * (len(found) - 1) + [True]
    for name in ("done_reason", "prompt_eval_count", "eval_count", "context"):
        assert found[-1].get(name) == answer.get(name)


def test_the_last_object_has_counts_and_whole_nanoseconds(client: TestClient) -> None:
    answer = whole(client, "/api/generate", {**GREEDY, "prompt": "Hello"})
    assert answer["done"] is True
    assert answer["done_reason"] in ("stop", "length")
    assert all(type(answer[name]) is int for name in DURATIONS)
    assert answer["total_duration"] >= answer["eval_duration"] > 0
    assert answer["eval_count"] <= 12
    datetime.fromisoformat(answer["created_at"])


def test_a_context_goes_on_where_an_answer_ended(client: TestClient) -> None:
    first = whole(client, "/api/generate", {**GREEDY, "prompt": "Once upon a time", "raw": True})
    more = {**GREEDY, "prompt": " fox", "raw": True, "context": first["context"]}
    second = whole(client, "/api/generate", more)
    assert second["context"][: len(first["context"])] == first["context"]
    assert second["prompt_eval_count"] > len(first["context"])


def test_raw_leaves_the_template_out_and_system_goes_into_it(client: TestClient) -> None:
    body = {**GREEDY, "prompt": "Once upon a time"}
    counts = [
        whole(client, "/api/generate", {**body, **more})["prompt_eval_count"]
        for more in ({"raw": True}, {}, {"system": "Be kind."})
    ]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {}),
        ("/api/generate", {"prompt": ""}),
        ("/api/chat", {"messages": []}),
        ("/api/chat", {}),
    ],
)
def test_an_empty_request_is_how_a_model_is_loaded(
    client: TestClient, path: str, body: dict[str, Any]
) -> None:
    (answer,) = lines(client, path, {"model": "demo", "keep_alive": "5m", **body})
    assert (answer["done"], answer["done_reason"]) == (True, "load")


@pytest.mark.parametrize(
    "wanted",
    [
        "json",
        {
            "type": "object",
            "properties": {"age": {"enum": [1, 2]}},
            "required": ["age"],
            "additionalProperties": False,
        },
    ],
)
def test_a_format_is_kept_to(client: TestClient, wanted: Any) -> None:
    body = {"model": "demo", "messages": ASK, "format": wanted, "options": {"seed": 4, "num_predict": 900}}
    answer = whole(client, "/api/chat", body)
    if answer["done_reason"] == "stop":
        made = json.loads(answer["message"]["content"])
        assert isinstance(made, dict)
        assert wanted == "json" or made["age"] in (1, 2)
    else:
        assert wanted == "json", "the schema's objects are short"
        assert answer["message"]["content"].startswith("{")


def test_logprobs_come_if_they_are_asked_for(client: TestClient) -> None:
    body = {**GREEDY, "messages": ASK, "logprobs": True, "top_logprobs": 2}
    answer = whole(client, "/api/chat", body)
    assert "".join(entry["token"] for entry in answer["logprobs"]) == answer["message"]["content"]
    assert {len(entry["top_logprobs"]) for entry in answer["logprobs"]} == {2}
    streamed = [entry for piece in lines(client, "/api/chat", body) for entry in piece.get("logprobs", ())]
    assert streamed == answer["logprobs"]


def test_a_call_has_its_arguments_as_an_object(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    client, engine = parrot
    engine.say(f"Wait.\n{CALL}\n{CALL.replace('Paris', 'Oslo')}")
    body = {"model": "parrot", "messages": ASK, "tools": [WEATHER]}
    answer = whole(client, "/api/chat", body)["message"]
    assert answer["content"] == "Wait."
    calls = [call["function"] for call in answer["tool_calls"]]
    assert [(call["name"], call["arguments"]) for call in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_weather", {"city": "Oslo"}),
    ]
    streamed = [
        call["function"]
        for piece in lines(client, "/api/chat", body)
        for call in piece["message"].get("tool_calls", ())
    ]
    assert streamed == calls


def test_a_tools_answer_reaches_the_template(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    client, engine = parrot
    engine.say("Mild.")
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    history = [
        *ASK,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "get_weather", "content": "15 degrees"},
    ]
    answer = whole(client, "/api/chat", {"model": "parrot", "messages": history, "tools": [WEATHER]})
    assert answer["message"]["content"] == "Mild."
    shorter = whole(client, "/api/chat", {"model": "parrot", "messages": history[:-1], "tools": [WEATHER]})
    assert answer["prompt_eval_count"] > shorter["prompt_eval_count"]


def test_a_model_is_listed_shown_and_running(client: TestClient) -> None:
    (first, *_) = client.get("/api/tags").json()["models"]
    assert first["name"] == first["model"] == "demo:latest"
    assert re.fullmatch("[0-9a-f]{64}", first["digest"])
    assert type(first["size"]) is int
    datetime.fromisoformat(first["modified_at"])
    assert set(first["details"]) >= {"format", "family", "families", "parameter_size", "quantization_level"}
    (running,) = client.get("/api/ps").json()["models"]
    datetime.fromisoformat(running["expires_at"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", client.get("/api/version").json()["version"])
    for asked in ({"model": "demo"}, {"name": "demo:latest"}, {"model": "storyteller", "verbose": True}):
        shown = client.post("/api/show", json=asked).json()
        assert shown["model_info"]["general.architecture"] == "llama"
        assert shown["model_info"]["llama.context_length"] == 1024
        assert shown["capabilities"] == ["completion"]


def test_a_model_that_calls_tools_says_so(parrot: tuple[TestClient, ScriptedEngine]) -> None:
    client, _ = parrot
    assert client.post("/api/show", json={"model": "parrot"}).json()["capabilities"] == [
        "completion",
        "tools",
    ]


def test_another_model_is_not_found_in_the_words_that_clients_look_for(client: TestClient) -> None:
    for path, more in (
        ("/api/chat", {"messages": ASK}),
        ("/api/generate", {"prompt": "a"}),
        ("/api/show", {}),
    ):
        assert refusal(client, path, {"model": "x", **more}, status=404) == "model 'x' not found"


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/api/show", {}, "model is required"),
        ("/api/generate", {"prompt": "a"}, "model"),
        ("/api/generate", {"prompt": "a", "images": ["aGk="]}, "image"),
        ("/api/generate", {"prompt": "a", "template": "{{ .Prompt }}"}, "template"),
        ("/api/generate", {"prompt": "a", "suffix": "b"}, "insert"),
        ("/api/generate", {"prompt": "a", "context": [10**9]}, "prompt"),
        ("/api/generate", {"prompt": "a", "format": "xml"}, "format"),
        ("/api/generate", {"prompt": "a", "options": {"temperature": -1}}, "temperature"),
        ("/api/generate", {"prompt": "a", "options": {"temperature": "hot"}}, "options.temperature"),
        ("/api/generate", {"prompt": "a", "options": {"mirostat": 2}}, "mirostat"),
        ("/api/generate", {"prompt": "a", "options": {"tfs_z": 0.5}}, "tfs_z"),
        ("/api/generate", {"prompt": "a", "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("/api/chat", {"messages": ASK, "think": True}, "does not support thinking"),
        ("/api/chat", {"messages": ASK, "tools": [WEATHER]}, "does not support tools"),
        ("/api/chat", {"messages": [{"role": "robot", "content": "a"}]}, "role"),
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": "a", "images": ["aGk="]}]},
            "messages[0].images",
        ),
        ("/api/chat", {"messages": [{"role": "user", "content": [1]}]}, "messages"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_can_not_be_done_is_refused(
    client: TestClient, path: str, body: dict[str, Any], word: str
) -> None:
    named = {"model": "demo"} if word not in ("model", "model is required") else {}
    assert word in refusal(client, path, {**named, **body})


@pytest.mark.parametrize("name", ["embed", "embeddings", "pull", "push", "create", "copy", "delete"])
def test_operations_on_other_models_are_not_here(client: TestClient, name: str) -> None:
    assert "one model" in refusal(client, f"/api/{name}", {"model": "demo"}, status=501)


def test_a_full_server_says_so_in_the_words_of_each_protocol() -> None:
    with (
        scripted_service(max_unfinished=1) as (service, engine),
        TestClient(create_app(service), base_url="http://localhost") as client,
    ):
        gate = Gate(engine)
        with service.generator.submit([0], GenerationParams(max_tokens=1)):
            assert gate.reached.wait(20)
            answers = [
                client.post(path, json={"model": "parrot", "messages": ASK, "max_tokens": 3})
                for path in ("/api/chat", "/v1/messages", "/v1/chat/completions")
            ]
            gate.opened.set()
    ollama, anthropic, openai = answers
    assert [answer.status_code for answer in answers] == [503, 529, 503]
    assert "server busy" in ollama.json()["error"]
    assert anthropic.json()["error"]["type"] == "overloaded_error"
    assert openai.json()["error"]["code"] == "server_busy"
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)


def test_its_clients_find_the_server_at_the_root(client: TestClient) -> None:
    assert client.get("/").text == "Ollama is running"
    assert client.head("/").status_code == 200
