"""Requests that nobody would write, made from our own /openapi.json: none of them may be our fault.

Bodies that fit their schema reach generation; bodies that break it must be refused. Words that
mean something (a model's name, a role) are told to the fuzzer, or it would hardly get past them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from influence.server.app import create_app
from influence.server.service import Service
from support.servers import is_free, served_demo, until

# Of each endpoint and kind; more can be asked for where there is time.
N_EXAMPLES = int(os.environ.get("INFLUENCE_FUZZ_EXAMPLES", "10"))

WORDS = {
    "model": ["demo", "storyteller:latest", "other"],
    "role": ["user", "assistant", "system", "tool", "robot"],
    "type": ["text", "function", "json_schema", "json_object", "tool_use", "tool_result", "image_url", "any"],
    "tool_choice": ["auto", "none", "required"],
    "format": ["json", ""],
}
NOT_HERE = frozenset(
    f"/api/{name}" for name in ("pull", "push", "create", "copy", "delete", "embed", "embeddings")
)


@pytest.fixture(scope="module")
def short_service() -> Iterator[Service]:
    """The demo with a context so small that every valid request ends soon."""
    with served_demo(context=96) as service:
        yield service


@pytest.fixture(scope="module")
def fuzzed(short_service: Service) -> Iterator[TestClient]:
    app = create_app(short_service)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def schema(fuzzed: TestClient) -> Any:
    return schemathesis.openapi.from_dict(with_words(fuzzed.get("/openapi.json").json()))


def with_words(description: Any) -> Any:
    """The description with the words of WORDS where a field may be any string."""
    if isinstance(description, list):
        return [with_words(item) for item in description]
    if not isinstance(description, dict):
        return description
    told = {key: with_words(value) for key, value in description.items()}
    for name, field in (told.get("properties") or {}).items():
        if name in WORDS and isinstance(field, dict):
            told["properties"][name] = _with_word(field, WORDS[name])
    return told


def _with_word(field: dict[str, Any], words: list[str]) -> dict[str, Any]:
    if field.get("type") == "string":
        return {"enum": words}
    if "anyOf" in field:
        return {**field, "anyOf": [_with_word(kind, words) for kind in field["anyOf"]]}
    return field


def sent(client: TestClient, case: Any) -> Any:
    """The response to a case."""
    has_body = isinstance(case.body, (dict, list, str, int, float, bool, type(None)))
    content = json.dumps(case.body) if has_body and case.method == "POST" else None
    headers = {"content-type": "application/json"} if content is not None else {}
    return client.request(case.method, case.formatted_path, content=content, headers=headers)


def check(response: Any, case: Any) -> None:
    assert response.status_code < 500 or (response.status_code == 501 and case.path in NOT_HERE), (
        response.text
    )
    assert "Traceback" not in response.text
    assert "server_error" not in response.text
    if response.status_code >= 400 and response.headers.get("content-type") == "application/json":
        assert "error" in response.json()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
def test_no_request_is_answered_with_a_fault_of_ours(
    fuzzed: TestClient, short_service: Service, schema: Any, mode: GenerationMode
) -> None:
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and operation.method != "post":
            continue

        @settings(
            max_examples=N_EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answered(case: Any) -> None:
            check(sent(fuzzed, case), case)

        answered()
    until(lambda: is_free(short_service))


@settings(max_examples=5 * N_EXAMPLES, deadline=None, derandomize=True, database=None)
@given(
    content=st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    )
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/api/chat", "/v1/messages"])
def test_bytes_that_are_no_request_are_refused(fuzzed: TestClient, path: str, content: bytes) -> None:
    response = fuzzed.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]


PLAIN: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4},
    "/v1/completions": {"prompt": "hi", "max_tokens": 4},
    "/api/chat": {"model": "demo", "messages": [{"role": "user", "content": "hi"}]},
    "/api/generate": {"model": "demo", "prompt": "hi"},
    "/v1/messages": {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4},
    "/v1/messages/count_tokens": {"model": "demo", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/generate": {"prompt": "hi", "max_tokens": 4},
    "/v1/generate_stream": {"prompt": "hi", "max_tokens": 4},
}


@pytest.mark.parametrize("path", PLAIN)
def test_a_strange_field_or_two_in_a_plain_request_is_no_fault_of_ours(
    fuzzed: TestClient, short_service: Service, schema: Any, path: str
) -> None:
    statuses = set()

    @settings(
        max_examples=3 * N_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path]["POST"].as_strategy(generation_mode=GenerationMode.POSITIVE), data=st.data())
    def answered(case: Any, data: st.DataObject) -> None:
        names = sorted(case.body) if isinstance(case.body, dict) else []
        kept = data.draw(st.sets(st.sampled_from(names), max_size=2)) if names else set()
        case.body = {**PLAIN[path], **{name: case.body[name] for name in kept}}
        response = sent(fuzzed, case)
        check(response, case)
        statuses.add(response.status_code)

    answered()
    assert {200, 400} <= statuses, "some are answered and some refused, or nothing was tried"
    until(lambda: is_free(short_service))
