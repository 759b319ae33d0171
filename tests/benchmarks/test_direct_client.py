"""The generator without a server, timed as a client of one is."""

from __future__ import annotations

from direct_client import run
from influence import demo


def test_prompts_are_completed_one_after_another_and_timed() -> None:
    task = {
        "folder": str(demo.folder()),
        "threads": 1,
        "context": 64,
        "new_tokens": 3,
        "clients": [[[5, 6, 7], [8, 9]]],
    }
    first, second = run(task)
    for record in (first, second):
        assert (record["n_tokens"], len(record["token_s"]), record["error"]) == (3, 3, None)
        assert record["start_s"] <= record["token_s"][0] <= record["token_s"][-1] <= record["end_s"]
    assert first["end_s"] <= second["start_s"]
