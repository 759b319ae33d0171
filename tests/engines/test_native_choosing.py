"""Tokens chosen in the core, against the definition in numpy; rows differ by more than an exponential's rounding."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.engines import native
from influence.engines.base import Step
from influence.engines.choosing import sample_row
from influence.engines.sampling import Draw, SamplingParams
from influence.errors import NumericError
from support.random_specs import random_weights, small_spec

VOCAB_SIZE = 90
SPEC = small_spec(vocab_size=VOCAB_SIZE)
LAW = settings(derandomize=True, deadline=None, max_examples=300)

PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1e-9, 1e-7, 0.3, 0.7, 1.0, 5.0]),
    top_k=st.sampled_from([0, 1, 2, 7, 40, 89, 90, 1000]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 2**64 - 1),
)


@pytest.fixture(scope="module")
def engine() -> native.NativeEngine:
    engine = native.load(SPEC, random_weights(SPEC), threads=1)
    engine.forward([Step(engine.new_session(8), [1])])
    return engine


def chosen(engine: native.NativeEngine, row: np.ndarray, position: int, params: SamplingParams) -> int:
    engine.logits()[0] = row
    [sample] = engine.sample([Draw(0, position, params, n_logprobs=-1)])
    return sample.token_id


@given(
    params=PARAMS,
    n_steps=st.sampled_from([1, 3, 1000]),  # how many distinct logits: few make ties
    width=st.sampled_from([9.0, 90.0]),
    seed=st.integers(0, 9999),
)
@LAW
def test_the_token_is_that_of_the_definition(
    engine: native.NativeEngine, params: SamplingParams, n_steps: int, width: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    row = np.round(random.standard_normal(VOCAB_SIZE) * n_steps / 3).astype(np.float32)
    row *= np.float32(width / n_steps)
    position = int(random.integers(0, 1 << 20))
    expected = sample_row(row, Draw(0, position, params, n_logprobs=-1)).token_id
    assert chosen(engine, row, position, params) == expected


def test_tokens_come_as_often_as_the_softmax_says(engine: native.NativeEngine) -> None:
    row = np.full(VOCAB_SIZE, -math.inf, np.float32)
    row[[3, 40, 89]] = np.log([0.5, 0.3, 0.2])
    params = SamplingParams(temperature=1.0, seed=5)
    counts = Counter(chosen(engine, row, position, params) for position in range(4000))
    assert counts.keys() == {3, 40, 89}
    assert counts[3] / 4000 == pytest.approx(0.5, abs=0.03)
    assert counts[89] / 4000 == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 17, VOCAB_SIZE - 1])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_row_that_is_no_distribution_is_an_error(
    engine: native.NativeEngine, bad: float, place: int, temperature: float
) -> None:
    row = np.zeros(VOCAB_SIZE, np.float32)
    row[place] = bad
    with pytest.raises(NumericError, match="position 7"):
        chosen(engine, row, 7, SamplingParams(temperature=temperature))


def test_nothing_but_minus_infinity_is_an_error(engine: native.NativeEngine) -> None:
    with pytest.raises(NumericError, match="no finite logit"):
        chosen(engine, np.full(VOCAB_SIZE, -np.inf, np.float32), 1, SamplingParams())
