"""Products of activations with a matrix: one row by gemv.py, several by matmul.py, and what goes with them by rows.py."""

from __future__ import annotations

import triton

import torch
from influence.engines.torch.matrices import Linear, Norm
from influence.engines.torch.triton import gemv, launch, matmul, operands, rows
from influence.models.spec import Activation
from torch import Tensor

# Tiles of matmul.py that are on their way to shared memory, which a program should have at most 100 kB of.
_STAGES = {"dense": 4, "q8": 3, "q4": 2, "packed": 2}


def linear_row(
    x: Tensor,  # (1, in)
    norm: Norm | None,
    weights: Linear,
    out_dtype: torch.dtype,
    residual: Tensor | None = None,  # (1, out)
    residual_scale: float = 1.0,
) -> Tensor:
    """residual + residual_scale * (norm(x) @ weight.T + bias), (1, out)."""
    matrix = operands.weights(weights.weight)
    grid, work = operands.work(matrix, x.device)
    y = torch.empty((1, matrix.n_rows), dtype=out_dtype, device=x.device)
    gemv.linear_kernel[grid](
        x, operands.norm(norm), matrix, weights.bias, residual, residual_scale, y, work,
        **launch.options(x.device),
    )  # fmt: skip
    return y


def gate_up_row(x: Tensor, norm: Norm | None, weights: Linear, activation: Activation) -> Tensor:
    """act(gate) * up of the stacked weights, (1, in) -> (1, intermediate) of the weights' dtype."""
    matrix = operands.weights(weights.weight)
    grid, work = operands.work(matrix, x.device)
    y = torch.empty((1, matrix.n_rows // 2), dtype=weights.weight.dtype, device=x.device)
    gemv.gate_up_kernel[grid](
        x, operands.norm(norm), matrix, weights.bias, y, work, activation, **launch.options(x.device)
    )
    return y


def linear_rows(
    x: Tensor,  # (n, in) of the weights' dtype
    weights: Linear,
    out_dtype: torch.dtype,
    residual: Tensor | None = None,  # (n, out)
    residual_scale: float = 1.0,
) -> Tensor:
    """residual + residual_scale * (x @ weight.T + bias), (n, out)."""
    matrix = operands.weights(weights.weight)
    grid, work, block_tokens = operands.batch_work(matrix, len(x), x.device)
    y = torch.empty((len(x), matrix.n_rows), dtype=out_dtype, device=x.device)
    matmul.matmul_kernel[grid](
        x, matrix, weights.bias, residual, residual_scale, y, len(x), work, block_tokens,
        **launch.options(x.device, n_stages=_STAGES[matrix.FORMAT.value]),
    )  # fmt: skip
    return y


def norm_rows(x: Tensor, norm: Norm | None, dtype: torch.dtype) -> Tensor:
    """norm(x) of every row, (n, in) of `dtype`."""
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    overlaps = launch.overlaps(x.device)
    rows.norm_rows_kernel[(len(x),)](
        x, operands.norm(norm), y, x.shape[1], overlaps, **launch.options(x.device)
    )
    return y


def activate_rows(x: Tensor, activation: Activation, gated: bool) -> Tensor:
    """act(gate) * up of (n, 2 * intermediate), or act(x) of (n, intermediate); (n, intermediate)."""
    n_cols = x.shape[1] // 2 if gated else x.shape[1]
    y = torch.empty((len(x), n_cols), dtype=x.dtype, device=x.device)
    grid = len(x), triton.cdiv(n_cols, rows.BLOCK.value)
    rows.activate_kernel[grid](
        x, y, n_cols, gated, activation, launch.overlaps(x.device), **launch.options(x.device)
    )
    return y
