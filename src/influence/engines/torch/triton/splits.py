"""The cut of a product's columns among programs, and the sum of what they found.

The programs of a tile leave partial sums; the last to arrive adds them in the
order of the splits, whoever it is, so that the same input gives the same bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

UNROLLED = tl.constexpr(1024)  # outputs of a tile: 8 of each of 128 threads


class Work(NamedTuple):
    """How a product is cut; `operands` makes it."""

    partial: Any  # (SPLITS, outputs) float32, or None
    arrivals: Any  # (tiles,) int32, zeros
    BLOCK_ROWS: Any  # of the matrix, in a tile
    CHUNKS: Any  # of a row, in a tile
    SPLITS: Any
    OVERLAP: Any  # whether this kernel may begin before the one before it has ended


@triton.jit
def part_of_row(matrix, split, work):
    """The chunks [begin, end) of a row that a split takes: whole tiles, but for the row's end."""
    steps = tl.cdiv(tl.cdiv(matrix.n_chunks, work.CHUNKS), work.SPLITS)
    begin = split * steps * work.CHUNKS
    return begin, tl.minimum(begin + steps * work.CHUNKS, matrix.n_chunks)


@triton.jit
def sum_of_splits(
    y,  # float32, of this split
    offsets,  # of y's elements among all outputs, as y
    mask,
    n_outputs,
    split,
    tile,
    work,  # Work
):
    """The sum over all splits, and whether this program is the one that has it."""
    is_last = True
    if work.SPLITS > 1:
        tl.store(work.partial + split * n_outputs + offsets, y, mask)
        tl.debug_barrier()  # all threads' sums are out before one of them says so
        is_last = tl.atomic_add(work.arrivals + tile, 1, sem="acq_rel") == work.SPLITS - 1
        if is_last:
            y = tl.zeros_like(y)
            if y.numel <= UNROLLED:  # all loads are under way together, where registers hold what they bring
                for i in tl.static_range(work.SPLITS):
                    y += _part(offsets, mask, n_outputs, i, work)
            else:
                for i in range(work.SPLITS):
                    y += _part(offsets, mask, n_outputs, i, work)
            tl.atomic_xchg(work.arrivals + tile, 0)  # as the next launch expects it
    return y, is_last


@triton.jit
def _part(offsets, mask, n_outputs, split, work):
    """What a split left of these outputs."""
    return tl.load(work.partial + split * n_outputs + offsets, mask, other=0, cache_modifier=".cg")
