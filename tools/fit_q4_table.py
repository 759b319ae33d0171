"""The 16 values of q4 (csrc/packed.h): where 4-bit codes lose least of normally distributed weights.

    python tools/fit_q4_table.py

A group of 32 normal numbers gets the scale and the zero that fit it best, as in
csrc/kernels/pack_rows.h; then the values move to the means of the numbers that
were nearest to them (Lloyd's iteration), and the groups are fitted again. The
values are kept symmetric, the outermost at 127 of a byte. Prints them with 128 added.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

N_GROUPS = 20_000
GROUP = 32
N_ROUNDS = 40
SHRINKS = (1.0, 0.93, 0.86, 0.8)  # of the scale at which a group's ends are the outermost values

Floats = npt.NDArray[np.float64]


def fit(groups: Floats, values: Floats) -> tuple[Floats, Floats]:
    """The best of some scales for each group, and its zero: number = scale * (value - zero)."""
    low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    best_scale, best_zero, least = np.ones_like(low), np.zeros_like(low), np.full_like(low, np.inf)
    for shrink in SHRINKS:
        scale = shrink * (high - low) / (values[-1] - values[0])
        zero = -(high + low) / 2 / scale
        for _ in range(2):
            scale, zero = line_through(nearest(groups / scale + zero, values), groups)
        lost = np.square(groups - scale * (nearest(groups / scale + zero, values) - zero))
        loss = lost.sum(axis=1, keepdims=True)
        is_better = loss < least
        least = np.minimum(loss, least)
        best_scale, best_zero = np.where(is_better, scale, best_scale), np.where(is_better, zero, best_zero)
    return best_scale, best_zero


def line_through(chosen: Floats, groups: Floats) -> tuple[Floats, Floats]:
    """Scale and zero of least squares."""
    off = chosen - chosen.mean(axis=1, keepdims=True)
    scale = (off * groups).sum(axis=1, keepdims=True) / np.square(off).sum(axis=1, keepdims=True)
    return scale, chosen.mean(axis=1, keepdims=True) - groups.mean(axis=1, keepdims=True) / scale


def nearest(numbers: Floats, values: Floats) -> Floats:
    chosen: Floats = values[codes(numbers, values)]
    return chosen


def codes(numbers: Floats, values: Floats) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.digitize(numbers, (values[1:] + values[:-1]) / 2)
    return found


def moved(groups: Floats, values: Floats) -> Floats:
    """The values one round further."""
    scale, zero = fit(groups, values)
    scaled = groups / scale + zero
    code, weight = codes(scaled, values).ravel(), np.broadcast_to(np.square(scale), groups.shape).ravel()
    sums = np.bincount(code, weight * scaled.ravel(), len(values)) / np.bincount(code, weight, len(values))
    symmetric: Floats = (sums - sums[::-1]) / 2
    moved_values: Floats = symmetric * (127 / symmetric[-1])
    return moved_values


if __name__ == "__main__":
    numbers = np.random.default_rng(0).standard_normal((N_GROUPS, GROUP))
    fitted = np.linspace(-127, 127, 16)
    for _ in range(N_ROUNDS):
        fitted = moved(numbers, fitted)
    print([round(value) + 128 for value in fitted])
