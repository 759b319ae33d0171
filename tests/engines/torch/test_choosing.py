"""Tokens chosen in tensors are those that `engines/sampling.py` chooses, row by row."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from hypothesis import given, settings
from hypothesis import strategies as st

from influence.engines import sampling
from influence.engines.sampling import Draw, SamplingParams, sample_row
from influence.engines.torch.choosing import DrawTensors, choose, is_plain, kind_of, uniform

LAW = settings(max_examples=150, deadline=None, derandomize=True)
params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1e-9, 0.3, 0.7, 1.0, 5.0]),
    top_k=st.sampled_from([0, 1, 2, 7, 40, 1000]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 2**64 - 1),
)


def chosen(rows: np.ndarray, all_params: list[SamplingParams], positions: list[int]) -> list[int]:
    draws = DrawTensors.empty(len(rows), torch.device("cpu"))
    draws.fill(all_params)
    kind = kind_of(all_params)
    ids: list[int] = choose(torch.from_numpy(rows), draws, torch.tensor(positions), kind).tolist()
    return ids


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
    random = np.random.default_rng(seed)
    rows = np.round(random.standard_normal((len(all_params), vocab_size)) * n_steps / 3).astype(np.float32)
    rows *= np.float32(9 / n_steps)
    positions = random.integers(0, 1 << 20, len(all_params)).tolist()
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


def test_what_needs_the_tokens_so_far_or_gives_more_than_a_token_is_not_plain() -> None:
    plain = Draw(0, 1, SamplingParams(), n_logprobs=-1)
    assert is_plain(plain)
    assert not is_plain(Draw(0, 1, SamplingParams(), n_logprobs=0))
    assert not is_plain(Draw(0, 1, SamplingParams(repeat_penalty=1.1), n_logprobs=-1))
    assert not is_plain(Draw(0, 1, SamplingParams(logit_bias={1: 2.0}), n_logprobs=-1))
    assert not is_plain(Draw(0, 1, SamplingParams(), n_logprobs=-1, allowed=np.ones(3, np.bool_)))
    assert not is_plain(Draw(0, 1, SamplingParams(), n_logprobs=-1, known_id=2))


def test_the_least_kind_that_does_is_taken() -> None:
    greedy, drawn = SamplingParams(temperature=0, top_k=5), SamplingParams(temperature=1)
    assert kind_of([greedy]) == "greedy"
    assert kind_of([greedy, drawn]) == "draw"
    assert kind_of([drawn, SamplingParams(top_p=0.5)]) == "filtered"
