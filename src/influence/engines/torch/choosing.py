"""Tokens chosen from logits where they lie: `engines/choosing.py` for many rows at once, in tensors.

The same token as there for the same logits and draw: argmax takes the first of
equals, filters keep what they keep (ties included), sums are float64, and the
random number is the same function of (seed, position).

What comes of a row is one row of float64, so that one copy brings it to the host:

    token   largest logit   the same after bias, penalties and mask   [logprob   n ids   n logprobs]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

import torch
from influence.engines.choosing import require_choice, require_finite_peak
from influence.engines.sampling import (
    GREEDY_BELOW,
    Draw,
    Sample,
    SamplingParams,
    mixed_seed,
)
from influence.engines.torch.adjusting import Adjustments
from torch import Tensor

# How a batch's tokens are picked: each kind computes all that the one before it does.
Kind = Literal["greedy", "draw", "filtered"]
Send = Callable[[Tensor], Tensor]  # a host's tensor to the device

# Alternatives that are looked for together, so that draws which differ a little share a graph.
_TOPS = (0, 5, 20)
_N_COLUMNS = 3  # of what comes of a row, without log probabilities

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # of `sampling.uniform`, as a signed number
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


@dataclass(frozen=True, slots=True)
class Choice:
    """What a batch of draws asks for: as much as the most demanding of them."""

    kind: Kind
    adjusts: bool = False  # whether logits change first: biases, penalties, a mask
    n_top: int = -1  # likeliest alternatives; -1: no log probabilities
    knows: bool = False  # whether a token is known, and only its log probabilities are wanted

    @classmethod
    def of(cls, draws: Sequence[Draw], vocab_size: int) -> Choice:
        """The least that does for all of them."""
        n_top = max((draw.n_logprobs for draw in draws), default=-1)
        return cls(
            kind_of([draw.params for draw in draws if draw.known_id is None]),
            any(Adjustments.are_asked(draw) for draw in draws),
            min(next((n for n in (-1, *_TOPS) if n >= n_top), n_top), vocab_size),
            any(draw.known_id is not None for draw in draws),
        )

    @property
    def n_columns(self) -> int:
        """Numbers that come of a row."""
        return _N_COLUMNS + (0 if self.n_top < 0 else 1 + 2 * self.n_top)


def kind_of(params: Sequence[SamplingParams]) -> Kind:
    """The least that does for all of them."""
    drawn = [one for one in params if not one.is_greedy]
    if not drawn:
        return "greedy"
    has_filters = any(one.top_k or one.top_p < 1 or one.min_p > 0 for one in drawn)
    return "filtered" if has_filters else "draw"


def runs_ahead(draw: Draw) -> bool:
    """Whether its next one can be made without the host: a mask is the host's, and comes with each token."""
    return draw.allowed is None and draw.known_id is None


@dataclass(slots=True)
class DrawTensors:
    """What n rows ask for, on the device."""

    temperature: Tensor  # (n,) float32
    top_k: Tensor  # (n,) int64, 0: all
    top_p: Tensor  # (n,) float64
    min_p: Tensor  # (n,) float32
    seed: Tensor  # (n,) int64: mixed, its 64 bits
    known_id: Tensor  # (n,) int64: the token, -1 where it is to be chosen
    adjustments: Adjustments | None = None  # set when a draw first asks for one

    @classmethod
    def empty(cls, n: int, device: torch.device) -> DrawTensors:
        """Greedy draws."""
        return cls(
            torch.zeros(n, dtype=torch.float32, device=device),
            torch.zeros(n, dtype=torch.int64, device=device),
            torch.ones(n, dtype=torch.float64, device=device),
            torch.zeros(n, dtype=torch.float32, device=device),
            torch.zeros(n, dtype=torch.int64, device=device),
            torch.full((n,), -1, dtype=torch.int64, device=device),
        )

    def fill(self, draws: Sequence[Draw], vocab_size: int, send: Send) -> None:
        """The first rows become those of `draws`."""
        n, params = len(draws), [draw.params for draw in draws]
        numbers = [(one.temperature, one.top_p, one.min_p) for one in params]
        self.temperature[:n], self.top_p[:n], self.min_p[:n] = send(
            torch.tensor(numbers, dtype=torch.float64).T.contiguous()
        )
        top_k = [min(one.top_k, vocab_size) for one in params]
        known = [-1 if draw.known_id is None else draw.known_id for draw in draws]
        seeds = np.array([mixed_seed(one.seed) for one in params], np.uint64).view(np.int64)
        whole = torch.from_numpy(np.array([top_k, known, seeds], np.int64))
        self.top_k[:n], self.known_id[:n], self.seed[:n] = send(whole)
        if self.adjustments is None and any(Adjustments.are_asked(draw) for draw in draws):
            self.adjustments = Adjustments.empty(len(self.seed), vocab_size, self.seed.device)
        if self.adjustments is not None:
            self.adjustments.fill(draws, send)


Pick = Callable[[Tensor, DrawTensors, Tensor, bool], Tensor]
Adjust = Callable[[Tensor, Adjustments], Tensor]


