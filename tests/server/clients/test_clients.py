"""Clients that people use, unchanged: each chats, streams, calls tools, gets true objects, and sees errors as its own.

`make clients` installs those that can't stand beside ours; without it their tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.scoring import scored_by_engine

SCRIPTS = Path(__file__).parent / "scripts"
INSTALLED = Path(__file__).resolve().parents[3] / "build" / "clients"
STORY = "Once upon a time, there was"


def output_of(command: list[str], **variables: str) -> dict[str, Any]:
    """What a client's script prints; its warnings are its own."""
    inherited = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    ended = subprocess.run(
        command, env={**inherited, **variables}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def python(script: str, *args: str, **variables: str) -> dict[str, Any]:
    return output_of([sys.executable, str(SCRIPTS / script), *args], **variables)


def openai_3(*urls: str) -> dict[str, Any]:
    return python("openai_chats.py", *urls)


def openai_2(*urls: str) -> dict[str, Any]:
    folder = installed("openai2")
    found = python("openai_chats.py", *urls, PYTHONPATH=str(folder))
    assert found["version"].startswith("2."), found["version"]
    return found


def npm(*urls: str) -> dict[str, Any]:
    folder = installed("npm")
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node, which is not here")
    return output_of([node, str(SCRIPTS / "openai_chats.cjs"), str(folder), *urls])


def ollama(*urls: str) -> dict[str, Any]:
    return python("ollama_chats.py", *urls)


def anthropic(*urls: str) -> dict[str, Any]:
    return python("anthropic_chats.py", *urls)


def installed(name: str) -> Path:
    folder = INSTALLED / name
    if not folder.is_dir():
        pytest.skip(f"needs build/clients/{name}: run `make clients`")
    return folder


@pytest.fixture(
    scope="module", params=[openai_3, openai_2, npm, ollama, anthropic], ids=lambda run: run.__name__
)
def client(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    run: Callable[..., dict[str, Any]] = request.param
    return run


@pytest.fixture(scope="module")
def found(client: Callable[..., dict[str, Any]], demo_url: str, parrot_url: str) -> dict[str, Any]:
    """All that one client got."""
    return client(demo_url, parrot_url)


def test_a_client_chats_and_streams_the_same_text(found: dict[str, Any]) -> None:
    assert found["chat"].startswith(STORY)
    assert found["stream"] == found["chat"]
    assert found["usage"][0] == found["usage"][1] > 0


def test_a_client_that_does_not_wait_gets_the_same(found: dict[str, Any]) -> None:
    if "async_chat" not in found:
        pytest.skip("this client has one way of asking")
    assert found["async_chat"] == found["async_twin"] == found["async_stream"] == found["chat"]


def test_a_client_reads_the_models_calls(found: dict[str, Any]) -> None:
    expected = {"name": "get_weather", "arguments": {"city": "Paris"}}
    assert found["free_call"] == expected
    assert found["streamed_call"] == expected
    assert set(found.get("finish_reasons", ())) <= {"tool_calls", "tool_use"}


def test_a_client_can_force_a_call(found: dict[str, Any]) -> None:
    if "forced_call" not in found:
        pytest.skip("this protocol can't force a call")
    assert found["forced_call"]["name"] == "get_weather"
    assert found["forced_call"]["arguments"]["city"] in ("Paris", "Oslo")


def test_a_client_gets_an_object_of_its_schema(found: dict[str, Any]) -> None:
    assert found["object"]["name"] in ("Rex", "Mia")
    assert 1 <= found["object"]["age"] <= 9


def test_a_client_raises_its_own_errors(found: dict[str, Any]) -> None:
    unknown, bad = found["unknown_model"], found["bad_value"]
    assert unknown["status"] == 404
    assert unknown["class"] in ("NotFoundError", "ResponseError")
    assert bad["status"] == 400
    assert bad["class"] in ("BadRequestError", "ResponseError")
    if unknown["class"] == "ResponseError":
        assert unknown["message"] == "model 'llama3' not found"
        assert found["unknown_in_stream"]["status"] == 404


def test_a_client_finds_the_model(found: dict[str, Any]) -> None:
    assert found["models"][0].removesuffix(":latest") == "demo"


def test_anthropics_client_counts_what_a_message_uses(demo_url: str, parrot_url: str) -> None:
    assert len(set(anthropic(demo_url, parrot_url)["counted"])) == 1


def test_ollamas_client_sees_what_is_loaded(demo_url: str, parrot_url: str) -> None:
    got = ollama(demo_url, parrot_url)
    assert got["running"] == ["demo:latest"]
    assert got["architecture"] == "llama"
    assert got["loaded"] == "load"
    assert got["text"] == got["streamed_text"] != ""


def test_lm_eval_scores_the_model_as_its_engine_does(demo_url: str) -> None:
    program = installed("lm-eval") / "bin" / "python"
    pairs = [
        ["Once upon a time", " there was a fox"],
        ["The fox", " zebra!"],
        ["Once upon a", " time, there"],
    ]
    got = output_of(
        [str(program), str(SCRIPTS / "lm_eval_scores.py"), demo_url, json.dumps(pairs)], HF_HUB_OFFLINE="1"
    )
    for (score, is_greedy), (context, text) in zip(got["scores"], got["tokens"], strict=True):
        own, own_is_greedy = scored_by_engine([*context, *text], len(context))
        assert score == pytest.approx(own, abs=1e-4)
        assert is_greedy == own_is_greedy
    assert {is_greedy for _, is_greedy in got["scores"]} == {True, False}, "both are seen"
