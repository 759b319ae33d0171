"""Bodies: what is refused, and how it is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies
from starlette.testclient import TestClient

JSON = {"content-type": "application/json"}


def error_of(
    client: TestClient, content: bytes, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    response = client.post("/v1/generate", content=content, headers=headers or JSON)
    body = response.json()
    assert set(body) == {"error"}
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return response.status_code, body["error"]


NOT_JSON = {
    "nothing": b"",
    "text": b"prompt=hello",
    "cut": b'{"prompt": "a"',
    "twice": b'{"prompt": "a"} {}',
    "NaN": b'{"prompt": "a", "temperature": NaN}',
    "infinity": b'{"prompt": "a", "temperature": -Infinity}',
    "a lone surrogate": rb'{"prompt": "\ud800"}',
    "Latin-1": b'{"prompt": "\xe9"}',
    "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"prompt": "a"}',
    "deep arrays": b'{"prompt": ' + b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep in an unknown field": b'{"prompt": "a", "x": ' + b"[" * 70 + b"]" * 70 + b"}",
    "a bare line break in a string": b'{"prompt": "a\nb"}',
    "a million lists": b'{"prompt": "a", "x": [' + b"[]," * 1_000_000 + b"[]]}",
    "a million strings": b'{"prompt": "a", "x": [' + b'"",' * 1_000_000 + b'""]}',
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_what_is_not_json_is_refused(client: TestClient, case: str) -> None:
    status, error = error_of(client, NOT_JSON[case])
    assert (status, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_json")


def test_brackets_in_a_text_are_no_nesting(client: TestClient) -> None:
    body = json.dumps({"prompt": "[{" * 50 + '\\"[[', "max_tokens": 1})
    assert client.post("/v1/generate", content=body, headers=JSON).status_code == 200


MISFITS = [
    ({}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": ["a"]}, "prompt[0]"),
    ({"prompt": [1.5]}, "prompt[0]"),
    ({"prompt": "a", "max_tokens": "5"}, "max_tokens"),
    ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
    ({"prompt": "a", "max_tokens": True}, "max_tokens"),
    ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
    ({"prompt": "a", "temperature": -1}, "temperature"),
    ({"prompt": "a", "temperature": 1e30}, "temperature"),
    ({"prompt": "a", "top_p": 2}, "top_p"),
    ({"prompt": "a", "top_k": -1}, "top_k"),
    ({"prompt": "a", "min_p": 1.5}, "min_p"),
    ({"prompt": "a", "stop": [""]}, "stop"),
    ({"prompt": "a", "stop": ["x"] * 10_000}, "stop"),
    ({"prompt": "a", "stop": "x" * 1_000_000}, "stop"),
    ({"prompt": "a", "presence_penalty": 1e9}, "presence_penalty"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [10**9]}, "prompt"),
    ({"prompt": [2**70]}, "prompt"),
]


@pytest.mark.parametrize(("body", "param"), MISFITS, ids=lambda value: repr(value)[:40])
def test_a_value_that_does_not_fit_is_named(client: TestClient, body: dict[str, Any], param: str) -> None:
    status, error = error_of(client, json.dumps(body).encode())
    assert (status, error["param"]) == (400, param)
    assert len(error["message"]) < 300 and "0x" not in error["message"]


def test_a_prompt_that_fills_the_context_is_counted(client: TestClient) -> None:
    status, error = error_of(client, json.dumps({"prompt": [5] * 5000}).encode())
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert "5000" in error["message"]


def test_the_last_place_of_the_context_is_usable(client: TestClient) -> None:
    context = client.post("/tokenize", json={"prompt": "a"}).json()["max_model_len"]
    body = {"prompt": [5] * (context - 1), "max_tokens": 10, "ignore_eos": True}
    answer = client.post("/v1/generate", json=body).json()
    assert (answer["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 1)


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"]
)
def test_a_body_that_a_form_could_send_is_refused(client: TestClient, media_type: str) -> None:
    status, error = error_of(client, b'{"prompt": "a"}', {"content-type": media_type})
    assert status == 415 and "application/json" in error["message"]


@pytest.mark.parametrize("coding", ["gzip", "zstd", "deflate", "br", "gzip, identity"])
def test_a_compressed_body_is_refused_unopened(client: TestClient, coding: str) -> None:
    status, error = error_of(client, b"\x1f\x8b" + bytes(100), {**JSON, "content-encoding": coding})
    assert status == 415 and "content-encoding" in error["message"]


def test_a_path_that_is_not_there_is_said_so(client: TestClient) -> None:
    response = client.get("/nothing")
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"


def test_an_id_that_a_client_chose_comes_back_if_it_is_a_plain_word(client: TestClient) -> None:
    assert client.get("/health", headers={"x-request-id": "job-7.a_b"}).headers["x-request-id"] == "job-7.a_b"
    for id_ in ("a b", "x" * 65, "a\x1b[31m", "<script>"):
        assert client.get("/health", headers={"x-request-id": id_}).headers["x-request-id"].startswith("req_")


json_values = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.floats(allow_nan=False) | strategies.integers() | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(strategies.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
FIELDS = (
    "prompt",
    "system",
    "raw",
    "max_tokens",
    "temperature",
    "top_k",
    "seed",
    "stop",
    "tokens",
    "messages",
    "tools",
)


@settings(max_examples=150, deadline=None)
@given(
    body=strategies.dictionaries(
        strategies.sampled_from(FIELDS) | strategies.text(max_size=8), json_values, max_size=6
    )
)
def test_no_body_whatever_makes_the_server_fail(client: TestClient, body: dict[str, Any]) -> None:
    try:
        content = json.dumps(body | {"max_tokens": body.get("max_tokens", 2)}).encode()
    except UnicodeEncodeError:
        return
    for path in ("/v1/generate", "/tokenize", "/detokenize", "/apply-template"):
        response = client.post(path, content=content, headers=JSON)
        assert response.status_code in (200, 400), response.text
        response.json()
