"""What a generator tells of itself: to metrics, to a watchdog, and to those it refuses."""

from __future__ import annotations

import pytest

from influence.errors import EngineError, ServerBusy
from influence.generation.facts import RETRY_LEAST_S, RETRY_MOST_S, RETRY_UNKNOWN_S, EndRate
from influence.generation.generator import Generator
from support.fake_clock import FakeClock
from support.fake_engine import FakeDetokenizer, FakeEngine
from support.generators import PROMPT, Gate, params, running


def settled(generator: Generator) -> Generator:
    """After a request more, so that the step in which the ones before ended is over."""
    generator.submit([9], params(1)).collect()
    return generator


def test_tokens_are_counted_as_computed_taken_over_and_generated() -> None:
    engine = FakeEngine()
    with running(engine) as generator:
        generator.submit(PROMPT, params(5)).collect()
        generator.submit(PROMPT, params(5)).collect()
        generator.submit([7] * 20, params(0, prompt_logprobs=0)).collect()
        facts = settled(generator).facts()
        generator.close()
        loop = generator.facts().loop
    assert facts.is_alive
    assert loop.n_prompt_tokens == 8 + 1 + 19 + 1
    assert loop.n_cached_tokens == 7
    assert loop.n_generated_tokens == 5 + 5 + 1
    assert loop.n_prompt_tokens + loop.n_generated_tokens - 3 == engine.n_tokens  # no last token is run
    assert (loop.n_running, loop.n_waiting, loop.n_kept_prefixes) == (0, 0, 0)
    assert loop.n_free_kv_blocks == loop.n_kv_blocks == 64
    assert loop.n_steps == len(engine.batches)


def test_running_and_waiting_ones_and_their_blocks_are_counted() -> None:
    engine = FakeEngine()
    with running(engine, max_running=2) as generator:
        facts = []
        engine.before_forward = lambda steps: facts.append(generator._loop.facts())
        gate = Gate(engine)
        streams = [generator.submit([i] * 5, params(4)) for i in range(5)]
        assert gate.reached.wait(20)
        engine.before_forward = lambda steps: facts.append(generator._loop.facts())
        gate.opened.set()
        for stream in streams:
            stream.collect()
    assert (facts[0].n_running, facts[0].n_waiting) == (2, 3)
    assert facts[0].n_reserved_kv_blocks == 2 * 2  # 8 positions each
    assert facts[0].n_free_kv_blocks == 64 - 4


def test_a_wedged_engine_shows_as_stalled_and_an_idle_one_does_not() -> None:
    engine, clock = FakeEngine(), FakeClock()
    with running(engine, clock=clock.monotonic) as generator:
        clock.advance(100)
        assert (generator.facts().stalled_s, generator.facts().is_busy) == (0.0, False)
        gate = Gate(engine)
        stream = generator.submit(PROMPT, params(1))
        assert gate.reached.wait(20)
        clock.advance(7)
        assert (generator.facts().stalled_s, generator.facts().is_busy) == (7.0, True)
        gate.opened.set()
        stream.collect()
        clock.advance(100)
        assert generator.facts().stalled_s == 0.0


def test_a_closed_generator_is_not_alive() -> None:
    with running(FakeEngine()) as generator:
        assert generator.facts().is_alive
        generator.close()
        assert not generator.facts().is_alive


def test_a_generator_ended_by_a_defect_is_not_alive() -> None:
    class Defective(FakeEngine):
        defect = False

        @property
        def kv_pool(self) -> object:  # type: ignore[override]
            return 1 / 0 if self.defect else super().kv_pool

    engine = Defective()
    generator = Generator(engine, None, frozenset(), new_detokenizer=FakeDetokenizer)  # type: ignore[arg-type]
    engine.defect = True
    with pytest.raises(EngineError):
        generator.submit(PROMPT, params()).collect()
    generator._thread.join()
    assert not generator.facts().is_alive


def test_a_refused_client_is_told_when_a_place_may_be_free() -> None:
    engine, clock = FakeEngine(), FakeClock()
    engine.before_sample = lambda draws: clock.advance(12)
    with running(engine, max_unfinished=2, clock=clock.monotonic) as generator:
        for _ in range(3):
            generator.submit([5], params(1)).collect()
        gate = Gate(engine)
        streams = [generator.submit(PROMPT, params(1)) for _ in range(2)]
        assert gate.reached.wait(20)
        with pytest.raises(ServerBusy) as caught:
            generator.submit(PROMPT, params(1))
        gate.opened.set()
        for stream in streams:
            stream.collect()
    assert caught.value.retry_after_s == pytest.approx(8)  # three ends, the first 24 s ago


def test_the_time_to_wait_follows_the_recent_ends_within_bounds() -> None:
    rate = EndRate()
    assert rate.retry_after_s(1000.0) == RETRY_UNKNOWN_S
    for i in range(100):
        rate.add(i * 0.001)
    assert rate.retry_after_s(0.1) == RETRY_LEAST_S
    assert rate.retry_after_s(1e6) == RETRY_MOST_S
    for i in range(100):
        rate.add(1000 + 10.0 * i)
    assert rate.retry_after_s(1000 + 10.0 * 100) == pytest.approx(10, rel=0.1)


def test_a_generator_whose_engine_can_run_nothing_any_more_is_not_alive() -> None:
    class Broken(FakeEngine):
        is_usable = False  # type: ignore[assignment]

    with running(Broken()) as generator:
        assert not generator.facts().is_alive
