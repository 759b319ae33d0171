"""Sampling against transformers' logits processors, OpenAI's formula, and what can be read off."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from influence.engines.choosing import (
    adjusted,
    candidate_filters,
    draw_index,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    largest,
    log_sum_exp,
    sample_row,
    softmax_weights,
)
from influence.engines.sampling import GREEDY_BELOW, Draw, SamplingParams, uniform
from influence.errors import InvalidParameter, NumericError

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)
LOGITS = hnp.arrays(np.float32, st.integers(2, 60), elements=st.floats(-30, 30, width=32))


def params(**values: object) -> SamplingParams:
    return SamplingParams(**{"temperature": 1.0, **values})  # type: ignore[arg-type]


def random_row(n: int = 1000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32) * 3


def chosen(row: np.ndarray, position: int = 0, **values: object) -> int:
    return sample_row(row, Draw(0, position, params(**values))).token_id


# Parameters.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", v) for v in (math.nan, -1, -1e-9, 100.5, 1e30, math.inf, "1", None, True)],
        *[("top_p", v) for v in (math.nan, -0.1, 1.1, 2, "0.9")],
        *[("min_p", v) for v in (math.nan, -0.1, 1.1)],
        *[("top_k", v) for v in (-1, 1.5, "40", True, None)],
        *[("repeat_penalty", v) for v in (0, -1, math.nan, math.inf, 1e-30, 101)],
        *[("presence_penalty", v) for v in (math.nan, 101, -math.inf)],
        *[("frequency_penalty", v) for v in (math.nan, -101, math.inf)],
        *[("seed", v) for v in (1.0, "7", None, False)],
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidParameter) as caught:
        params(**{name: value})
    assert caught.value.name == name
    assert caught.value.value is value
    assert caught.value.expected in str(caught.value)


@pytest.mark.parametrize(
    "bias",
    [
        {-1: 1.0},
        {"1": 1.0},
        {1.0: 1.0},
        {True: 1.0},
        {0: math.nan},
        {0: math.inf},
        {0: 100.1},
        {0: "1"},
        dict.fromkeys(range(1025), 0.0),
    ],
)
def test_a_bad_logit_bias_is_refused(bias: dict[int, float]) -> None:
    with pytest.raises(InvalidParameter, match="logit_bias"):
        params(logit_bias=bias)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0},
        {"temperature": 100},
        {"temperature": 1e-30},
        {"top_p": 0},
        {"top_p": 1},
        {"min_p": 1},
        {"top_k": 10**9},
        {"repeat_penalty": 0.01},
        {"presence_penalty": -100},
        {"logit_bias": {0: 100.0, 999: -100.0}},
    ],
)
def test_the_ends_of_the_ranges_are_accepted_and_give_a_token(values: dict[str, object]) -> None:
    assert 0 <= chosen(random_row(), **values) < 1000


def test_params_can_not_be_changed_through_the_mapping_they_were_made_of() -> None:
    bias = {1: 2.0}
    made = params(logit_bias=bias)
    bias[1] = math.nan
    assert made.logit_bias == {1: 2.0}


@pytest.mark.parametrize("seed", [-1, 2**64 - 1, 2**128 - 1])
def test_a_seed_counts_by_its_low_64_bits(seed: int) -> None:
    assert params(seed=seed).seed == 2**64 - 1


# Greedy.


def test_greedy_takes_the_likeliest_and_of_equals_the_lowest_id() -> None:
    row = np.array([0, 3, 1, 3, 2], np.float32)
    assert chosen(row, temperature=0) == 1
    assert chosen(row[::-1].copy(), temperature=0) == 1


@PROPERTY
@given(LOGITS, st.integers(0, 2**64), st.sampled_from([0.0, 1e-45, 1e-30, GREEDY_BELOW / 2]))
def test_a_tiny_temperature_is_greedy(row: np.ndarray, seed: int, temperature: float) -> None:
    assert chosen(row, seed=seed, temperature=temperature) == int(np.argmax(row))


def test_the_smallest_temperature_that_draws_can_only_choose_among_equals() -> None:
    row = np.array([8.0, np.nextafter(np.float32(8), np.float32(9)), 7.0], np.float32)
    assert {chosen(row, position, temperature=GREEDY_BELOW) for position in range(200)} == {1}


# Filters, each against transformers.


def kept_by_transformers(warper: object, row: np.ndarray) -> set[int]:
    torch = pytest.importorskip("torch")

    scores = warper(torch.zeros((1, 1), dtype=torch.long), torch.from_numpy(row)[None].clone())  # type: ignore[operator]
    return set(np.flatnonzero(np.isfinite(scores[0].numpy())).tolist())


def kept_by_us(row: np.ndarray, **values: object) -> set[int]:
    made = params(**values)
    weights = softmax_weights(row, made.temperature)
    ids = np.arange(row.size)
    for keep in candidate_filters(made):
        ids = ids[keep(weights[ids])]
    return set(ids.tolist())


@pytest.mark.parametrize("k", [1, 2, 50, 999, 1000, 5000])
def test_top_k_keeps_what_transformers_keeps(k: int) -> None:
    TopKLogitsWarper = pytest.importorskip("transformers").TopKLogitsWarper

    row = random_row(seed=k)
    assert kept_by_us(row, top_k=k) == kept_by_transformers(TopKLogitsWarper(k), row)


@pytest.mark.parametrize("p", [0.0, 0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_top_p_keeps_what_transformers_keeps(p: float, seed: int) -> None:
    TopPLogitsWarper = pytest.importorskip("transformers").TopPLogitsWarper

    row = random_row(seed=seed)
    assert kept_by_us(row, top_p=p) == kept_by_transformers(TopPLogitsWarper(p), row)


@pytest.mark.parametrize("p", [0.001, 0.05, 0.5, 1.0])
def test_min_p_keeps_what_transformers_keeps(p: float) -> None:
    MinPLogitsWarper = pytest.importorskip("transformers").MinPLogitsWarper

    row = random_row(seed=7)
    assert kept_by_us(row, min_p=p) == kept_by_transformers(MinPLogitsWarper(p), row)


@pytest.mark.parametrize("seed", range(5))
def test_the_whole_chain_gives_the_distribution_of_transformers(seed: int) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        SequenceBiasLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    prompt, generated = [3, 5, 5, 9], [5, 11]
    chain = LogitsProcessorList(
        [
            SequenceBiasLogitsProcessor([[[7], 4.0], [[2], -3.0]]),
            RepetitionPenaltyLogitsProcessor(1.3),
            TemperatureLogitsWarper(0.6),
            TopKLogitsWarper(60),
            TopPLogitsWarper(0.95),
            MinPLogitsWarper(0.02),
        ]
    )
    row = random_row(300, seed)
    scores = chain(torch.tensor([prompt + generated]), torch.from_numpy(row)[None].clone())
    expected = torch.softmax(scores[0].double(), 0).numpy()

    made = params(
        temperature=0.6, top_k=60, top_p=0.95, min_p=0.02, repeat_penalty=1.3, logit_bias={7: 4.0, 2: -3.0}
    )
    draw = Draw(0, 0, made, np.array([3, 5, 9]), np.array([5, 11]), np.array([1, 1]))
    weights = softmax_weights(adjusted(row, draw), made.temperature)
    ids = np.arange(row.size)
    for keep in candidate_filters(made):
        ids = ids[keep(weights[ids])]
    ours = np.zeros(row.size)
    ours[ids] = weights[ids] / weights[ids].sum(dtype=np.float64)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-9)


def test_top_k_keeps_all_that_equal_the_kth() -> None:
    assert keep_top_k(np.array([4, 2, 2, 1], np.float32), 2).tolist() == [True, True, True, False]


def test_top_p_keeps_the_lower_ids_of_equals() -> None:
    weights = np.array([1, 2, 1, 2, 1, 1], np.float32)
    assert keep_top_p(weights, 0.6).tolist() == [True, True, False, True, False, False]


@PROPERTY
@given(LOGITS, st.floats(0, 1, exclude_max=True))
def test_top_p_keeps_a_smallest_set_that_reaches_p(row: np.ndarray, p: float) -> None:
    weights = softmax_weights(row, 1.0).astype(np.float64)
    kept = keep_top_p(weights.astype(np.float32), p)
    assert kept.any()
    assert weights[kept].min() >= weights[~kept].max(initial=0)
    assert weights[kept].sum() >= p * weights.sum() * (1 - 1e-12)
    assert weights[kept].sum() - weights[kept].min() <= p * weights.sum() * (1 + 1e-12)


def test_min_p_of_one_keeps_the_likeliest_and_its_equals() -> None:
    assert keep_min_p(np.array([1, 0.5, 1], np.float32), 1.0).tolist() == [True, False, True]


# Penalties and bias.


@PROPERTY
@given(
    LOGITS,
    st.floats(0.1, 10),
    st.lists(st.integers(0, 1), max_size=8),
    st.lists(st.integers(0, 1), max_size=8),
)
def test_the_repeat_penalty_is_that_of_transformers(
    row: np.ndarray, penalty: float, prompt: list[int], generated: list[int]
) -> None:
    torch = pytest.importorskip("torch")
    RepetitionPenaltyLogitsProcessor = pytest.importorskip("transformers").RepetitionPenaltyLogitsProcessor

    ids = np.unique(np.asarray(generated, np.int64))
    draw = Draw(
        0, 0, params(repeat_penalty=penalty), np.unique(np.asarray(prompt, np.int64)), ids, np.ones_like(ids)
    )
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    expected = processor(
        torch.tensor([prompt + generated], dtype=torch.long), torch.from_numpy(row)[None].clone()
    )
    np.testing.assert_allclose(adjusted(row, draw), expected[0].numpy(), rtol=1e-6)


@PROPERTY
@given(LOGITS, st.floats(-2, 2), st.floats(-2, 2), st.lists(st.integers(0, 1), max_size=20))
def test_presence_and_frequency_are_those_of_openai(
    row: np.ndarray, presence: float, frequency: float, generated: list[int]
) -> None:
    # mu[j] -> mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence
    counts = Counter(generated)
    expected = [
        mu - counts[j] * frequency - float(counts[j] > 0) * presence for j, mu in enumerate(row.tolist())
    ]
    draw = Draw(
        0,
        0,
        params(presence_penalty=presence, frequency_penalty=frequency),
        prompt_ids=np.array([0, 1]),  # the prompt does not count
        generated_ids=np.array(list(counts), np.int64),
        generated_counts=np.array(list(counts.values()), np.int64),
    )
    np.testing.assert_allclose(adjusted(row, draw), expected, atol=1e-5)


def test_a_bias_forces_and_bars_tokens() -> None:
    row = random_row(50)
    assert all(chosen(row, position, logit_bias={17: 100.0}) == 17 for position in range(50))
    barred = {i: -100.0 for i in range(50) if i != 3}
    assert all(chosen(row, position, logit_bias=barred) == 3 for position in range(50))


def test_a_bias_of_minus_100_on_every_token_changes_nothing() -> None:
    row = np.round(random_row(50))
    everywhere = dict.fromkeys(range(50), -100.0)
    assert [chosen(row, i, logit_bias=everywhere) for i in range(50)] == [chosen(row, i) for i in range(50)]


def test_the_row_itself_is_never_changed() -> None:
    row = random_row(50)
    before = row.copy()
    ids = np.arange(5)
    made = params(repeat_penalty=2.0, presence_penalty=1, logit_bias={1: 1.0}, top_k=5, top_p=0.5)
    sample_row(row, Draw(0, 0, made, ids, ids, ids, allowed=np.arange(50) % 2 == 0, n_logprobs=3))
    assert np.array_equal(row, before)


def test_a_mask_bars_tokens_whatever_else_is_asked() -> None:
    allowed = np.zeros(100, np.bool_)
    allowed[[4, 8]] = True
    draws = [Draw(0, i, params(logit_bias={5: 100.0}), allowed=allowed) for i in range(100)]
    assert {sample_row(random_row(100), draw).token_id for draw in draws} == {4, 8}


# Bad rows.


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_errors_with_their_position(bad: float, temperature: float) -> None:
    row = random_row()
    row[77] = bad
    with pytest.raises(NumericError) as caught:
        chosen(row, 41, temperature=temperature)
    assert caught.value.position == 41


def test_a_row_of_nothing_but_minus_infinity_is_an_error() -> None:
    with pytest.raises(NumericError):
        chosen(np.full(10, -np.inf, np.float32))


def test_minus_infinity_bars_a_token() -> None:
    row = np.array([-np.inf, 1.0, -np.inf], np.float32)
    sample = sample_row(row, Draw(0, 0, params(), n_logprobs=3))
    assert sample.token_id == 1
    assert sample.top_logprobs == ((1, 0.0), (0, -math.inf), (2, -math.inf))


def test_a_ban_of_every_token_is_an_error() -> None:
    with pytest.raises(InvalidParameter, match="every token"):
        sample_row(random_row(5), Draw(0, 0, params(), allowed=np.zeros(5, np.bool_)))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_at_the_ends_of_float32_do_not_overflow_into_nonsense(temperature: float) -> None:
    huge = np.finfo(np.float32).max
    assert chosen(np.array([-huge, huge, 0], np.float32), temperature=temperature) == 1
    draw = Draw(0, 9, params(temperature=temperature, repeat_penalty=0.01), np.array([1]))
    with pytest.raises(NumericError):
        sample_row(np.array([-huge, huge, 0], np.float32), draw)


# The draw.


def test_the_generator_is_splitmix64_for_seed_0() -> None:
    # The first outputs of Vigna's splitmix64.c from state 0.
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert [uniform(0, i) for i in range(4)] == [(output >> 11) / 2**53 for output in outputs]


def test_uniform_is_uniform_over_positions_and_over_seeds() -> None:
    over_positions = np.array([uniform(1, i) for i in range(20_000)])
    over_seeds = np.array([uniform(i, 100) for i in range(20_000)])
    for values in (over_positions, over_seeds):
        assert values.min() >= 0 and values.max() < 1
        counts = np.histogram(values, bins=20, range=(0, 1))[0]
        chi_square = ((counts - 1000) ** 2 / 1000).sum()
        assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(over_positions[:-1], over_positions[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(over_positions, over_seeds)[0, 1]) < 0.03


def test_draws_follow_the_distribution() -> None:
    row = np.log(np.array([0.5, 0.2, 0.2, 0.1], np.float32))
    counts = np.bincount([chosen(row, i, seed=3) for i in range(10_000)], minlength=4)
    expected = np.array([5000, 2000, 2000, 1000])
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # 3 degrees of freedom, p = 0.001


@PROPERTY
@given(
    hnp.arrays(np.float32, st.integers(1, 30), elements=st.sampled_from([0.0, 1e-45, 1e-7, 1.0])),
    st.integers(0),
)
def test_a_token_of_no_weight_is_never_drawn(weights: np.ndarray, seed: int) -> None:
    weights[seed % weights.size] = 1.0
    assert weights[draw_index(weights, seed, 0)] > 0


@PROPERTY
@given(LOGITS, st.integers(0, 2**64 - 1), st.integers(0, 10_000))
def test_a_draw_depends_on_nothing_but_row_seed_and_position(
    row: np.ndarray, seed: int, position: int
) -> None:
    first = chosen(row, position, seed=seed)
    batch = np.stack([row + 1, row, row * 2])  # a row in company lies elsewhere in memory
    assert chosen(batch[1], position, seed=seed) == first


@pytest.mark.parametrize(
    ("target", "index"), [(0.0, 1), (0.24, 1), (0.25, 3), (0.5, 3), (0.75, 4), (1 - 2**-53, 4)]
)
def test_a_draw_takes_the_first_index_whose_sum_exceeds_the_target(
    monkeypatch: pytest.MonkeyPatch, target: float, index: int
) -> None:
    monkeypatch.setattr("influence.engines.choosing.uniform", lambda seed, position: target)
    assert draw_index(np.array([0, 1, 0, 2, 1, 0], np.float32), 0, 0) == index


# Log probabilities.


@PROPERTY
@given(LOGITS, st.integers(0, 20), st.integers(0, 100))
def test_logprobs_are_those_of_the_unmodified_distribution(row: np.ndarray, n: int, position: int) -> None:
    torch = pytest.importorskip("torch")

    expected = torch.log_softmax(torch.from_numpy(row).double(), 0).numpy()
    made = params(temperature=2.0, logit_bias={0: 5.0}, top_k=3)
    sample = sample_row(row, Draw(0, position, made, n_logprobs=n))
    assert sample.logprob == pytest.approx(expected[sample.token_id], abs=2e-6)
    assert len(sample.top_logprobs) == min(n, row.size)
    values = [value for _, value in sample.top_logprobs]
    assert values == sorted(values, reverse=True)
    for token_id, value in sample.top_logprobs:
        assert value == pytest.approx(expected[token_id], abs=2e-6)
        if token_id == sample.token_id:
            assert value == sample.logprob  # to the bit


def test_no_logprobs_are_computed_unless_asked_for() -> None:
    sample = sample_row(random_row(), Draw(0, 0, params(), n_logprobs=-1))
    assert (sample.logprob, sample.top_logprobs) == (None, ())


@PROPERTY
@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([-1.0, 0.0, 2.0])), st.integers(0, 50)
)
def test_the_largest_are_those_of_a_stable_sort(values: np.ndarray, n: int) -> None:
    assert largest(values, n).tolist() == np.argsort(-values, kind="stable")[:n].tolist()


def test_log_sum_exp_does_not_overflow() -> None:
    assert log_sum_exp(np.array([1000, 1000, -1000], np.float32)) == pytest.approx(1000 + math.log(2))
