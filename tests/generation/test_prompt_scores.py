"""How likely a prompt's own tokens were: the numbers that evaluation harnesses read."""

from __future__ import annotations

import numpy as np
import pytest

from influence.errors import NumericError
from influence.generation.events import Finished, PromptScored, TextDelta
from support.fake_engine import VOCAB, FakeEngine
from support.generation_oracle import scores_of
from support.generators import PROMPT, params, running

LONG = [i * 7 % 30 for i in range(100)]


@pytest.mark.parametrize("n_top", [0, 3])
@pytest.mark.parametrize("max_tokens", [0, 1, 5])
@pytest.mark.parametrize("prompt", [[4], PROMPT, LONG], ids=len)
def test_each_token_of_the_prompt_has_the_score_that_its_own_row_gives(
    prompt: list[int], max_tokens: int, n_top: int
) -> None:
    engine = FakeEngine()
    with running(engine) as generator:
        completion = generator.submit(prompt, params(max_tokens, prompt_logprobs=n_top)).collect()
    assert list(completion.prompt_logprobs) == list(scores_of(engine, prompt, n_top, 256))
    assert len(completion.token_ids) == max_tokens


def test_the_likeliest_token_has_the_very_number_that_stands_first_in_its_list() -> None:
    engine, prompt = FakeEngine(), [3]
    for _ in range(20):  # a greedy continuation, token by token
        prompt.append(int(engine.logits_after(prompt, 256).argmax()))
    with running(engine) as generator:
        completion = generator.submit(prompt, params(0, prompt_logprobs=1)).collect()
    for sample in completion.prompt_logprobs[1:]:
        assert sample is not None
        assert sample.top_logprobs == ((sample.token_id, sample.logprob),)


def test_scores_come_before_any_text_and_the_text_is_what_it_is_without_them() -> None:
    engine = FakeEngine()
    with running(engine) as generator:
        first, *deltas, end = list(generator.submit(PROMPT, params(prompt_logprobs=0)))
        plain = generator.submit(PROMPT, params()).collect()
    assert isinstance(first, PromptScored)
    assert isinstance(end, Finished)
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == plain.text
    assert plain.prompt_logprobs == ()


def test_a_prompt_that_is_only_scored_runs_all_but_its_last_token() -> None:
    engine = FakeEngine()
    with running(engine) as generator:
        completion = generator.submit(PROMPT, params(0, prompt_logprobs=0)).collect()
    assert engine.n_tokens == len(PROMPT) - 1
    assert (completion.finish_reason, completion.statistics.completion_tokens) == ("length", 0)
    assert completion.statistics.first_token_s is None


def test_a_scored_prompt_is_computed_anew_and_then_serves_others() -> None:
    with running(FakeEngine()) as generator:
        generator.submit(LONG, params()).collect()
        again = generator.submit(LONG, params(0, prompt_logprobs=0)).collect()
        assert again.statistics.cached_tokens == 0
        longer = generator.submit([*LONG, 1, 2], params()).collect()
        assert longer.statistics.cached_tokens == len(LONG)


def test_rows_of_logits_in_one_step_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence.generation.loop.SCORED_BYTES", 4 * VOCAB * 10)
    engine, n_rows = FakeEngine(n_blocks=200), list[int]()
    engine.before_forward = lambda steps: n_rows.append(sum(step.n_logits for step in steps))
    with running(engine, tokens_per_step=64) as generator:
        streams = [generator.submit([i, *LONG], params(3, prompt_logprobs=0)) for i in range(3)]
        for i, stream in enumerate(streams):
            assert list(stream.collect().prompt_logprobs) == list(scores_of(engine, [i, *LONG], 0, 256))
    assert max(n_rows) <= 10 + 3  # beside the rows of those that decode


def test_scored_prompts_in_company_keep_their_own_numbers() -> None:
    engine = FakeEngine(n_blocks=300)
    prompts = [[i % 5, *LONG[: 3 * i], i] for i in range(12)]
    with running(engine) as generator:
        streams = [
            generator.submit(p, params(i % 3, prompt_logprobs=2 if i % 2 else -1))
            for i, p in enumerate(prompts)
        ]
        for i, (prompt, stream) in enumerate(zip(prompts, streams, strict=True)):
            expected = list(scores_of(engine, prompt, 2, 256)) if i % 2 else []
            assert list(stream.collect().prompt_logprobs) == expected


def test_a_prompt_on_which_the_model_gives_nan_fails_to_be_scored() -> None:
    engine = FakeEngine()
    engine.poison = frozenset({30})
    with running(engine) as generator:
        bad = generator.submit([1, 2, 30, 4, 5], params(0, prompt_logprobs=0))
        good = generator.submit([1, 2, 4, 5], params(0, prompt_logprobs=0))
        with pytest.raises(NumericError):
            bad.collect()
        assert np.isfinite([s.logprob for s in good.collect().prompt_logprobs if s is not None]).all()
