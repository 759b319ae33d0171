"""How likely a text is: by the engine's own logits, and over HTTP as lm-eval 0.4.13 asks and reads.

The second follows lm_eval/models/openai_completions.py (LocalCompletionsAPI's
`_create_payload` and `parse_logprobs`) field by field; clients/test_lm_eval.py
runs the program itself where it is installed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from starlette.testclient import TestClient

from influence import demo
from influence.engines.base import Step
from influence.engines.select import load_engine
from influence.models.model import open_model


def scored_by_engine(token_ids: Sequence[int], n_context: int = 1) -> tuple[float, bool]:
    """Of the tokens after the first `n_context`: log P from the logits of one forward pass, whether all are likeliest."""
    model = open_model(demo.folder())
    engine = load_engine(model, "cpu", threads=1)
    session = engine.new_session(len(token_ids))
    try:
        engine.forward([Step(session, list(token_ids), n_logits=len(token_ids))])
        logits = np.array(engine.logits(), np.float64)
    finally:
        session.close()
        engine.close()
        model.checkpoint.close()
    logits -= logits.max(axis=1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    continuation = range(n_context, len(token_ids))
    is_greedy = all(logprobs[at - 1].argmax() == token_ids[at] for at in continuation)
    return float(sum(logprobs[at - 1, token_ids[at]] for at in continuation)), is_greedy


def scored_over_wire(
    client: TestClient, prompts: Sequence[Sequence[int]], n_context: Sequence[int] | None = None
) -> list[tuple[float, bool]]:
    """(log likelihood of what follows the context, whether all of it is greedy), for each prompt."""
    payload = {
        "model": "demo",
        "prompt": prompts,
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
    }
    response = client.post("/v1/completions", json=payload)
    assert response.status_code == 200, response.text
    lengths = n_context or [1] * len(prompts)
    scores = []
    in_order = sorted(response.json()["choices"], key=lambda choice: choice["index"])
    for choice, length in zip(in_order, lengths, strict=True):
        logprobs = choice["logprobs"]["token_logprobs"][length:-1]
        tables = choice["logprobs"]["top_logprobs"][length:-1]
        is_greedy = all(
            logprob == max(table.values()) for logprob, table in zip(logprobs, tables, strict=True)
        )
        scores.append((sum(logprobs), is_greedy))
    return scores
