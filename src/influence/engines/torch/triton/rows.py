"""Norms and activations of many rows, one program each: what the products of one row do on their way.

    norm_rows    y = norm(x), of the dtype of the matrix that it meets
    activate     y = act(gate) * up, or act(x)

Bytes moved: each number once in and once out; nothing else bounds them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from influence.engines.torch.triton.activations import activated, load_activations, row_statistics

BLOCK = tl.constexpr(1024)  # 8 numbers a thread: two loads of 16 bytes


@triton.jit
def norm_rows_kernel(
    x_ptr,  # (n, n_cols)
    norm,  # NormArguments
    y_ptr,  # (n, n_cols)
    n_cols,
    OVERLAP: tl.constexpr,
):
    """y = norm(x). Grid: (n,)."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    start = tl.program_id(0).to(tl.int64) * n_cols
    statistics = row_statistics(x_ptr + start, n_cols, norm)
    dtype: tl.constexpr = y_ptr.dtype.element_ty
    for first in range(0, n_cols, BLOCK):
        column = first + tl.arange(0, BLOCK)
        mask = column < n_cols
        y = load_activations(x_ptr + start, norm, statistics, column, mask, dtype)
        tl.store(y_ptr + start + column, y.to(dtype), mask)


@triton.jit
def activate_kernel(
    x_ptr,  # (n, 2 * n_cols): gate, then up; or (n, n_cols)
    y_ptr,  # (n, n_cols)
    n_cols,
    GATED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """y = act(gate) * up, or act(x). Grid: (n, blocks of columns)."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < n_cols
    row = tl.program_id(0).to(tl.int64)
    at = x_ptr + row * (2 * n_cols if GATED else n_cols) + column
    y = activated(tl.load(at, mask, other=0).to(tl.float32), ACTIVATION)
    if GATED:
        y *= tl.load(at + n_cols, mask, other=0).to(tl.float32)
    tl.store(y_ptr + row * n_cols + column, y.to(y_ptr.dtype.element_ty), mask)
