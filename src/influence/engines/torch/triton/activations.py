"""The row of activations that meets a matrix: loaded, normed on the way in, rounded to the matrix's dtype.

    y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * (weight + offset) + bias     "layer"
    y = x / sqrt(mean(x^2) + eps) * (weight + offset) + bias                       "rms"

Every program norms the row anew: 4 to 30 kB out of L2 against a kernel of its
own, which would cost more than a microsecond.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

BLOCK = tl.constexpr(1024)  # 8 numbers a thread: two loads of 16 bytes


class NormArguments(NamedTuple):
    """A norm as kernels take it; `operands.norm` makes it."""

    weight: Any  # (n_cols,) float32
    bias: Any  # the same, or None
    eps: Any
    offset: Any
    KIND: Any  # "rms", "layer", "none"


@triton.jit
def row_statistics(x_ptr, n_cols, norm):
    """Mean (0 for "rms") and 1 / sqrt(variance + eps) of one row, float32."""
    mean = 0.0
    scale = 1.0
    if norm.KIND == "layer":
        mean = _sum_of_powers(x_ptr, n_cols, 0.0, SQUARED=False) / n_cols
    if norm.KIND != "none":
        scale = tl.rsqrt(_sum_of_powers(x_ptr, n_cols, mean, SQUARED=True) / n_cols + norm.eps)
    return mean, scale


@triton.jit
def _sum_of_powers(x_ptr, n_cols, mean, SQUARED: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, n_cols, BLOCK):
        column = first + tl.arange(0, BLOCK)
        mask = column < n_cols
        x = tl.where(mask, tl.load(x_ptr + column, mask, other=0).to(tl.float32) - mean, 0)
        total += x * x if SQUARED else x
    return tl.sum(total, 0)


@triton.jit
def load_activations(
    x_ptr,
    norm,
    statistics,  # as `row_statistics` gave them
    column,  # any shape
    mask,
    DTYPE: tl.constexpr,  # of the matrix
):
    """Activations at those columns in float32, having passed through `DTYPE`; 0 outside the mask."""
    x = tl.load(x_ptr + column, mask, other=0).to(tl.float32)
    if norm.KIND != "none":
        mean, scale = statistics
        x = (x - mean) * scale * (tl.load(norm.weight + column, mask, other=0) + norm.offset)
        if norm.bias is not None:
            x += tl.load(norm.bias + column, mask, other=0)
        x = tl.where(mask, x, 0)
    return x.to(DTYPE).to(tl.float32)


@triton.jit
def activated(x, ACTIVATION: tl.constexpr):
    """The MLP's activation of float32 numbers."""
    if ACTIVATION == "silu":
        return x * tl.sigmoid(x)
    elif ACTIVATION == "gelu":
        return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    elif ACTIVATION == "relu":
        return tl.maximum(x, 0)
    else:
        tl.static_assert(ACTIVATION == "relu_squared")
        y = tl.maximum(x, 0)
        return y * y


@triton.jit
def tanh(x):
    """1 - 2 / (exp(2x) + 1): right at both ends, where exp overflows or vanishes; within 1.2e-7."""
    return 1 - 2 / (tl.exp(2 * x) + 1)


@triton.jit
def softcapped(x, cap, HAS_CAP: tl.constexpr):
    """cap * tanh(x / cap), or x."""
    if HAS_CAP:
        return cap * tanh(x / cap)
    else:
        return x
