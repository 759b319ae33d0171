"""Matrices, norms and the cut of the work, as the kernels take them."""

from __future__ import annotations

from functools import cache

import triton
import triton.language as tl

import torch
from influence.engines.torch.matrices import Q4_VALUES, GroupedMatrix, Matrix, Norm, PackedMatrix
from influence.engines.torch.triton import launch
from influence.engines.torch.triton.activations import NormArguments
from influence.engines.torch.triton.formats import Weights
from influence.engines.torch.triton.splits import Work
from torch import Tensor

LOAD_BYTES = 16  # of a thread at once
THREADS = 128  # of a program
LOADS = 4  # of each thread, in flight together; with the next four
# Chunks that a thread has in a tile. Packed ones have three loads each: six in flight are no harm. Where
# activations become whole numbers more rows share that work.
_CHUNKS_OF_A_THREAD = {"dense": LOADS, "q8": 2 * LOADS, "q4": 2 * LOADS, "packed": LOADS // 2}

MAX_SPLITS = 8  # with more, reading partial sums back costs what the split wins

# Bytes in flight are latency times bandwidth: 700 ns x 4.2 TB/s / 132 multiprocessors = 22 kB, and a
# program has THREADS * LOADS * LOAD_BYTES = 8 kB in flight; half as much again, for they wait in turns.
PROGRAMS_PER_MULTIPROCESSOR = 4

# Of a row of weights, in a tile of matmul.py: a cache line, and the columns of one product.
TILE_BYTES = 128
# Their loads run ahead through shared memory, so that two keep a multiprocessor busy.
BATCH_PROGRAMS_PER_MULTIPROCESSOR = 2

# Chunks of a row that a tile may span; the first fills 128 threads with one row.
_CHUNKS = (128, 64, 32)
_GROUPED_CHUNKS = (64, 32)

_DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
_NO_NORM = NormArguments(None, None, 0.0, 0.0, tl.constexpr("none"))


def weights(matrix: Matrix) -> Weights:
    """Any matrix; its tensors lie row after row."""
    if isinstance(matrix, PackedMatrix):
        return _weights(
            "packed", matrix, matrix.low, matrix.codes, matrix.codes.shape[1] // LOAD_BYTES
        )._replace(
            rare_starts=matrix.rare_starts,
            rare_columns=matrix.rare_columns,
            rare_values=matrix.rare_values,
            base=matrix.base,
        )
    if isinstance(matrix, GroupedMatrix):
        n_chunks = matrix.values.shape[1] // LOAD_BYTES
        made = _weights(matrix.format, matrix, matrix.values, matrix.scales, n_chunks)
        return made._replace(table=q4_table(matrix.values.device)) if matrix.format == "q4" else made
    width = LOAD_BYTES // matrix.element_size()
    return _weights("dense", matrix, matrix, None, triton.cdiv(matrix.shape[1], width), width)


def _weights(
    form: str, matrix: Matrix, main: Tensor, side: Tensor | None, n_chunks: int, width: int = LOAD_BYTES
) -> Weights:
    n_rows, n_cols = matrix.shape
    return Weights(
        main, side, None, None, None, None, None, n_rows, n_cols, n_chunks,
        tl.constexpr(form), tl.constexpr(_DTYPES[matrix.dtype]), tl.constexpr(width),
    )  # fmt: skip


@cache
def q4_table(device: torch.device) -> Tensor:
    """What the codes stand for, (4,) int32: Q4_WORDS."""
    return torch.tensor(Q4_VALUES, dtype=torch.int8).view(torch.int32).to(device)


def norm(norm: Norm | None) -> NormArguments:
    """Any norm over a whole row, or none."""
    if norm is None:
        return _NO_NORM
    return NormArguments(norm.weight, norm.bias, norm.eps, norm.offset, tl.constexpr(norm.kind))


def work(matrix: Weights, device: torch.device) -> tuple[tuple[int, int], Work]:
    """The grid of a product with one row, and how it is cut: by shape and device alone."""
    widths = _GROUPED_CHUNKS if matrix.FORMAT.value in ("q8", "q4") else _CHUNKS
    n_chunks = min(widths, key=lambda n: (triton.cdiv(matrix.n_chunks, n) * n, -n))
    block_rows = max(1, _CHUNKS_OF_A_THREAD[matrix.FORMAT.value] * THREADS // n_chunks)
    n_tiles = triton.cdiv(matrix.n_rows, block_rows)
    wanted = PROGRAMS_PER_MULTIPROCESSOR * launch.multiprocessors(device)
    n_splits = _splits(wanted, n_tiles, triton.cdiv(matrix.n_chunks, n_chunks))
    return (n_tiles, n_splits), _work(block_rows, n_chunks, n_splits, matrix.n_rows, device)


def batch_work(
    matrix: Weights, n_tokens: int, device: torch.device
) -> tuple[tuple[int, int, int], Work, int]:
    """The grid of a product with several rows, how it is cut, and the rows of x in a tile."""
    block_tokens = min(64, max(16, triton.next_power_of_2(n_tokens)))
    block_rows = 64
    n_chunks = TILE_BYTES // LOAD_BYTES
    n_tiles = triton.cdiv(matrix.n_rows, block_rows), triton.cdiv(n_tokens, block_tokens)
    wanted = BATCH_PROGRAMS_PER_MULTIPROCESSOR * launch.multiprocessors(device)
    n_splits = _splits(wanted, n_tiles[0] * n_tiles[1], triton.cdiv(matrix.n_chunks, n_chunks))
    work = _work(block_rows, n_chunks, n_splits, n_tokens * matrix.n_rows, device)
    return (*n_tiles, n_splits), work, block_tokens


def _splits(wanted: int, n_tiles: int, n_steps: int) -> int:
    return max(1, min(wanted // n_tiles, n_steps, MAX_SPLITS))


def _work(block_rows: int, n_chunks: int, n_splits: int, n_outputs: int, device: torch.device) -> Work:
    partial = torch.empty((n_splits, n_outputs), dtype=torch.float32, device=device) if n_splits > 1 else None
    cut = (block_rows, n_chunks, n_splits, launch.overlaps(device))
    return Work(partial, launch.arrivals(device), *map(tl.constexpr, cut))
