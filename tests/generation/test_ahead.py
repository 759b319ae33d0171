"""On an engine that feeds tokens to itself the loop is a step behind, and nobody can tell by the texts."""

from __future__ import annotations

import pytest

from influence.engines.base import Step
from influence.errors import NumericError
from support.fake_engine import FakeEngine
from support.generators import PROMPT, facts, params, running


def ahead_engine() -> FakeEngine:
    engine = FakeEngine()
    engine.runs_ahead = True
    return engine


def test_a_run_gives_the_text_of_single_steps() -> None:
    engine = ahead_engine()
    with running(FakeEngine()) as generator:
        expected = [facts(generator.submit(PROMPT, params(n)).collect()) for n in (1, 2, 3, 20)]
    with running(engine) as generator:
        assert [facts(generator.submit(PROMPT, params(n)).collect()) for n in (1, 2, 3, 20)] == expected
    assert engine.n_ahead > 18


def test_a_stop_is_noticed_a_step_late_and_leaves_nothing_behind() -> None:
    with running(FakeEngine()) as generator:
        whole = generator.submit(PROMPT, params(20)).collect()
    stop = whole.text[3:5]
    with running(ahead_engine()) as generator:
        ended = generator.submit(PROMPT, params(20, stop=(stop,))).collect()
        assert (ended.finish_reason, ended.text) == ("stop", whole.text[: whole.text.index(stop)])
        again = generator.submit([*PROMPT, *ended.token_ids], params(5)).collect()
        assert again.token_ids == whole.token_ids[len(ended.token_ids) :][:5]


def test_who_comes_and_who_is_cancelled_ends_the_run_and_the_others_go_on() -> None:
    engine = ahead_engine()
    with running(FakeEngine()) as generator:
        expected = [facts(generator.submit([*PROMPT, i], params(30)).collect()) for i in range(3)]
    with running(engine) as generator:
        cancelled = generator.submit([*PROMPT, 9], params(200))
        next(iter(cancelled))
        streams = [generator.submit([*PROMPT, i], params(30)) for i in range(3)]
        next(iter(streams[0]))
        cancelled.cancel()
        found = [facts(stream.collect()) for stream in streams[1:]]
    assert found == expected[1:]


def test_an_engine_that_fails_in_a_run_fails_the_one_whose_fault_it_is() -> None:
    engine = ahead_engine()
    with running(FakeEngine()) as generator:
        expected = facts(generator.submit([*PROMPT, 1], params(8)).collect())
        tokens = generator.submit([*PROMPT, 2], params(20)).collect().token_ids
    with running(engine) as generator:
        harmless = {*PROMPT, 1, 2, *expected.token_ids}
        engine.poison = frozenset({next(token for token in tokens if token not in harmless)})
        good = generator.submit([*PROMPT, 1], params(8))
        bad = generator.submit([*PROMPT, 2], params(20))
        with pytest.raises(NumericError):
            bad.collect()
        assert facts(good.collect()) == expected


def test_a_constraint_and_counts_need_the_host_and_do_not_run_ahead() -> None:
    engine = ahead_engine()
    with running(engine) as generator:
        generator.submit(PROMPT, params(9, sampling={"repeat_penalty": 1.3})).collect()
    assert engine.n_ahead == 0


def test_a_run_that_can_not_begin_is_a_step_like_others() -> None:
    engine = ahead_engine()

    def refuse(steps: list[Step], draws: object) -> None:
        raise MemoryError

    engine.decode_ahead = refuse  # type: ignore[assignment]
    with running(engine) as generator:
        assert len(generator.submit(PROMPT, params(9)).collect().token_ids) == 9
