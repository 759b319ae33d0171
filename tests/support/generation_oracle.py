"""What a request must give, computed one token at a time with no session, batch or thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from influence.engines.choosing import sample_row
from influence.engines.sampling import Draw, Sample, SamplingParams
from influence.generation.constraint import Constraint
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
    constraint: Constraint | None = None,
) -> Expected:
    generated: list[int] = []
    for _ in range(min(params.max_tokens, context - len(prompt_ids))):
        allowed = None if constraint is None else constraint.allowed()
        token_id = next_token(engine, prompt_ids, generated, params, session_context or context, allowed)
        if token_id in eos_ids and not params.ignore_eos:
            return ended(generated, params, "stop")
        generated.append(token_id)
        if constraint is not None:
            constraint.accept(token_id)
        is_complete = constraint is not None and constraint.is_complete
        if is_complete or cut(certain_text(generated), params.stop)[1] is not None:
            return ended(generated, params, "stop")
    return ended(generated, params, "length")


def next_token(
    engine: FakeEngine,
    prompt_ids: Sequence[int],
    generated: Sequence[int],
    params: GenerationParams,
    session_context: int,
    allowed: np.ndarray | None = None,
) -> int:
    ids, counts = np.unique(np.array(generated, np.int64), return_counts=True)
    position = len(prompt_ids) + len(generated)
    draw = Draw(0, position, params.sampling, np.unique(np.array(prompt_ids, np.int64)), ids, counts, allowed)
    return sample_row(engine.logits_after([*prompt_ids, *generated], session_context), draw).token_id


def scores_of(
    engine: FakeEngine, prompt_ids: Sequence[int], n_top: int, context: int
) -> tuple[Sample | None, ...]:
    """What the prompt's own tokens score, each by the row of those before it."""
    samples: list[Sample | None] = [None]
    for n in range(1, len(prompt_ids)):
        row = engine.logits_after(prompt_ids[:n], context)
        samples.append(
            sample_row(row, Draw(0, n, SamplingParams(), n_logprobs=n_top, known_id=prompt_ids[n]))
        )
    return tuple(samples)


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
