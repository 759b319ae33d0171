"""What a constraint allows is all that a completion holds, and its end is the completion's."""

from __future__ import annotations

import numpy as np
import pytest

from influence.errors import InfluenceError, InvalidParameter
from support.fake_engine import VOCAB, FakeEngine
from support.generators import EOS, PROMPT, Cycle, params, running

GROUPS = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_completion_holds_only_what_is_allowed_and_ends_when_complete(temperature: float) -> None:
    constraint = Cycle(GROUPS, 7)
    with running(FakeEngine()) as generator:
        asked = params(50, sampling={"temperature": temperature})
        completion = generator.submit(PROMPT, asked, constraint=constraint).collect()
    assert completion.finish_reason == "stop"
    assert list(completion.token_ids) == constraint.accepted
    assert all(token_id in GROUPS[i % 3] for i, token_id in enumerate(completion.token_ids))
    assert len(completion.token_ids) == 7


def test_an_eos_ends_where_it_is_allowed_and_the_constraint_never_sees_it() -> None:
    constraint = Cycle(GROUPS, 1000, may_end=True)
    asked = params(100, ignore_eos=False, sampling={"logit_bias": {EOS: 3.0}})
    with running(FakeEngine()) as generator:
        completion = generator.submit(PROMPT, asked, constraint=constraint).collect()
    assert completion.finish_reason == "stop"
    assert constraint.accepted == list(completion.token_ids)
    assert EOS not in constraint.accepted


def test_the_length_may_end_it_first() -> None:
    with running(FakeEngine()) as generator:
        completion = generator.submit(PROMPT, params(4), constraint=Cycle(GROUPS, 7)).collect()
    assert (completion.finish_reason, len(completion.token_ids)) == ("length", 4)


def test_neighbours_keep_their_own_constraints() -> None:
    engine = FakeEngine(n_blocks=200)

    def answers(together: bool) -> list[tuple[int, ...]]:
        with running(engine) as generator:
            made = [
                lambda i=i: generator.submit(
                    [i, 2, 3],
                    params(sampling={"seed": i}),
                    constraint=Cycle(GROUPS[i % 3 :], 9) if i % 2 else None,
                )
                for i in range(8)
            ]
            if together:
                return [stream.collect().token_ids for stream in [submit() for submit in made]]
            return [submit().collect().token_ids for submit in made]

    assert answers(together=True) == answers(together=False)


class Failing(Cycle):
    def __init__(self, method: str, error: Exception) -> None:
        super().__init__(GROUPS, 9)
        self.method, self.error = method, error

    def allowed(self) -> np.ndarray:
        if self.method == "allowed" and len(self.accepted) == 3:
            raise self.error
        return super().allowed()

    def accept(self, token_id: int) -> None:
        super().accept(token_id)
        if self.method == "accept" and len(self.accepted) == 3:
            raise self.error


@pytest.mark.parametrize("method", ["allowed", "accept"])
@pytest.mark.parametrize("error", [InfluenceError("a dead end"), RuntimeError("a defect")])
def test_a_constraint_that_fails_ends_its_request_and_no_other(method: str, error: Exception) -> None:
    with running(FakeEngine()) as generator:
        bad = generator.submit(PROMPT, params(), constraint=Failing(method, error))
        good = generator.submit([5], params(), constraint=Cycle(GROUPS, 9))
        with pytest.raises(InfluenceError) as caught:
            bad.collect()
        assert caught.value is error or caught.value.__cause__ is error
        assert len(good.collect().token_ids) == 9


def test_a_constraint_without_any_token_left_is_an_error_not_a_wrong_token() -> None:
    with running(FakeEngine()) as generator, pytest.raises(InvalidParameter, match="allowed"):
        generator.submit(PROMPT, params(), constraint=Cycle([[]], 9)).collect()


def test_bans_of_every_token_but_eos_end_the_completion() -> None:
    # -100 is a bias, not a mask: where all tokens have it, none is preferred, and nothing is NaN.
    bans = dict.fromkeys(range(VOCAB), -100.0)
    with running(FakeEngine()) as generator:
        asked = params(ignore_eos=False, sampling={"logit_bias": {**bans, EOS: 0.0}})
        assert generator.submit(PROMPT, asked).collect().token_ids == ()
        greedy = generator.submit(PROMPT, params(sampling={"temperature": 0.0})).collect()
        banned = generator.submit(PROMPT, params(sampling={"temperature": 0.0, "logit_bias": bans}))
        assert banned.collect().token_ids == greedy.token_ids
