"""Prompts that begin alike and come at once are computed once: counted in tokens that the engine ran."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from influence.errors import EngineError
from influence.generation.events import Stream
from influence.generation.generator import Generator
from influence.generation.sharing import is_worth_waiting
from support.fake_engine import FakeEngine
from support.generation_oracle import expected_of
from support.generators import Gate, facts, params, running

SYSTEM = [i * 7 % 23 for i in range(100)]


def submitted_together(
    engine: FakeEngine,
    generator: Generator,
    prompts: Sequence[Sequence[int]],
    cancelled_in: dict[int, int] | None = None,
) -> list[Stream]:
    """Requests that are all there before the first forward (of a request of one token) ends.

    `cancelled_in`: which of them are cancelled during which forward.
    """
    gate = Gate(engine)
    first = generator.submit([25], params(1))
    assert gate.reached.wait(20)
    streams = [generator.submit(p, params(3, sampling={"seed": i})) for i, p in enumerate(prompts)]
    due = cancelled_in or {}
    engine.before_forward = lambda steps: [
        streams[i].cancel() for i, n in due.items() if len(engine.batches) == n
    ]
    gate.opened.set()
    first.collect()
    return streams


def check(engine: FakeEngine, prompts: Sequence[Sequence[int]], streams: Sequence[Stream]) -> list[int]:
    """Each is what it is alone; how many tokens of each prompt were not computed for it."""
    completions = [stream.collect() for stream in streams]
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        asked = params(len(completion.token_ids), sampling={"seed": i})
        assert facts(completion) == expected_of(engine, prompt, asked, frozenset(), 256)
    return [completion.statistics.cached_tokens for completion in completions]


def n_run(engine: FakeEngine) -> int:
    return engine.n_tokens - 1  # without the first request's


def test_n_choices_of_a_prompt_compute_it_once() -> None:
    engine = FakeEngine(n_blocks=400)
    prompts = [SYSTEM] * 8
    with running(engine) as generator:
        streams = submitted_together(engine, generator, prompts)
        assert check(engine, prompts, streams) == [0] + [99] * 7
    assert n_run(engine) == 100 + 7 * 1 + 8 * 2


def test_a_shared_system_prompt_is_computed_once() -> None:
    engine = FakeEngine(n_blocks=400)
    prompts = [[*SYSTEM, *[i] * 30] for i in range(6)]
    with running(engine) as generator:
        streams = submitted_together(engine, generator, prompts)
        assert check(engine, prompts, streams) == [0] + [100] * 5
    assert n_run(engine) == 100 + 6 * 30 + 6 * 2


def test_who_has_most_in_common_is_followed_even_if_he_waits_too() -> None:
    engine = FakeEngine(n_blocks=400)
    prompts = [[*SYSTEM, 1], [*SYSTEM, *[2] * 80, 3], [*SYSTEM, *[2] * 80, 4]]
    with running(engine) as generator:
        streams = submitted_together(engine, generator, prompts)
        assert check(engine, prompts, streams) == [0, 100, 180]


def test_a_few_tokens_in_common_are_not_waited_for() -> None:
    engine = FakeEngine(n_blocks=400)
    prompts = [[9, 9, i, *range(10)] for i in range(3)]
    with running(engine, tokens_per_step=64) as generator:
        streams = submitted_together(engine, generator, prompts)
        assert check(engine, prompts, streams) == [0, 0, 0]
    assert engine.batches[1] == [13, 13, 13]


@pytest.mark.parametrize(
    ("n_saved", "n_to_run", "worth"),
    [(0, 1, False), (1, 2, False), (15, 16, False), (16, 32, True), (16, 33, False), (64, 4000, True)],
)
def test_waiting_is_for_much_or_for_most(n_saved: int, n_to_run: int, worth: bool) -> None:
    assert is_worth_waiting(n_saved, n_to_run) == worth


def test_the_same_prompt_under_another_salt_is_computed_again() -> None:
    engine = FakeEngine(n_blocks=400)
    with running(engine) as generator:
        for n_cached in (0, 99):  # at once, then from what was kept
            streams = [generator.submit(SYSTEM, params(1), salt=salt) for salt in ("anna", "ben")]
            assert [stream.collect().statistics.cached_tokens for stream in streams] == [n_cached] * 2
        assert generator.submit(SYSTEM, params(1)).collect().statistics.cached_tokens == 0


def test_when_the_leader_is_cancelled_the_follower_goes_on_from_there() -> None:
    engine = FakeEngine(n_blocks=400)
    with running(engine) as generator:
        streams = submitted_together(engine, generator, [SYSTEM, SYSTEM], {0: 3})
        assert streams[0].collect().finish_reason == "cancelled"
        assert streams[1].collect().finish_reason == "length"
    assert n_run(engine) == 100 + 2


def test_when_the_leader_fails_the_follower_computes_for_itself() -> None:
    engine = FakeEngine(n_blocks=400)
    with running(engine) as generator:
        gate = Gate(engine)
        first = generator.submit([25], params(1))
        assert gate.reached.wait(20)
        streams = [generator.submit(SYSTEM, params(3)) for _ in range(2)]

        def fail_once(steps: Sequence[object]) -> None:
            if len(engine.batches) == 3:
                engine.before_forward = lambda steps: None
                raise RuntimeError("broken")

        engine.before_forward = fail_once
        gate.opened.set()
        first.collect()
        with pytest.raises(EngineError):
            streams[0].collect()
        completion = streams[1].collect()
    assert completion.statistics.cached_tokens == 0
    assert facts(completion) == expected_of(engine, SYSTEM, params(3), frozenset(), 256)


def test_a_follower_is_cancelled_while_it_waits() -> None:
    engine = FakeEngine(n_blocks=400)
    with running(engine) as generator:
        streams = submitted_together(engine, generator, [SYSTEM, SYSTEM], {1: 3})
        cancelled = streams[1].collect()
        assert (cancelled.finish_reason, cancelled.token_ids) == ("cancelled", ())
        assert streams[0].collect().finish_reason == "length"


def test_a_scored_prompt_leads_but_does_not_follow() -> None:
    engine = FakeEngine(n_blocks=400)
    with running(engine) as generator:
        gate = Gate(engine)
        first = generator.submit([25], params(1))
        assert gate.reached.wait(20)
        asked = [params(2, prompt_logprobs=0), params(2), params(2, prompt_logprobs=0)]
        streams = [generator.submit(SYSTEM, one) for one in asked]
        gate.opened.set()
        first.collect()
        cached = [stream.collect().statistics.cached_tokens for stream in streams]
    assert cached == [0, 99, 0]
