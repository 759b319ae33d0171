"""What a request must give, computed one token at a time with no session, batch or thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from influence.engines.sampling import Draw, sample_row
from influence.generation.params import GenerationParams
from support.fake_engine import FakeDetokenizer, FakeEngine


@dataclass(frozen=True)
class Expected:
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    stop_string: str | None


def expected_of(
    engine: FakeEngine,
    prompt_ids: Sequence[int],
    params: GenerationParams,
    eos_ids: frozenset[int],
    context: int,
    session_context: int | None = None,
) -> Expected:
    generated: list[int] = []
    for _ in range(min(params.max_tokens, context - len(prompt_ids))):
        token_id = next_token(engine, prompt_ids, generated, params, session_context or context)
        if token_id in eos_ids and not params.ignore_eos:
            return ended(generated, params, "stop")
        generated.append(token_id)
        if cut(certain_text(generated), params.stop)[1] is not None:
            return ended(generated, params, "stop")
    return ended(generated, params, "length")


def next_token(
    engine: FakeEngine,
    prompt_ids: Sequence[int],
    generated: Sequence[int],
    params: GenerationParams,
    session_context: int,
) -> int:
    ids, counts = np.unique(np.array(generated, np.int64), return_counts=True)
    position = len(prompt_ids) + len(generated)
    draw = Draw(0, position, params.sampling, np.unique(np.array(prompt_ids, np.int64)), ids, counts)
    return sample_row(engine.logits_after([*prompt_ids, *generated], session_context), draw).token_id


def ended(generated: Sequence[int], params: GenerationParams, reason: str) -> Expected:
    detokenizer = FakeDetokenizer()
    text = "".join([detokenizer.push(i) for i in generated]) + detokenizer.flush()
    shown, stop = cut(text, params.stop)
    return Expected(shown, tuple(generated), "stop" if stop else reason, stop)


def certain_text(generated: Sequence[int]) -> str:
    detokenizer = FakeDetokenizer()
    return "".join(detokenizer.push(i) for i in generated)


def cut(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None
