"""The clients that load a server count what it sends, and tell what went wrong."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from load_client import Load
from server_report import Case, Outcome, Turn
from support.scripted_chat import Reply, ScriptedChat, listening

PROMPTS = [[[1, 2, 3], [4, 5]], [[6], [7, 8]]]


def records(chat: ScriptedChat, new_tokens: int) -> list[dict[str, Any]]:
    with listening(chat.app()) as url:
        task = {"url": url, "model": "scripted", "new_tokens": new_tokens, "clients": PROMPTS}
        return asyncio.run(Load(task).run())


def test_every_request_is_recorded_with_the_times_of_its_tokens() -> None:
    chat = ScriptedChat()
    chat.script.extend([Reply("one two three")] * 4)
    found = records(chat, 3)
    assert sorted(request["prompt"] for request in chat.requests) == [[1, 2, 3], [4, 5], [6], [7, 8]]
    assert all(request["ignore_eos"] and request["max_tokens"] == 3 for request in chat.requests)
    assert [(record["n_tokens"], len(record["token_s"]), record["error"]) for record in found] == [
        (3, 3, None)
    ] * 4
    for record in found:
        assert record["start_s"] <= record["token_s"][0] <= record["token_s"][-1] <= record["end_s"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=503, error={"message": "the queue is full"}), "503"),
        (Reply("one", error={"message": "running the model failed"}), "running the model failed"),
        (Reply("one two"), "2 tokens came, 3 were asked for"),
        (Reply("one", finish_reason=None), "0 tokens came, 3 were asked for"),
    ],
)
def test_what_went_wrong_is_recorded_and_the_client_goes_on(reply: Reply, words: str) -> None:
    chat = ScriptedChat()
    chat.script.extend([reply, *[Reply("one two three")] * 3])
    errors = [record["error"] for record in records(chat, 3) if record["error"]]
    assert len(errors) == 1
    assert words in errors[0]


def record(start_s: float, token_s: list[float], error: str | None = None) -> dict[str, Any]:
    end_s = token_s[-1] if token_s else start_s
    return {"start_s": start_s, "token_s": token_s, "end_s": end_s, "n_tokens": len(token_s), "error": error}


def test_a_turn_tells_tokens_per_second_and_quantiles() -> None:
    turn = Turn([record(0.0, [1.0, 1.5, 2.0]), record(0.0, [3.0, 3.5, 4.0])], 0.0)
    assert turn.tokens_per_s == pytest.approx(6 / 4.0)
    assert (turn.first_token_s(0.5), turn.first_token_s(0.95)) == (1.0, 3.0)
    assert turn.inter_token_s(0.5) == pytest.approx(0.5)


def test_a_turn_in_which_everything_failed_has_no_waits() -> None:
    turn = Turn([record(0.0, [], "refused"), record(1.0, [], "refused")], 0.0)
    assert math.isnan(turn.first_token_s(0.5))
    assert (turn.tokens_per_s, len(turn.errors)) == (0.0, 2)


def test_a_ratio_is_the_median_over_neighbouring_turns() -> None:
    fast, slow = Turn([record(0.0, [0.5, 1.0])], 0.0), Turn([record(0.0, [1.0, 2.0])], 0.0)
    outcome = Outcome(Case(1, 1, 2, 1), {"influence": [fast, fast, slow], "other": [slow, slow, slow]})
    assert outcome.ratio("other") == pytest.approx(2.0)
    assert outcome.summary("influence")["tokens_per_s"] == pytest.approx(2.0)
