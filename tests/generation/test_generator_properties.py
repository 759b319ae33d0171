"""Any mix of requests, cancels and limits: everyone gets his own text and one end, and no block is lost."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.engines.sampling import SamplingParams
from influence.errors import NumericError
from influence.generation.events import Completion, Stream
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from support.fake_clock import SteadyClock
from support.fake_engine import FakeDetokenizer, FakeEngine
from support.generation_oracle import Expected, expected_of, scores_of
from support.generators import Cycle, facts

EOS = frozenset({31})
POISON = 29


@dataclass(frozen=True)
class Request:
    prompt: list[int]
    params: GenerationParams
    cancel_at: int | None  # the forward during which it is cancelled
    salt: str
    n_constrained: int | None  # how many tokens its constraint lasts; None: it has none

    @property
    def constraint(self) -> Cycle | None:
        return None if self.n_constrained is None else Cycle(GROUPS, self.n_constrained, may_end=True)


SAMPLING = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1.0]),
    top_k=st.sampled_from([0, 4]),
    repeat_penalty=st.sampled_from([1.0, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    logit_bias=st.sampled_from([{}, {0: 2.0, 3: -100.0}]),
    seed=st.integers(0, 3),
)
PARAMS = st.builds(
    GenerationParams,
    sampling=SAMPLING,
    max_tokens=st.integers(0, 25),
    stop=st.lists(st.sampled_from(["a", "ab", "the c", "€", "é ", "xyz.", "p"]), max_size=2).map(tuple),
    ignore_eos=st.booleans(),
    prompt_logprobs=st.sampled_from([-1, -1, 0, 2]),
)
# Few distinct tokens, so that prompts share prefixes; some share so many that it is worth waiting for.
TAILS = st.lists(st.sampled_from([1, 2, 1, 2, 1, 2, POISON]), min_size=1, max_size=24)
LONG_PROMPTS = TAILS.map(lambda tail: [*([1, 2, 2] * 7), *tail[:3]])
GROUPS = [[0, 1, 2, 17], [18, 19, 30], [4, 16, 22]]
REQUESTS = st.lists(
    st.builds(
        Request,
        TAILS | LONG_PROMPTS,
        PARAMS,
        st.none() | st.integers(0, 30),
        st.sampled_from(["", "", "anna"]),
        st.none() | st.none() | st.integers(1, 12),
    ),
    min_size=1,
    max_size=10,
)


@settings(derandomize=True, deadline=None, max_examples=250)
@given(
    requests=REQUESTS,
    n_blocks=st.integers(13, 40),
    block_size=st.sampled_from([4, 5, 7]),
    max_running=st.integers(1, 6),
    budget=st.integers(1, 20),
    cache_blocks=st.sampled_from([0, 6, None]),
    echo=st.sampled_from([0.0, 9.0]),
    runs_ahead=st.booleans(),
)
def test_any_schedule(
    requests: list[Request],
    n_blocks: int,
    block_size: int,
    max_running: int,
    budget: int,
    cache_blocks: int | None,
    echo: float,
    runs_ahead: bool,
) -> None:
    engine = FakeEngine(n_blocks, block_size)
    engine.runs_ahead = runs_ahead
    engine.echo = echo  # else no draft ever comes true
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
        clock=SteadyClock(),  # so that what pays depends on no machine
    ) as generator:
        for request in requests:
            streams.append(
                generator.submit(
                    request.prompt, request.params, constraint=request.constraint, salt=request.salt
                )
            )
        for request, stream in zip(requests, streams, strict=True):
            check(engine, request, stream, generator.context)
    assert all(stream._queue.empty() for stream in streams), "something follows the terminal event"
    assert engine.sessions == []
    assert engine.n_free == engine.n_blocks
    assert max((sum(batch) for batch in engine.batches), default=0) <= max_running + budget


def check(engine: FakeEngine, request: Request, stream: Stream, context: int) -> None:
    def expected() -> Expected:
        if request.params.prompt_logprobs >= 0:
            scores_of(engine, request.prompt, 0, context)  # a NaN there is an error already
        return expected_of(
            engine, request.prompt, request.params, EOS, context, constraint=request.constraint
        )

    try:
        completion = stream.collect()
    except NumericError:
        with pytest.raises(NumericError):
            expected()
        return
    check_accounts(request, completion)
    if completion.finish_reason == "cancelled":
        assert request.cancel_at is not None
        with suppress(NumericError):
            assert expected().token_ids[: len(completion.token_ids)] == completion.token_ids
        return
    assert facts(completion) == expected()
    n_top = request.params.prompt_logprobs
    scores = scores_of(engine, request.prompt, n_top, context) if n_top >= 0 else ()
    assert completion.prompt_logprobs == scores


def check_accounts(request: Request, completion: Completion) -> None:
    """Every token is counted once: those of the prompt, those shown, and an EOS that ended it."""
    statistics = completion.statistics
    ended_by_eos = statistics.completion_tokens - len(completion.token_ids)
    assert statistics.prompt_tokens == len(request.prompt)
    assert 0 <= statistics.cached_tokens < len(request.prompt)
    assert 0 <= statistics.accepted_tokens <= statistics.drafted_tokens
    assert statistics.accepted_tokens <= max(0, statistics.completion_tokens - 1)
    assert ended_by_eos in (0, 1)
    if ended_by_eos:
        assert not request.params.ignore_eos
        assert completion.stop_string is None or completion.finish_reason == "stop"
        assert completion.finish_reason in ("stop", "cancelled")
