"""Speed of the matrix products, table by table: GB/s of weights read and GFLOP/s.

    python benchmarks/bench_kernels.py --table avx512_bf16 --dtype bf16

One thread calls the kernels (`--threads 2`: two at once, for a call releases the
interpreter's lock).
Weights are read from a buffer that no cache holds, round and round, and the
plain loop that reads such a buffer is timed beside them: with one token the
product can be as fast as that and no faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from influence import _native
from influence._native import kernels

SHAPES = [(2048, 2048), (5632, 2048), (2048, 5632), (32000, 2048)]  # TinyLlama-1.1B's, (rows, cols)
TOKENS = [1, 4, 16, 128, 512]
ELEMENTS: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
}
PACKED = {"bf12": "bf16", "q8": "f32", "q4": "f32"}  # and what each is packed from
PANEL_ROWS = 64  # threads share a packed matrix out in multiples of these
BUFFER_BYTES = 768 << 20  # more than the largest last-level caches hold
LONG_S = 0.5  # a measurement repeats until it has run this long

Weights = npt.NDArray[Any]


def some_weights(dtype: str, n: int) -> Weights:
    """Normally distributed numbers of the type."""
    some = np.random.default_rng(0).normal(0, 0.02, 1 << 20).astype(np.float32)
    if dtype == "bf16":
        some = (some.view(np.uint32) >> 16).astype(np.uint16)
    return np.resize(some.astype(ELEMENTS[dtype], copy=False), n)


def matrices(dtype: str, rows: int, cols: int) -> list[Weights]:
    """As many as fill the buffer, (rows, cols) each, or the bytes of packed ones."""
    if dtype not in PACKED:
        n = BUFFER_BYTES // (rows * cols * ELEMENTS[dtype].itemsize)
        return list(some_weights(dtype, n * rows * cols).reshape(n, rows, cols))
    one = np.empty(_native.packed_bytes(dtype, rows, cols), np.uint8)
    source = some_weights(PACKED[dtype], rows * cols).reshape(rows, cols)
    _native.pack(source, dtype, one, "", 2)
    n = BUFFER_BYTES // one.nbytes
    return list(np.resize(one, n * one.nbytes).reshape(n, -1))


def product(
    table: Any, dtype: str, x: npt.NDArray[np.float32], rows: int, threads: ThreadPoolExecutor, n_threads: int
) -> Callable[[Weights], None]:
    """A call that multiplies x by one matrix, each thread an equal share of its rows."""
    prepared = table.prepare(dtype, x)
    multiply = table.multiply_packed if dtype in PACKED else table.multiply
    bounds = [rows // PANEL_ROWS * i // n_threads * PANEL_ROWS for i in range(n_threads + 1)]

    def run(w: Weights) -> None:
        out = np.empty((x.shape[0], rows), np.float32)

        def share(i: int) -> None:
            begin, end = bounds[i], bounds[i + 1]
            multiply(prepared, w[len(w) * begin // rows : len(w) * end // rows], out[:, begin:end])

        list(threads.map(share, range(n_threads)))

    return run


def seconds_per_matrix(multiply: Callable[[Weights], None], ws: list[Weights]) -> float:
    multiply(ws[0])
    start, n = time.perf_counter(), 0
    while time.perf_counter() - start < LONG_S:
        multiply(ws[n % len(ws)])
        n += 1
    return (time.perf_counter() - start) / n


def read_gb_per_s(threads: ThreadPoolExecutor, n_threads: int) -> float:
    parts = np.array_split(np.ones(BUFFER_BYTES // 8, np.uint64), n_threads)
    start = time.perf_counter()
    list(threads.map(kernels.read_once, parts))
    return BUFFER_BYTES / (time.perf_counter() - start) / 1e9


def measure(table: Any, dtype: str, n_threads: int) -> None:
    with ThreadPoolExecutor(n_threads) as threads:
        print(f"\n{table.name}, {dtype}; plain reading: {read_gb_per_s(threads, n_threads):.1f} GB/s")
        print("rows x cols     " + "".join(f"{f'{n} tokens':>22}" for n in TOKENS))
        for rows, cols in SHAPES:
            ws, cells = matrices(dtype, rows, cols), []
            for n_tokens in TOKENS:
                x = np.full((n_tokens, cols), 0.5, np.float32)
                s = seconds_per_matrix(product(table, dtype, x, rows, threads, n_threads), ws)
                cells.append(
                    f"{ws[0].nbytes / s / 1e9:7.1f} GB/s {2e-9 * n_tokens * rows * cols / s:5.0f} GF"
                )
            print(f"{rows:6} x {cols:<6} " + "".join(f"{cell:>22}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the matrix products of the kernel tables.")
    parser.add_argument("--table", choices=kernels.supported(), action="append", help="default: all")
    parser.add_argument(
        "--dtype", choices=[*ELEMENTS, *PACKED], action="append", help="of the weights; default: all"
    )
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    for name in given.table or kernels.supported():
        for dtype in given.dtype or [*ELEMENTS, *PACKED]:
            measure(kernels.Kernels(name), dtype, given.threads)


if __name__ == "__main__":
    main()
