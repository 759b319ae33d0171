"""Triton's kernels behind the functions of `ops.py`: which one takes a step, by how many tokens it has.

    one token           gemv.py: norm, product and what follows it in one launch
    up to 64            rows.py for norms and activations, matmul.py on tensor cores
    more                the same, but dense matrices go to cuBLAS

Attention is one kernel for all.
"""

from __future__ import annotations

import torch
from influence.engines.torch import ops
from influence.engines.torch.matrices import Heads, Linear, Matrix, Norm
from influence.engines.torch.triton import heads as heads_kernels
from influence.engines.torch.triton import products, steps
from influence.models.spec import Activation, Rope
from torch import Tensor

# Rows of x from which on cuBLAS has more for a dense matrix than matmul.py: more than one of its tiles.
DENSE_ROWS = 64


def norm_linear(
    x: Tensor, norm: Norm | None, weights: Linear, out_dtype: torch.dtype | None = None
) -> Tensor:
    """As `ops.norm_linear`."""
    return _linear(x, norm, weights, out_dtype or weights.weight.dtype)


def linear_residual(
    x: Tensor, weight: Matrix, bias: Tensor | None, residual: Tensor | None, residual_scale: float = 1.0
) -> Tensor:
    """As `ops.linear_residual`."""
    out_dtype = weight.dtype if residual is None else residual.dtype
    return _linear(x, None, Linear(weight, bias), out_dtype, residual, residual_scale)


def _linear(
    x: Tensor,
    norm: Norm | None,
    weights: Linear,
    out_dtype: torch.dtype,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    if len(x) == 1:
        return products.linear_row(x, norm, weights, out_dtype, residual, residual_scale)
    if norm is not None or x.dtype != weights.weight.dtype:
        x = products.norm_rows(x, norm, weights.weight.dtype)
    if len(x) <= DENSE_ROWS or not isinstance(weights.weight, Tensor):
        return products.linear_rows(x, weights, out_dtype, residual, residual_scale)
    if residual is None:
        return ops.norm_linear(x, None, weights, out_dtype)
    return ops.linear_residual(x, weights.weight, weights.bias, residual, residual_scale)


def gate_up(x: Tensor, norm: Norm | None, weights: Linear, activation: Activation, gated: bool) -> Tensor:
    """As `ops.gate_up`."""
    if len(x) == 1 and gated:
        return products.gate_up_row(x, norm, weights, activation)
    return products.activate_rows(norm_linear(x, norm, weights), activation, gated)


def project_heads(
    x: Tensor,
    norm: Norm | None,
    weights: Linear,
    cos: Tensor | None,
    sin: Tensor | None,
    rope: Rope | None,
    kv: Tensor,
    slots: Tensor,
    heads: Heads,
    q_norm: Norm | None = None,
    k_norm: Norm | None = None,
) -> Tensor:
    """As `ops.project_heads`."""
    if len(x) == 1 and q_norm is None and k_norm is None:
        return heads_kernels.project_row(x, norm, weights, cos, sin, rope, kv, slots, heads)
    qkv = norm_linear(x, norm, weights)
    return heads_kernels.rope_and_store(qkv, cos, sin, rope, kv, slots, heads, q_norm, k_norm)


def normed(x: Tensor, norm: Norm | None) -> Tensor:
    """As `ops.normed`."""
    return x if norm is None else products.norm_rows(x, norm, torch.float32)


TRITON = ops.Ops(
    name="triton",
    reads_used_blocks=True,
    norm_linear=norm_linear,
    project_heads=project_heads,
    rope_and_store=heads_kernels.rope_and_store,
    paged_attention=heads_kernels.paged_attention,
    linear_residual=linear_residual,
    gate_up=gate_up,
    normed=normed,
    pick=steps.pick,
    embedded=steps.embedded,
    turns=steps.turns,
    places=steps.places,
)
