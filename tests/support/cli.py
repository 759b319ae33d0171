"""Running the command line in tests: in this process where that is enough, as a real process where not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import influence

SOURCES = Path(influence.__file__).resolve().parent.parent
TIMEOUT_S = 60
MODEL = "demo"


def environment(**extra: str) -> dict[str, str]:
    """What a process of influence gets: our sources first, and no terminal settings of the tester."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TERM", "NO_COLOR", "COLUMNS")}
    return kept | {"PYTHONPATH": str(SOURCES)} | extra


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "influence", *args]


def run_process(
    *args: str, stdin: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """A whole `influence ...` process, its output captured as bytes."""
    return subprocess.run(
        command(*args),
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        cwd=cwd,
        env=environment(),
        check=False,
    )


def run_python(source: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that sees influence."""
    return subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment(),
        check=False,
    )


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: str
    stderr: str


def run(capsys: Any, *args: str) -> Outcome:
    """A command in this process, through the same `main` that the process calls."""
    from influence.cli.main import main

    capsys.readouterr()
    exit_code = main(args)
    captured = capsys.readouterr()
    return Outcome(exit_code, captured.out, captured.err)
