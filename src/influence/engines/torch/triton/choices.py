"""Kernels of the choice of a token over tensors."""

from __future__ import annotations

import torch
from influence.engines.torch.choosing import DrawTensors
from influence.engines.torch.triton import drawing, launch
from torch import Tensor


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
