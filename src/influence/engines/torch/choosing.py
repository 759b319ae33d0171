"""Tokens chosen from logits where they lie: `engines/sampling.py` for many rows at once, in tensors.

The same token as there for the same logits and draw: argmax takes the first of
equals, filters keep what it keeps (ties included), sums are float64 in index
order, and the random number is the same function of (seed, position). What is
not here (penalties, bias, masks, log probabilities) is that module's, on a copy
of the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

import torch
from influence.engines.sampling import GREEDY_BELOW, Draw, SamplingParams, mixed_seed
from torch import Tensor

# What a batch of draws asks for: each kind computes all that the one before it does.
Kind = Literal["greedy", "draw", "filtered"]

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # of `sampling.uniform`, as a signed number
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


def is_plain(draw: Draw) -> bool:
    """Whether `choose` can do all that the draw asks."""
    params = draw.params
    return (
        draw.allowed is None
        and draw.known_id is None
        and draw.n_logprobs < 0
        and not params.logit_bias
        and not params.counts_tokens
    )


def kind_of(params: Sequence[SamplingParams]) -> Kind:
    """The least that does for all of them."""
    drawn = [one for one in params if not one.is_greedy]
    if not drawn:
        return "greedy"
    has_filters = any(one.top_k or one.top_p < 1 or one.min_p > 0 for one in drawn)
    return "filtered" if has_filters else "draw"


@dataclass(frozen=True, slots=True)
class DrawTensors:
    """Sampling parameters of n rows, on the device."""

    temperature: Tensor  # (n,) float32
    top_k: Tensor  # (n,) int64, 0: all
    top_p: Tensor  # (n,) float64
    min_p: Tensor  # (n,) float32
    seed: Tensor  # (n,) int64: mixed, its 64 bits

    @classmethod
    def empty(cls, n: int, device: torch.device) -> DrawTensors:
        """Greedy draws."""
        return cls(
            torch.zeros(n, dtype=torch.float32, device=device),
            torch.zeros(n, dtype=torch.int64, device=device),
            torch.ones(n, dtype=torch.float64, device=device),
            torch.zeros(n, dtype=torch.float32, device=device),
            torch.zeros(n, dtype=torch.int64, device=device),
        )

    def fill(self, params: Sequence[SamplingParams]) -> None:
        """The first rows become those of `params`."""
        n = len(params)
        seeds = np.array([mixed_seed(one.seed) for one in params], np.uint64).view(np.int64)
        self.temperature[:n] = torch.tensor([one.temperature for one in params], dtype=torch.float32)
        self.top_k[:n] = torch.tensor([one.top_k for one in params])
        self.top_p[:n] = torch.tensor([one.top_p for one in params], dtype=torch.float64)
        self.min_p[:n] = torch.tensor([one.min_p for one in params], dtype=torch.float32)
        self.seed[:n] = torch.from_numpy(seeds)


def choose(
    logits: Tensor,  # (n, vocab_size) float32
    draws: DrawTensors,
    positions: Tensor,  # (n,) int64: of the tokens to be chosen
    kind: Kind,
) -> Tensor:
    """The token of each row, (n,) int64. Reads nothing back to the host."""
    greedy = logits.argmax(dim=-1)
    if kind == "greedy":
        return greedy
    is_greedy = draws.temperature < GREEDY_BELOW
    temperature = torch.where(is_greedy, 1.0, draws.temperature).unsqueeze(1)
    weights = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).exp()
    if kind == "filtered":
        weights = _filtered(weights, draws)
    cumulative = weights.double().cumsum(dim=-1)
    target = uniform(draws.seed, positions) * cumulative[:, -1]
    drawn = torch.searchsorted(cumulative, target.unsqueeze(1), right=True).squeeze(1)
    return torch.where(is_greedy, greedy, drawn.clamp(max=logits.shape[1] - 1))


def _filtered(weights: Tensor, draws: DrawTensors) -> Tensor:
    """The weights with those that top-k, top-p and min-p drop set to zero.

    In stable descending order each filter keeps a beginning of the row, and the
    shortest of the three is what is left.
    """
    vocab_size = weights.shape[1]
    descending, order = weights.sort(dim=-1, descending=True, stable=True)
    top_k = torch.where(draws.top_k > 0, draws.top_k, vocab_size).clamp(max=vocab_size)
    kth = descending.gather(1, (top_k - 1).unsqueeze(1))
    n_top_k = (descending >= kth).sum(dim=-1, keepdim=True)  # equals of the k-th stay
    ranks = torch.arange(vocab_size, device=weights.device).expand_as(order)
    reached = descending.double().masked_fill(ranks >= n_top_k, 0).cumsum(dim=-1)
    below = reached < draws.top_p.unsqueeze(1) * reached[:, -1:]
    n_top_p = torch.where(draws.top_p < 1, 1 + below.sum(dim=-1), vocab_size).unsqueeze(1)
    likely = descending >= draws.min_p.unsqueeze(1) * descending[:, :1]
    kept = (ranks < n_top_k) & (ranks < n_top_p) & likely
    return torch.zeros_like(weights).scatter(1, order, descending.masked_fill(~kept, 0))


def uniform(seed: Tensor, positions: Tensor) -> Tensor:
    """`sampling.uniform` of mixed seeds: (n,) float64 in [0, 1)."""
    x = seed + (positions + 1) * _GOLDEN
    x = (x ^ _shifted(x, 30)) * _MIX[0]
    x = (x ^ _shifted(x, 27)) * _MIX[1]
    return _shifted(x ^ _shifted(x, 31), 11).double() * 2.0**-53


def _shifted(x: Tensor, n: int) -> Tensor:
    """To the right, zeros coming in: the numbers are 64 bits without a sign."""
    return (x >> n) & ((1 << (64 - n)) - 1)
