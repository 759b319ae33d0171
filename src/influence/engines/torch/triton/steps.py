"""Kernels of both ends of a step over tensors: what the layers begin with, and the choice of a token."""

from __future__ import annotations

import triton

import torch
from influence.engines.paging import BLOCK_SIZE
from influence.engines.torch.choosing import DrawTensors
from influence.engines.torch.triton import drawing, inputs, launch
from torch import Tensor

_ROWS = 32  # of a program of `places`


def pick(weights: Tensor, draws: DrawTensors, positions: Tensor, filtered: bool) -> Tensor:
    """As `choosing.pick`."""
    n, vocab_size = weights.shape
    index = torch.empty(n, dtype=torch.int64, device=weights.device)
    between = torch.empty((n, drawing.BLOCK.value), dtype=torch.float32, device=weights.device)
    drawing.pick_kernel[(n,)](
        weights, draws.seed, positions, draws.top_k, draws.top_p, draws.min_p, between, index, vocab_size,
        filtered, launch.overlaps(weights.device), **launch.options(weights.device, n_warps=16),
    )  # fmt: skip
    return index


def embedded(embed: Tensor, token_ids: Tensor, scale: float) -> Tensor:
    """As `ops.embedded`."""
    n, n_cols = len(token_ids), embed.shape[1]
    x = torch.empty((n, n_cols), dtype=torch.float32, device=embed.device)
    inputs.embed_kernel[(n, triton.cdiv(n_cols, inputs.BLOCK.value))](
        embed, token_ids, x, n_cols, scale, **launch.options(x.device, waits=True)
    )
    return x


def turns(positions: Tensor, frequencies: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """As `ops.turns`."""
    n, half = len(positions), frequencies.shape[-1]
    cos, sin = torch.empty((2, n, half), dtype=torch.float32, device=positions.device)
    inputs.turns_kernel[(n,)](
        positions, frequencies, cos, sin, half, half if frequencies.ndim == 2 else 0, factor,
        triton.next_power_of_2(half), **launch.options(cos.device, n_warps=1, waits=True),
    )  # fmt: skip
    return cos, sin


def places(tables: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """As `ops.places`."""
    n, device = len(positions), positions.device
    slots = torch.empty(n, dtype=torch.int64, device=device)
    lengths = torch.empty(n, dtype=torch.int32, device=device)
    inputs.places_kernel[(triton.cdiv(n, _ROWS),)](
        tables, positions, slots, lengths, n, tables.shape[1], BLOCK_SIZE, _ROWS,
        **launch.options(device, n_warps=1, waits=True),
    )  # fmt: skip
    return slots, lengths
