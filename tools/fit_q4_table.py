"""The 16 values of q4 (csrc/packed.h): where 4-bit codes lose least of normally distributed weights.

    python tools/fit_q4_table.py

Groups of 32 normal numbers are scaled so that the largest becomes -1 (its sign
goes into the scale); Lloyd's iteration then moves 16 values to the means of the
numbers nearest to them. The lowest value stays at -1, for every group has one
number there, and one stays at 0, so that weights that were pruned stay so. Prints the values, as whole numbers of 127, with 128 added.
"""

from __future__ import annotations

import numpy as np

N_GROUPS = 200_000
GROUP = 32
N_VALUES = 16


def normal_groups(rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """All numbers of the groups, each group divided by minus its largest, sorted."""
    groups = rng.standard_normal((N_GROUPS, GROUP))
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=1, keepdims=True), axis=1)
    return np.sort((groups / -largest).reshape(-1))


def lloyd(numbers: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    """The values with the least squared error."""
    values = np.linspace(-1.0, 0.85, N_VALUES)
    for _ in range(500):
        ends = np.searchsorted(numbers, (values[1:] + values[:-1]) / 2)
        values = np.array([part.mean() for part in np.split(numbers, ends)])
        values[0], values[np.abs(values).argmin()] = -1.0, 0.0
    return [float(value) for value in values]


if __name__ == "__main__":
    fitted = lloyd(normal_groups(np.random.default_rng(0)))
    print([round(127 * value) + 128 for value in fitted])
