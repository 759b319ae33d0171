"""Compiles every GPU kernel for the chips that it is for, without a GPU, and prints what the compilers made of it.

    .venv/bin/python tools/check_gpu_kernels.py [--chip 90] [--only STEP ...] [--sass FOLDER]

It runs the launches of one decode and one prompt step, of every format, under a
driver that compiles what it is asked to launch: the same types, constants and
alignments as on a GPU, down to machine code by ptxas. Exits with 1 if a kernel
spills registers or takes more shared memory than a program may have there. The
longest loop of a product of one row, by the weights that it multiplies, is what
`docs/log.md` predicts speed from.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from influence.engines.torch.choosing import DrawTensors
from influence.engines.torch.matrices import GroupedMatrix, Heads, Linear, Matrix, Norm, PackedMatrix
from influence.engines.torch.quantize import MatrixFormat, converted
from influence.engines.torch.triton import launch, operands
from influence.engines.torch.triton.formats import Weights
from influence.engines.torch.triton.splits import Work
from influence.engines.torch.triton.table import TRITON
from influence.models.spec import Rope

# Shared memory that a program may take (CUDA's programming guide, technical specifications).
CHIPS = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}
FORMATS: tuple[MatrixFormat, ...] = ("stored", "q8", "q4", "packed")
OBJDUMP = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
INSTRUCTION_BYTES = 16

HIDDEN, INTERMEDIATE, HEAD_DIM = 2048, 5632, 64  # TinyLlama-1.1B's
HEADS = Heads(n_heads=32, n_kv_heads=4, head_dim=HEAD_DIM)


@dataclass(frozen=True)
class Built:
    """A kernel as it was compiled."""

    name: str
    step: str
    grid: tuple[int, ...]
    shared_bytes: int
    registers: int
    spilled_bytes: int
    instructions: Counter[str]
    loop: int  # instructions of the longest loop
    loop_weights: float  # that a thread multiplies in a pass of it, in a product of one row; else 0
    sass: str


class CompileOnly:
    """What Triton asks a driver before it compiles, answered for a chip that is not there."""

    def __init__(self, chip: int) -> None:
        self._target = GPUTarget("cuda", chip, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def kernels(chip: int, only: list[str] | None) -> Iterator[Built]:
    """Every kernel that the steps below launch, or those of some, each once."""
    compiled: list[tuple[str, tuple[int, ...], float, Any]] = []

    def compile_instead(self: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> None:
            kernel = self.run(*args, grid=grid, warmup=True, **options)
            compiled.append((self.__name__, grid, weights_of_a_pass(grid, args), kernel))

        return run

    driver.set_active(CompileOnly(chip))
    JITFunction.__getitem__ = compile_instead
    vars(launch)["overlaps"] = lambda device: chip >= 90
    vars(launch)["multiprocessors"] = lambda device: 132
    known = set()
    for step, run in steps():
        if only and step not in only:
            continue
        run()
        for name, grid, n_weights, kernel in compiled:
            if kernel.hash not in known:
                known.add(kernel.hash)
                yield described(step, name, grid, n_weights, kernel)
        compiled.clear()


def steps() -> Iterator[tuple[str, Callable[[], object]]]:
    """The work to compile for: names and calls."""
    for form in FORMATS:
        for n in (1, 8):
            yield f"{form}, {n} tokens", lambda form=form, n=n: layer(form, n)  # type: ignore[misc]
    yield "stored, 64 tokens", lambda: layer("stored", 64)
    yield (
        "one token, float32 logits",
        lambda: TRITON.norm_linear(x_of(1), norm_of(HIDDEN), head(), torch.float32),
    )
    yield "inputs of 8 tokens", inputs
    yield "draw of 128k", lambda: draw(filtered=False)
    yield "filtered draw of 128k", lambda: draw(filtered=True)
    yield "decode at 2048", lambda: attend(1, HEAD_DIM)
    yield "decode of 16 heads to one, 128 wide", lambda: attend(1, 128, n_heads=16, n_kv_heads=1)
    yield "chunk of 16, 128 wide, split", lambda: attend(16, 128)
    yield "chunk of 512", lambda: attend(512, HEAD_DIM)
    yield "chunk of 512, 128 wide, window and soft-cap", lambda: attend(512, 128, window=1024, softcap=50.0)


def layer(form: MatrixFormat, n: int) -> None:
    """A layer's products."""
    x = x_of(n)
    qkv = Linear(matrix(form, 2560, HIDDEN))
    half = torch.zeros(n, HEAD_DIM // 2)
    kv = torch.zeros(2, 4, 64, HEADS.n_kv_heads, HEAD_DIM, dtype=torch.bfloat16)
    slots = torch.zeros(n, dtype=torch.int64)
    rope = Rope(1e4, HEAD_DIM)
    q = TRITON.project_heads(x, norm_of(HIDDEN), qkv, half, half, rope, kv, slots, HEADS)
    TRITON.linear_residual(q.reshape(n, -1), matrix(form, HIDDEN, HIDDEN), None, x)
    inner = TRITON.gate_up(x, norm_of(HIDDEN), Linear(matrix(form, 2 * INTERMEDIATE, HIDDEN)), "silu", True)
    TRITON.linear_residual(inner, matrix(form, HIDDEN, INTERMEDIATE), None, x)


def attend(
    n: int,
    head_dim: int,
    n_heads: int = 32,
    n_kv_heads: int = 4,
    window: int | None = None,
    softcap: float | None = None,
) -> None:
    q = torch.zeros(n, n_heads, head_dim, dtype=torch.bfloat16)
    kv = torch.zeros(2, 4, 64, n_kv_heads, head_dim, dtype=torch.bfloat16)
    tables = torch.zeros(1, 32, dtype=torch.int32)
    starts, lengths = torch.tensor([0, n], dtype=torch.int32), torch.tensor([2048], dtype=torch.int32)
    TRITON.paged_attention(q, kv, tables, starts, lengths, 0.1, window, softcap)


def inputs() -> None:
    """What a step begins with."""
    ids = torch.zeros(8, dtype=torch.int64)
    TRITON.embedded(torch.empty(32000, HIDDEN, dtype=torch.bfloat16), ids, 1.0)
    TRITON.turns(ids, torch.zeros(8, HEAD_DIM // 2), 1.0)
    TRITON.places(torch.zeros(8, 2048, dtype=torch.int32), ids)


def draw(filtered: bool) -> None:
    draws = DrawTensors.empty(8, torch.device("cpu"))
    TRITON.pick(torch.empty(8, 128256), draws, torch.zeros(8, dtype=torch.int64), filtered)


def x_of(n: int) -> torch.Tensor:
    return torch.zeros(n, HIDDEN)


def norm_of(size: int) -> Norm:
    return Norm("rms", 1e-5, 0.0, torch.ones(size))


def head() -> Linear:
    return Linear(matrix("stored", 32000, HIDDEN))


def matrix(form: MatrixFormat, n_rows: int, n_cols: int) -> Matrix:
    """One that nobody fills: only shapes and types count."""
    row = converted(torch.zeros(1, n_cols, dtype=torch.bfloat16), form)

    def of_rows(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(n_rows, x.shape[1])

    if isinstance(row, GroupedMatrix):
        return replace(row, values=of_rows(row.values), scales=of_rows(row.scales))
    if isinstance(row, PackedMatrix):
        return replace(row, low=of_rows(row.low), codes=of_rows(row.codes))
    return of_rows(row)


def weights_of_a_pass(grid: tuple[int, ...], args: Sequence[Any]) -> float:
    """That a thread multiplies in each pass of a product of one row; 0 for other kernels."""
    matrix = next((one for one in args if isinstance(one, Weights)), None)
    work = next((one for one in args if isinstance(one, Work)), None)
    if matrix is None or work is None or len(grid) != 2:
        return 0
    chunks_of_a_thread = work.BLOCK_ROWS.value * work.CHUNKS.value / operands.THREADS
    return float(chunks_of_a_thread * matrix.n_cols / matrix.n_chunks)


def longest_loop(code: Sequence[tuple[int, str, str]]) -> int:
    """Instructions between a jump back and where it leads, of the longest such way."""
    lengths = [0]
    for address, opcode, operand in code:
        target = re.search(r"0x([0-9a-f]+)", operand)
        if opcode.startswith("BRA") and target and int(target[1], 16) < address:
            lengths.append((address - int(target[1], 16)) // INSTRUCTION_BYTES + 1)
    return max(lengths)


def described(step: str, name: str, grid: tuple[int, ...], n_weights: float, kernel: Any) -> Built:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = dumped("--dump-resource-usage", file.name)
        sass = dumped("--dump-sass", file.name)
    found = re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", sass)
    code = [(int(address, 16), opcode, operand) for address, opcode, operand in found]
    return Built(
        name=name.removesuffix("_kernel"),
        step=step,
        grid=grid,
        shared_bytes=kernel.metadata.shared,
        registers=number(usage, "REG"),
        spilled_bytes=number(usage, "LOCAL"),
        instructions=Counter(opcode for _, opcode, _ in code),
        loop=longest_loop(code),
        loop_weights=n_weights,
        sass=sass,
    )


def dumped(option: str, cubin: str) -> str:
    return subprocess.run([OBJDUMP, option, cubin], capture_output=True, text=True, check=True).stdout


def number(usage: str, key: str) -> int:
    found = re.search(rf"{key}:(\d+)", usage)
    return int(found[1]) if found else 0


def is_fit(built: Built, chip: int) -> bool:
    return built.spilled_bytes == 0 and built.shared_bytes <= CHIPS[chip]


def row(built: Built) -> str:
    wide = sum(n for opcode, n in built.instructions.items() if opcode.startswith("LDG") and "128" in opcode)
    return (
        f"{built.name:<16} {built.step:<44} {built.grid!s:<15} {built.registers:>4} {built.spilled_bytes:>6}"
        f" {built.shared_bytes:>7} {wide:>6} {built.instructions.total():>6} {built.loop:>6}"
        + (f" {built.loop / built.loop_weights:>9.1f}" if built.loop_weights else f" {'':>9}")
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--chip", type=int, choices=CHIPS, default=90, help="compute capability, times ten")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="steps, as the second column names them")
    parser.add_argument("--sass", type=Path, help="a folder for the machine code of each kernel")
    arguments = parser.parse_args()
    print(f"sm_{arguments.chip}, triton {triton.__version__}")
    print(f"{'kernel':<16} {'step':<44} {'grid':<15} regs spills  shared 16-byte  instr   loop a weight")
    misfits = 0
    for built in kernels(arguments.chip, arguments.only):
        print(row(built), "" if is_fit(built, arguments.chip) else "  DOES NOT FIT", flush=True)
        misfits += not is_fit(built, arguments.chip)
        if arguments.sass:
            arguments.sass.mkdir(parents=True, exist_ok=True)
            (arguments.sass / f"{built.name}-{built.step}.sass".replace(" ", "-")).write_text(built.sass)
    return 1 if misfits else 0


if __name__ == "__main__":
    sys.exit(main())
