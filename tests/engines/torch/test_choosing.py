"""Tokens chosen in tensors are those that `engines/choosing.py` chooses, row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from hypothesis import given, settings
from hypothesis import strategies as st

from influence.engines import sampling
from influence.engines.choosing import sample_row
from influence.engines.sampling import Draw, Sample, SamplingParams
from influence.engines.torch.adjusting import adjusted
from influence.engines.torch.choosing import (
    Choice,
    DrawTensors,
    kind_of,
    largest,
    outcomes,
    pick,
    runs_ahead,
    samples_of,
    uniform,
)
from influence.errors import InvalidParameter, NumericError

LAW = settings(max_examples=150, deadline=None, derandomize=True)
params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1e-9, 0.3, 0.7, 1.0, 5.0]),
    top_k=st.sampled_from([0, 1, 2, 7, 40, 1000]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 2**64 - 1),
)


def samples(rows: np.ndarray, draws: list[Draw]) -> list[Sample]:
    vocab_size, positions = rows.shape[1], [draw.position for draw in draws]
    tensors = DrawTensors.empty(len(rows), torch.device("cpu"))
    tensors.fill(draws, vocab_size, lambda host: host)
    choice = Choice.of(draws, vocab_size)
    found = torch.full((len(rows), choice.n_columns), torch.nan, dtype=torch.float64)
    outcomes(
        torch.from_numpy(rows), tensors, torch.tensor(positions), choice, found, pick=pick, adjust=adjusted
    )
    return samples_of(found.tolist(), draws, positions)


def chosen(rows: np.ndarray, all_params: list[SamplingParams], positions: list[int]) -> list[int]:
    both = zip(positions, all_params, strict=True)
    draws = [Draw(0, position, one, n_logprobs=-1) for position, one in both]
    return [sample.token_id for sample in samples(rows, draws)]


def logits_of(seed: int, n: int, vocab_size: int, n_steps: int) -> np.ndarray:
    """Normally distributed and rounded: the fewer steps, the more ties."""
    random = np.random.default_rng(seed)
    rows = np.round(random.standard_normal((n, vocab_size)) * n_steps / 3).astype(np.float32)
    return rows * np.float32(9 / n_steps)


@given(
    all_params=st.lists(params, min_size=1, max_size=5),
    vocab_size=st.integers(1, 90),
    n_steps=st.sampled_from([1, 3, 1000]),  # how many distinct logits: few make ties
    seed=st.integers(0, 999),
)
@LAW
def test_the_tokens_are_those_of_the_definition(
    all_params: list[SamplingParams], vocab_size: int, n_steps: int, seed: int
) -> None:
    rows = logits_of(seed, len(all_params), vocab_size, n_steps)
    positions = np.random.default_rng(seed).integers(0, 1 << 20, len(all_params)).tolist()
    expected = [
        sample_row(row, Draw(0, position, one, n_logprobs=-1)).token_id
        for row, position, one in zip(rows, positions, all_params, strict=True)
    ]
    assert chosen(rows, all_params, positions) == expected


def test_the_random_numbers_are_the_same_bits() -> None:
    seeds, positions = [0, 1, 2**63, 2**64 - 1], [0, 1, 12345, 2**31]
    mixed = np.array([sampling.mixed_seed(seed) for seed in seeds], np.uint64).view(np.int64)
    actual = uniform(torch.from_numpy(mixed), torch.tensor(positions)).tolist()
    assert actual == [sampling.uniform(seed, p) for seed, p in zip(seeds, positions, strict=True)]


def test_of_equals_a_greedy_draw_takes_the_lowest_id() -> None:
    rows = np.array([[1, 3, 3, 2], [5, 5, 5, 5]], np.float32)
    assert chosen(rows, [SamplingParams(temperature=0)] * 2, [0, 1]) == [1, 0]


@st.composite
def adjusted_draws(draw: st.DrawFn, vocab_size: int) -> Draw:
    """Draws with all that can be asked: biases, penalties, a mask, a token that is known, log probabilities."""
    ids = st.lists(st.integers(0, vocab_size - 1), unique=True, max_size=vocab_size)
    generated = draw(ids)
    counts = st.lists(st.integers(1, 5), min_size=len(generated), max_size=len(generated))
    allowed = np.zeros(vocab_size, np.bool_)
    allowed[draw(st.lists(st.integers(0, vocab_size - 1), min_size=1))] = True
    return Draw(
        row=0,
        position=draw(st.integers(0, 1 << 20)),
        params=replace(
            draw(params),
            repeat_penalty=draw(st.sampled_from([1.0, 1.3, 0.5])),
            presence_penalty=draw(st.sampled_from([0.0, 0.7, -2.0])),
            frequency_penalty=draw(st.sampled_from([0.0, 0.1, -0.3])),
            logit_bias=draw(st.dictionaries(st.integers(0, vocab_size - 1), st.sampled_from([-100.0, 1.5]))),
        ),
        prompt_ids=np.array(draw(ids), np.int64),
        generated_ids=np.array(generated, np.int64),
        generated_counts=np.array(draw(counts), np.int64),
        allowed=draw(st.sampled_from([None, allowed])),
        n_logprobs=draw(st.sampled_from([-1, 0, 1, 4, 20])),
        known_id=draw(st.sampled_from([None, None, None, vocab_size - 1])),
    )


@given(data=st.data(), n_steps=st.sampled_from([1, 3, 1000]), seed=st.integers(0, 999))
@LAW
def test_biases_penalties_masks_and_log_probabilities_are_those_of_the_definition(
    data: st.DataObject, n_steps: int, seed: int
) -> None:
    vocab_size = data.draw(st.integers(1, 60))
    draws = data.draw(st.lists(adjusted_draws(vocab_size), min_size=1, max_size=4))
    rows = logits_of(seed, len(draws), vocab_size, n_steps)
    for actual, row, draw in zip(samples(rows, draws), rows, draws, strict=True):
        expected = sample_row(row, draw)
        assert actual.token_id == expected.token_id
        assert [i for i, _ in actual.top_logprobs] == [i for i, _ in expected.top_logprobs]
        numbers, right = (
            [0.0 if s.logprob is None else s.logprob, *(p for _, p in s.top_logprobs)]
            for s in (actual, expected)
        )
        np.testing.assert_allclose(numbers, right, rtol=1e-6, atol=1e-6)


def test_likeliest_tokens_of_equals_and_of_both_zeros_come_by_their_ids() -> None:
    rows = torch.tensor([[0.0, -0.0, -torch.inf, 0.0, -1.0], [-2.0, -1.0, 3.0, 3.0, -1.0]])
    assert largest(rows, 5).tolist() == [[0, 1, 3, 4, 2], [2, 3, 1, 4, 0]]


def test_a_ban_of_every_token_and_a_row_that_is_no_number_are_errors() -> None:
    row = np.zeros((1, 3), np.float32)
    with pytest.raises(InvalidParameter, match="allowed"):
        samples(row, [Draw(0, 5, SamplingParams(), allowed=np.zeros(3, np.bool_))])
    row[0, 1] = np.nan
    with pytest.raises(NumericError, match="position 5"):
        samples(row, [Draw(0, 5, SamplingParams(logit_bias={1: 1.0}))])


def test_a_token_that_does_not_exist_is_refused_before_the_device_sees_it() -> None:
    with pytest.raises(InvalidParameter, match="token_id"):
        samples(np.zeros((1, 3), np.float32), [Draw(0, 5, SamplingParams(logit_bias={3: 1.0}))])


def test_a_mask_and_a_token_that_is_known_need_the_host() -> None:
    plain = Draw(0, 1, SamplingParams(repeat_penalty=1.1, logit_bias={1: 2.0}), n_logprobs=5)
    assert runs_ahead(plain)
    assert not runs_ahead(replace(plain, allowed=np.ones(3, np.bool_)))
    assert not runs_ahead(replace(plain, known_id=2))


def test_the_least_that_does_for_all_is_chosen() -> None:
    greedy, drawn = SamplingParams(temperature=0, top_k=5), SamplingParams(temperature=1)
    assert kind_of([greedy]) == "greedy"
    assert kind_of([greedy, drawn]) == "draw"
    assert kind_of([drawn, SamplingParams(top_p=0.5)]) == "filtered"
    draws = [Draw(0, 1, greedy, n_logprobs=-1), Draw(1, 1, greedy, n_logprobs=3)]
    assert Choice.of(draws[:1], 100) == Choice("greedy", adjusts=False, n_top=-1)
    assert Choice.of(draws, 100) == Choice("greedy", adjusts=False, n_top=5)
    assert Choice.of(draws, 2).n_top == 2
    known = Draw(0, 1, replace(drawn, repeat_penalty=2.0), known_id=3)
    assert Choice.of([known], 100) == Choice("greedy", adjusts=False, n_top=0, knows=True)
