"""Logits changed before a token is chosen: bias, penalties and mask of `engines/choosing.py`, in tensors.

How often each token was generated is counted where the tokens are, so that a
run of steps needs no host. A mask is made on the host for each token anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import torch
from influence.engines.sampling import Draw
from influence.errors import InvalidParameter
from torch import Tensor

_NO_IDS = np.empty(0, np.int64)


@dataclass(slots=True)
class Adjustments:
    """Of n rows, on the device."""

    repeat: Tensor  # (n, 1) float32
    frequency: Tensor  # (n, 1) float64
    presence: Tensor  # (n, 1) float64
    bias: Tensor  # (n, vocab_size) float32
    in_prompt: Tensor  # (n, vocab_size) bool: what the repeat penalty finds in the prompt
    counts: Tensor  # (n, vocab_size) int32: how often each token was generated
    allowed: Tensor | None = None  # (n, vocab_size) bool; set by `fill`

    @classmethod
    def empty(cls, n: int, vocab_size: int, device: torch.device) -> Adjustments:
        """Those that change nothing."""
        return cls(
            torch.ones(n, 1, dtype=torch.float32, device=device),
            torch.zeros(n, 1, dtype=torch.float64, device=device),
            torch.zeros(n, 1, dtype=torch.float64, device=device),
            torch.zeros(n, vocab_size, dtype=torch.float32, device=device),
            torch.zeros(n, vocab_size, dtype=torch.bool, device=device),
            torch.zeros(n, vocab_size, dtype=torch.int32, device=device),
        )

    @staticmethod
    def are_asked(draw: Draw) -> bool:
        """Whether the draw's logits change; those of a token that is known do not."""
        params = draw.params
        is_open = draw.known_id is None
        return is_open and (draw.allowed is not None or bool(params.logit_bias) or draw.params.counts_tokens)

    def fill(self, draws: Sequence[Draw], send: Callable[[Tensor], Tensor]) -> None:
        """The first rows become those of `draws`, the rest change nothing. Raises InvalidParameter for unknown tokens."""
        n = len(draws)
        asked = [draw if self.are_asked(draw) else None for draw in draws]
        numbers = [
            (one.params.repeat_penalty, one.params.frequency_penalty, one.params.presence_penalty)
            if one is not None
            else (1.0, 0.0, 0.0)
            for one in asked
        ]
        columns = send(torch.tensor(numbers, dtype=torch.float64).T.contiguous())
        self.repeat[:n, 0], self.frequency[:n, 0], self.presence[:n, 0] = columns
        self._scatter(self.bias, [_bias_of(one) for one in asked], send)
        self._scatter(self.in_prompt, [_prompt_of(one) for one in asked], send)
        self._scatter(self.counts, [_counts_of(one) for one in asked], send)
        self.allowed = self._masks([None if one is None else one.allowed for one in asked], send)

    def count(self, token_ids: Tensor, increments: Tensor) -> None:
        """Tokens that were generated, (n,) each."""
        self.counts.scatter_add_(1, token_ids.unsqueeze(1), increments.int().unsqueeze(1))

    def _scatter(
        self,
        target: Tensor,
        entries: Sequence[tuple[_Ids, npt.NDArray[np.generic]]],
        send: Callable[[Tensor], Tensor],
    ) -> None:
        """Zeros, but for each row's values at its ids."""
        target.zero_()
        ids = np.concatenate([one for one, _ in entries])
        if not len(ids):
            return
        if not 0 <= int(ids.min()) <= int(ids.max()) < target.shape[1]:
            raise InvalidParameter("token_id", int(ids.max()), f"from 0 to {target.shape[1] - 1}")
        rows = np.repeat(np.arange(len(entries)), [len(one) for one, _ in entries])
        places = send(torch.from_numpy(np.stack([rows, ids])))
        values = torch.from_numpy(np.concatenate([values for _, values in entries]))
        target[places[0], places[1]] = send(values).to(target.dtype)

    def _masks(
        self, masks: Sequence[npt.NDArray[np.bool_] | None], send: Callable[[Tensor], Tensor]
    ) -> Tensor | None:
        if all(mask is None for mask in masks):
            return None
        rows = np.ones((len(masks), self.counts.shape[1]), np.bool_)
        for row, mask in zip(rows, masks, strict=True):
            if mask is not None:
                row[:] = mask
        return send(torch.from_numpy(rows))


_Ids = npt.NDArray[np.int64]


def _bias_of(draw: Draw | None) -> tuple[_Ids, npt.NDArray[np.float32]]:
    bias = {} if draw is None else draw.params.logit_bias
    ids = np.fromiter(bias.keys(), np.int64, len(bias))
    return ids, np.fromiter(bias.values(), np.float32, len(bias))


def _prompt_of(draw: Draw | None) -> tuple[_Ids, npt.NDArray[np.bool_]]:
    ids = _NO_IDS if draw is None or draw.prompt_ids is None else draw.prompt_ids
    return ids, np.ones(len(ids), np.bool_)


def _counts_of(draw: Draw | None) -> tuple[_Ids, _Ids]:
    if draw is None or draw.generated_ids is None or draw.generated_counts is None:
        return _NO_IDS, _NO_IDS
    return draw.generated_ids, draw.generated_counts


def adjusted(logits: Tensor, to: Adjustments) -> Tensor:
    """The rows after bias, penalties and mask, (n, vocab_size) float32."""
    row = logits + to.bias
    penalized = torch.where(row > 0, row / to.repeat, row * to.repeat)
    row = torch.where(to.in_prompt | (to.counts > 0), penalized, row)
    row -= (to.frequency * to.counts + to.presence * (to.counts > 0)).float()
    return row if to.allowed is None else row.masked_fill_(~to.allowed, -torch.inf)
