"""The kernel files as the compiler sees them: what they export, and the table for another CPU."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
X86_FLAGS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"],
    "avx512_bf16": [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512vl",
        "-mavx512dq",
        "-mavx512bf16",
        "-mavx512vnni",
        "-mfma",
        "-mf16c",
    ],
}
X86_FLAGS["amx"] = [*X86_FLAGS["avx512_bf16"], "-mamx-tile", "-mamx-bf16", "-mamx-int8"]


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def compile_with(compiler: str, output: Path, *arguments: str | Path) -> None:
    command = [compiler, "-std=c++20", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}"]
    subprocess.run([*command, *arguments, "-o", output], check=True)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for x86-64")
@pytest.mark.parametrize("table", X86_FLAGS)
def test_a_kernel_file_exports_its_table_and_nothing_else(table: str, tmp_path: Path) -> None:
    """A shared inline function compiled with AVX-512 could be the copy that the linker keeps for all."""
    output = tmp_path / f"{table}.o"
    compile_with(tool("g++"), output, *X86_FLAGS[table], "-O0", "-c", CSRC / "kernels" / f"{table}.cc")
    symbols = subprocess.run(
        [tool("nm"), "-C", "--extern-only", "--defined-only", output],
        check=True,
        capture_output=True,
        text=True,
    )
    names = [line.split(maxsplit=2)[2] for line in symbols.stdout.splitlines()]
    assert names == [f"influence::{table}_table"]


def test_the_neon_table_computes_what_the_generic_one_does(tmp_path: Path) -> None:
    native = platform.machine() in ("aarch64", "arm64")
    compiler = tool("g++" if native else "aarch64-linux-gnu-g++")
    program = tmp_path / "neon_against_generic"
    kernels = CSRC / "kernels"
    driver = Path(__file__).with_name("neon_against_generic.cc")
    sources = [kernels / "neon.cc", kernels / "generic.cc", CSRC / "bf12.cc", CSRC / "thread_pool.cc"]
    compile_with(compiler, program, "-O0", "-static", "-pthread", driver, *sources)
    command = [program] if native else [tool("qemu-aarch64"), program]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "")
