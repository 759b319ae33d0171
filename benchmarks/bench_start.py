"""From a process's start to the first byte of its answer, in turns with a peer's.

    python benchmarks/bench_start.py -m demo
    python benchmarks/bench_start.py -m models/org_name --cold
    python benchmarks/bench_start.py -m models/org_name --peer "llama-completion -m model.gguf -n 1 -p hello -no-cnv"

Each turn is a new process. `first byte` is what somebody at the terminal waits
for; `processor` is the time that the process and its children used, which a
neighbour disturbs less. `bare` is Python alone: nothing can be below it.
README.md beside this file says more.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from influence import demo
from influence.models.model import open_model
from model_files import count, read_once

# Whoever uses the program has its bytecode; a machine that forbids writing it would time the compiler.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True, slots=True)
class Start:
    first_byte_s: float
    processor_s: float


def main() -> int:
    options = _parser().parse_args()
    commands = _commands(options)
    files = open_model(_folder(options.model)).checkpoint.files
    read_once(files)
    for command in commands.values():
        start(command)  # writes the bytecode, fills the page cache
    starts: dict[str, list[Start]] = {name: [] for name in commands}
    for _ in range(options.repeat):
        for name, command in commands.items():
            if options.cold:
                _forget(files)
            starts[name].append(start(command))
    print(_table(starts))
    return 0


def start(command: Sequence[str]) -> Start:
    """Run the command in a new process until its end."""
    used_s, begin_s = _children_s(), time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=_ENVIRONMENT
    ) as process:
        if process.stdout is None or not process.stdout.read(1):
            raise SystemExit(f"error: {shlex.join(command)} says nothing")
        first_byte_s = time.perf_counter() - begin_s
        process.stdout.read()
    return Start(first_byte_s, _children_s() - used_s)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _commands(options: argparse.Namespace) -> dict[str, list[str]]:
    ours = [sys.executable, "-m", "influence"]
    asked = ["generate", "Hello", "-m", options.model, "--max-tokens", "1", "--temperature", "0"]
    commands = {
        "bare": [sys.executable, "-c", "print(1)"],
        "--help": [*ours, "--help"],
        "generate --raw": [*ours, *asked, "--raw"],
        "generate": [*ours, *asked],
    }
    if options.peer:
        commands["peer"] = shlex.split(options.peer)
    return commands


def _table(starts: dict[str, list[Start]]) -> str:
    lines = ["| command | first byte, ms: median (least) | processor, ms: median (least) |", "|---|---|---|"]
    for name, those in starts.items():
        first = _milliseconds([one.first_byte_s for one in those])
        lines.append(f"| {name} | {first} | {_milliseconds([one.processor_s for one in those])} |")
    return "\n".join(lines)


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.0f} ({1e3 * min(seconds):.0f})"


def _folder(model: str) -> Path:
    return demo.folder() if model == demo.NAME else Path(model)


def _forget(files: Sequence[Path]) -> None:
    """Have the system drop what it holds of the files; it may keep what others map."""
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-m", "--model", default=demo.NAME, help="a model's folder, or demo")
    parser.add_argument("--cold", action="store_true", help="read the weights from the disk each time")
    parser.add_argument("--peer", metavar="COMMAND", help="a command that prints its answer to stdout")
    parser.add_argument("--repeat", type=count, default=9)
    return parser


if __name__ == "__main__":
    sys.exit(main())
