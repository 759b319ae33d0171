"""The kernel that draws a token chooses what the definition chooses, ties included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")
pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")

from influence.engines.choosing import choose, softmax_weights
from influence.engines.sampling import Draw, SamplingParams
from influence.engines.torch.choosing import DrawTensors
from influence.engines.torch.triton import drawing
from influence.engines.torch.triton.steps import pick
from support.kernel_device import DEVICE

BLOCK = drawing.BLOCK.value
FILTERS: list[dict[str, Any]] = [
    {},
    {"top_k": 1},
    {"top_k": 40},
    {"top_p": 0.0},
    {"top_p": 0.5},
    {"top_p": 0.99},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 3000, "top_p": 0.9, "min_p": 0.001},
    {"top_k": 7, "top_p": 0.6},
]


def assert_same(rows: np.ndarray, all_params: list[SamplingParams], filtered: bool) -> None:
    draws = [Draw(0, 17 * i, one, n_logprobs=-1) for i, one in enumerate(all_params)]
    tensors = DrawTensors.empty(len(rows), DEVICE)
    tensors.fill(draws, rows.shape[1], lambda host: host.to(DEVICE))
    weights = np.stack([softmax_weights(r, one.temperature) for r, one in zip(rows, all_params, strict=True)])
    positions = torch.tensor([draw.position for draw in draws], device=DEVICE)
    index = pick(torch.from_numpy(weights).to(DEVICE), tensors, positions, filtered).tolist()
    assert index == [choose(row, draw) for row, draw in zip(rows, draws, strict=True)]


@pytest.mark.parametrize("vocab_size", [1, 90, 5 * BLOCK + 3], ids=["one", "few", "many"])
@pytest.mark.parametrize("n_steps", [1, 4, 1000], ids=["all equal nearly", "ties", "none equal"])
def test_a_draw_is_the_definition_s(vocab_size: int, n_steps: int) -> None:
    random = np.random.default_rng(n_steps)
    rows = np.round(random.standard_normal((len(FILTERS), vocab_size)) * n_steps / 3).astype(np.float32)
    rows *= np.float32(9 / n_steps)
    params = [SamplingParams(temperature=1.3, seed=i, **one) for i, one in enumerate(FILTERS)]
    assert_same(rows, params, filtered=True)
    plain = [SamplingParams(temperature=0.7, seed=i) for i in range(len(FILTERS))]
    assert_same(rows, plain, filtered=False)


def test_a_flat_row_whose_kept_ones_are_more_than_a_block_is_cut_exactly() -> None:
    rows = np.zeros((3, 3 * BLOCK), np.float32)
    rows[1] = np.linspace(0, 0.5, 3 * BLOCK, dtype=np.float32)
    rows[2, ::2] = -1
    params = [SamplingParams(temperature=1.0, top_p=p, seed=s) for p, s in ((0.75, 3), (0.9, 4), (0.8, 9))]
    assert_same(rows, params, filtered=True)


def test_of_two_equals_the_first_reaches_half() -> None:
    rows = np.array([[-50.0, 0.0, 0.0, -50.0]] * 9, np.float32)
    assert_same(rows, [SamplingParams(temperature=1.0, top_p=0.5, seed=s) for s in range(9)], filtered=True)
