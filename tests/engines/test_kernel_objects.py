"""The kernel files as the compiler sees them: what they export, and the table for another CPU."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
pytestmark = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="sanitizers would watch compilers alone"
)
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


def compiled(compiler: str, folder: Path, flags: Mapping[Path, Sequence[str]]) -> list[Path]:
    """An object file of each source, compiled with its flags, all side by side."""
    options = ["-std=c++20", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}", "-c"]
    objects = [folder / f"{source.stem}.o" for source in flags]
    running = [
        subprocess.Popen([compiler, *options, *own, source, "-o", output])
        for (source, own), output in zip(flags.items(), objects, strict=True)
    ]
    assert [process.wait() for process in running] == [0] * len(running)
    return objects


@pytest.fixture(scope="module")
def x86_objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By table, without optimisation."""
    flags = {CSRC / "kernels" / f"{table}.cc": [*own, "-O0"] for table, own in X86_FLAGS.items()}
    objects = compiled(tool("g++"), tmp_path_factory.mktemp("x86"), flags)
    return dict(zip(X86_FLAGS, objects, strict=True))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for x86-64")
@pytest.mark.parametrize("table", X86_FLAGS)
def test_a_kernel_file_exports_its_table_and_nothing_else(table: str, x86_objects: dict[str, Path]) -> None:
    """A shared inline function compiled with AVX-512 could be the copy that the linker keeps for all."""
    symbols = subprocess.run(
        [tool("nm"), "-C", "--extern-only", "--defined-only", x86_objects[table]],
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
    driver = Path(__file__).with_name("neon_against_generic.cc")
    # The neon table takes longer to optimise than an emulator takes to run it as it is; the rest does not.
    others = [driver, CSRC / "kernels" / "generic.cc", CSRC / "bf12.cc", CSRC / "thread_pool.cc"]
    flags = {CSRC / "kernels" / "neon.cc": ["-O0"], **{source: ["-O1"] for source in others}}
    objects = compiled(compiler, tmp_path, flags)
    subprocess.run([compiler, "-static", "-pthread", *objects, "-o", program], check=True)
    command = [program] if native else [tool("qemu-aarch64"), program]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "")
