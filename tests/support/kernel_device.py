"""Where the tests of GPU kernels run, and the numbers that they run on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from influence.engines.paging import BLOCK_SIZE
from influence.engines.torch.triton import launch

DEVICE = torch.device("cpu" if launch.INTERPRETED else "cuda")


def values(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normally distributed."""
    numbers = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(numbers).to(DEVICE, dtype)


def among_nan(x: Tensor, n: int = 512) -> Tensor:
    """The same tensor, with numbers that are none right before and after it in memory."""
    room = torch.full((x.numel() + 2 * n,), torch.nan, dtype=x.dtype, device=x.device)
    inner = room[n : n + x.numel()].view(x.shape)
    inner.copy_(x)
    return inner


def paged(
    lengths: list[int], n_kv_heads: int, head_dim: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """A cache whose blocks lie in no order, NaN where nothing was written, and the tables of sequences of these lengths."""
    n_blocks = [-(-length // BLOCK_SIZE) for length in lengths]
    order = np.random.default_rng(5).permutation(sum(n_blocks)).tolist()
    tables = torch.zeros(len(lengths), max(n_blocks), dtype=torch.int32)
    kv = values(2, sum(n_blocks), BLOCK_SIZE, n_kv_heads, head_dim, seed=6, dtype=dtype)
    for row, (n, length) in enumerate(zip(n_blocks, lengths, strict=True)):
        tables[row, :n] = torch.tensor([order.pop() for _ in range(n)])
        if length % BLOCK_SIZE:
            kv[:, tables[row, n - 1], length % BLOCK_SIZE :] = torch.nan
    return kv, tables.to(DEVICE)
