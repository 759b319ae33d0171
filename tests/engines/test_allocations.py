"""A step like one before it allocates nothing in the core, whatever the table and the formats."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.allocations import ENGINES, KINDS, Counts

TESTS = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="counts in glibc's functions")


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counts]:
    """By engine."""
    if os.environ.get("LD_PRELOAD"):
        pytest.skip("another library has the functions that would be counted")
    compiler = shutil.which("gcc") or pytest.skip("needs gcc")
    library = tmp_path_factory.mktemp("allocations") / "count_allocations.so"
    source = TESTS / "engines" / "count_allocations.c"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", source, "-o", library],
        check=True,
    )
    counting = subprocess.run(
        [sys.executable, "-m", "support.allocations"],
        env={**os.environ, "PYTHONPATH": str(TESTS), "LD_PRELOAD": str(library)},
        check=True,
        stdout=subprocess.PIPE,
    )
    found: dict[str, Counts] = json.loads(counting.stdout)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", [" ".join(names) for names in ENGINES])
def test_only_the_first_step_of_a_size_allocates(counted: dict[str, Counts], engine: str, kind: str) -> None:
    first, further = counted[engine][kind]
    assert first > 0  # so what is counted here is what the core allocates
    assert further == 0
