"""Kernels as machine code: compiled for chips that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")
pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")

TOOL = Path(__file__).parents[4] / "tools" / "check_gpu_kernels.py"


@pytest.mark.slow
def test_kernels_become_machine_code_that_neither_spills_nor_outgrows_shared_memory(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(TOOL), "--chip", "90", "--only", "q4, 1 tokens", "decode at 2048"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    names = {line.split()[0] for line in run.stdout.splitlines()[2:]}
    assert names == {"heads", "linear", "gate_up", "attention"}
