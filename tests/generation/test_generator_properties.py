"""Any mix of requests, cancels and limits: everyone gets his own text and one end, and no block is lost."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.engines.sampling import SamplingParams
from influence.errors import NumericError
from influence.generation.events import Finished, Stream, TextDelta
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from support.fake_engine import FakeDetokenizer, FakeEngine
from support.generation_oracle import Expected, expected_of

EOS = frozenset({31})
POISON = 29


@dataclass(frozen=True)
class Request:
    prompt: list[int]
    params: GenerationParams
    cancel_at: int | None  # the forward during which it is cancelled


SAMPLING = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1.0]),
    top_k=st.sampled_from([0, 4]),
    repeat_penalty=st.sampled_from([1.0, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 3),
)
PARAMS = st.builds(
    GenerationParams,
    sampling=SAMPLING,
    max_tokens=st.integers(0, 25),
    stop=st.lists(st.sampled_from(["a", "ab", "the c", "€", "é ", "xyz.", "p"]), max_size=2).map(tuple),
    ignore_eos=st.booleans(),
)
# Few distinct tokens, so that prompts share prefixes.
PROMPTS = st.lists(st.sampled_from([1, 2, 1, 2, 1, 2, POISON]), min_size=1, max_size=24)
REQUESTS = st.lists(
    st.builds(Request, PROMPTS, PARAMS, st.none() | st.integers(0, 30)), min_size=1, max_size=10
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    requests=REQUESTS,
    n_blocks=st.integers(13, 40),
    block_size=st.sampled_from([4, 5, 7]),
    max_running=st.integers(1, 6),
    budget=st.integers(1, 20),
    cache_blocks=st.sampled_from([0, 6, None]),
)
def test_any_schedule(
    requests: list[Request],
    n_blocks: int,
    block_size: int,
    max_running: int,
    budget: int,
    cache_blocks: int | None,
) -> None:
    engine = FakeEngine(n_blocks, block_size)
    engine.poison = frozenset({POISON})
    streams: list[Stream] = []
    n_forwards = 0

    def cancel_those_due(_: object) -> None:
        nonlocal n_forwards
        for request, stream in zip(requests, streams, strict=False):
            if request.cancel_at is not None and request.cancel_at <= n_forwards:
                stream.cancel()
        n_forwards += 1

    engine.before_forward = cancel_those_due
    with Generator(
        engine,
        None,  # type: ignore[arg-type]
        EOS,
        max_running=max_running,
        tokens_per_step=max_running + budget,
        prefix_cache_blocks=cache_blocks,
        new_detokenizer=FakeDetokenizer,
    ) as generator:
        for request in requests:
            streams.append(generator.submit(request.prompt, request.params))
        for request, stream in zip(requests, streams, strict=True):
            check(engine, request, stream, generator.context)
    assert all(stream._queue.empty() for stream in streams), "something follows the terminal event"
    assert engine.sessions == []
    assert engine.n_free == engine.n_blocks
    assert max((sum(batch) for batch in engine.batches), default=0) <= max_running + budget


def check(engine: FakeEngine, request: Request, stream: Stream, context: int) -> None:
    def expected() -> Expected:
        return expected_of(engine, request.prompt, request.params, EOS, context)

    try:
        *deltas, end = list(stream)
    except NumericError:
        with pytest.raises(NumericError):
            expected()
        return
    assert isinstance(end, Finished)
    text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    token_ids = tuple(i for delta in deltas if isinstance(delta, TextDelta) for i in delta.token_ids)
    assert end.statistics.prompt_tokens == len(request.prompt)
    if end.finish_reason != "cancelled":
        assert Expected(text, token_ids, end.finish_reason, end.stop_string) == expected()
    else:
        assert request.cancel_at is not None
        with suppress(NumericError):
            assert expected().token_ids[: len(token_ids)] == token_ids