def outcomes(
    logits: Tensor,  # (n, vocab_size) float32
    draws: DrawTensors,
    positions: Tensor,  # (n,) int64: of the tokens to be chosen
    choice: Choice,
    found: Tensor,  # (n, choice.n_columns) float64: written to
    *,
    pick: Pick,
    adjust: Adjust,
) -> None:
    """What comes of each row. Reads nothing back to the host."""
    likeliest = logits.argmax(dim=-1, keepdim=True)  # NaN counts as the largest
    peaks = logits.gather(1, likeliest)
    row, peaks_after = logits, peaks
    if choice.adjusts and draws.adjustments is not None:
        row = adjust(logits, draws.adjustments)
        likeliest = row.argmax(dim=-1, keepdim=True)
        peaks_after = row.gather(1, likeliest)
    chosen = likeliest
    if choice.kind != "greedy":
        is_greedy = (draws.temperature < GREEDY_BELOW).unsqueeze(1)
        weights = softmax_weights(row, peaks_after, draws.temperature.unsqueeze(1), is_greedy)
        drawn = pick(weights, draws, positions, choice.kind == "filtered").unsqueeze(1)
        chosen = torch.where(is_greedy, likeliest, drawn)
    if choice.knows:
        known = draws.known_id.unsqueeze(1)
        chosen = torch.where(known >= 0, known, chosen)
    columns = [chosen, peaks, peaks_after]
    if choice.n_top >= 0:
        columns += log_probabilities(logits, peaks, chosen, choice.n_top)
    begin = 0
    for column in columns:
        end = begin + column.shape[1]
        found[:, begin:end] = column
        begin = end


def softmax_weights(row: Tensor, peaks: Tensor, temperature: Tensor, is_greedy: Tensor) -> Tensor:
    """exp((row - peak) / temperature), as row; what stands in a greedy row nobody reads."""
    weights: Tensor = row - peaks
    return weights.div_(temperature.masked_fill(is_greedy, 1.0)).exp_()


def pick(weights: Tensor, draws: DrawTensors, positions: Tensor, filtered: bool) -> Tensor:
    """The index drawn from each row of weights, of which the largest is 1, (n,) int64."""
    if filtered:
        weights = _filtered(weights, draws)
    cumulative = weights.double().cumsum(dim=-1)
    target = uniform(draws.seed, positions) * cumulative[:, -1]
    drawn = torch.searchsorted(cumulative, target.unsqueeze(1), right=True).squeeze(1)
    return drawn.clamp(max=weights.shape[1] - 1)


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


def log_probabilities(logits: Tensor, peaks: Tensor, chosen: Tensor, n_top: int) -> list[Tensor]:
    """Of the chosen tokens (n, 1); ids and log probabilities of the likeliest, (n, n_top) each; float64."""
    totals = (logits - peaks).exp().sum(dim=-1, keepdim=True, dtype=torch.float64)
    log_totals = peaks.double() + totals.log()
    own = logits.gather(1, chosen).double() - log_totals
    if n_top == 0:
        return [own]
    ids = largest(logits, n_top)
    return [own, ids, logits.gather(1, ids).double() - log_totals]


def largest(values: Tensor, n: int) -> Tensor:
    """Indices of the n largest of each row, largest first; of equals the lower index first. (rows, n) int64

    They are the n largest of whole numbers that differ: the value's bits above,
    turned so that they order as values do, and below them the index from its end.
    """
    bits = (values + 0.0).view(torch.int32)  # a negative zero becomes a positive one
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    last = values.shape[1] - 1
    from_end = torch.arange(last, -1, -1, device=values.device)
    keys = (ordered.long() << 32) | from_end
    return last - (keys.topk(n, dim=-1).values & 0xFFFFFFFF)


def uniform(seed: Tensor, positions: Tensor) -> Tensor:
    """`sampling.uniform` of mixed seeds: (n,) float64 in [0, 1)."""
    x = seed + (positions + 1) * _GOLDEN
    x = (x ^ _shifted(x, 30)) * _MIX[0]
    x = (x ^ _shifted(x, 27)) * _MIX[1]
    return _shifted(x ^ _shifted(x, 31), 11).double() * 2.0**-53


def _shifted(x: Tensor, n: int) -> Tensor:
    """To the right, zeros coming in: the numbers are 64 bits without a sign."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def samples_of(
    rows: Sequence[Sequence[float]], draws: Sequence[Draw], positions: Sequence[int]
) -> list[Sample]:
    """`outcomes` that have come to the host as samples; raises as `sample_row` does."""
    return [_sample(*each) for each in zip(rows, draws, positions, strict=True)]


def _sample(row: Sequence[float], draw: Draw, position: int) -> Sample:
    token_id, peak, peak_after, *rest = row
    require_finite_peak(peak, position)
    if not math.isfinite(peak_after):
        require_choice(peak_after, position)
    if draw.n_logprobs < 0:
        return Sample(int(token_id), None)
    own, n_top = rest[0], len(rest) // 2
    top = zip(map(int, rest[1 : 1 + n_top]), rest[1 + n_top :], strict=True)
    return Sample(int(token_id), own, tuple(top)[: draw.n_logprobs])
