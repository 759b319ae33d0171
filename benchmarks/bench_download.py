"""Speed of a verified download against other clients, in turns, on a hub on this machine over TLS.

    python benchmarks/bench_download.py                              as fast as the machine goes
    python benchmarks/bench_download.py --throttle 8e6               each connection held to 8 MB/s
    python benchmarks/bench_download.py --clients aria2c --repeat 9

README.md beside this file says what each number means.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from download_clients import CLIENTS, OURS
from download_hub import WEIGHTS
from influence.engines import machine
from report import describe_machine

HERE = Path(__file__).resolve().parent


@dataclass
class Turns:
    """What one client needed, turn by turn."""

    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    hub_cpu_s: list[float] = field(default_factory=list)  # of the hub meanwhile
    peak_mb: list[float] = field(default_factory=list)

    def add(self, turn: dict[str, float]) -> None:
        self.seconds.append(turn["seconds"])
        self.cpu_s.append(turn["cpu_s"])
        self.hub_cpu_s.append(turn["hub_cpu_s"])
        self.peak_mb.append(turn["peak_mb"])


@dataclass(frozen=True)
class HubProcess:
    url: str
    ca_file: str
    sha256: str
    pid: int

    def cpu_s(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


def main() -> int:
    options = _parser().parse_args()
    clients = [OURS, *(name for name in options.clients if name != OURS)]
    missing = [name for name in ("aria2c", "curl") if name in clients and not shutil.which(name)]
    if missing:
        print(f"error: not installed: {', '.join(missing)}; leave it out with --clients", file=sys.stderr)
        return 2
    size_bytes = options.size_mb << 20
    with _hub(size_bytes, options.throttle) as hub:
        turns = _take_turns(hub, clients, options.repeat, options.folder)
    print(_heading(size_bytes, options.throttle))
    for name in clients:
        print(_row(name, turns[name], turns[OURS], size_bytes))
    if options.save:
        outcome = _as_json(size_bytes, options.throttle, options.folder, turns)
        (HERE / "results" / f"{options.save}.json").write_text(json.dumps(outcome, indent=2) + "\n")
    return 0


@contextlib.contextmanager
def _hub(size_bytes: int, throttle: float | None) -> Iterator[HubProcess]:
    command = [sys.executable, str(HERE / "download_hub.py"), str(size_bytes)]
    command += ["--throttle", str(throttle)] if throttle else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        yield HubProcess(**json.loads(process.stdout.readline()), pid=process.pid)
        process.stdin.close()


def _take_turns(hub: HubProcess, clients: Sequence[str], repeat: int, parent: Path) -> dict[str, Turns]:
    """A B C A B C: neighbouring turns see the same state of the machine.."""
    turns = {name: Turns() for name in clients}
    for _ in range(repeat):
        for name in clients:
            turns[name].add(_turn(hub, name, parent))
            print(f"{name:16} {turns[name].seconds[-1]:8.2f} s", file=sys.stderr, flush=True)
    return turns


def _turn(hub: HubProcess, client: str, parent: Path) -> dict[str, float]:
    """One download into an empty folder; what arrived is compared with what was served."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        environment = {**os.environ, "SSL_CERT_FILE": hub.ca_file, "HF_HUB_DISABLE_XET": "1",
                       "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": folder + "/home"}  # fmt: skip
        target = Path(folder) / "model"
        target.mkdir()
        command = [sys.executable, str(HERE / "download_clients.py"), client, hub.url, str(target)]
        before_s = hub.cpu_s()
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        hub_cpu_s = hub.cpu_s() - before_s
        with (target / WEIGHTS).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != hub.sha256:
                raise SystemExit(f"error: {client} brought other bytes than were served")
    turn: dict[str, float] = json.loads(done.stdout)
    return {**turn, "hub_cpu_s": hub_cpu_s}


def _heading(size_bytes: int, throttle: float | None) -> str:
    line = f"each connection at {throttle / 1e6:g} MB/s" if throttle else "not throttled"
    return (
        f"{size_bytes / 1e9:.2f} GB over TLS on one machine, {line}; {machine.cpu_name()}\n"
        f"{'':16}{'s':>8}{'MB/s':>8}{'cpu s/GB':>10}{'hub s/GB':>10}{'peak MB':>9}{'x as fast are we':>18}"
    )


def _row(name: str, turns: Turns, ours: Turns, size_bytes: int) -> str:
    seconds = statistics.median(turns.seconds)
    cpu, hub_cpu = (statistics.median(each) / size_bytes * 1e9 for each in (turns.cpu_s, turns.hub_cpu_s))
    ratio = "" if turns is ours else f"{_ratio(ours, turns):18.2f}"
    return (
        f"{name:16}{seconds:8.2f}{size_bytes / 1e6 / seconds:8.0f}{cpu:10.2f}{hub_cpu:10.2f}"
        f"{max(turns.peak_mb):9.0f}{ratio}"
    )


def _ratio(ours: Turns, theirs: Turns) -> float:
    """How many times as fast we were: the median over neighbouring turns."""
    return statistics.median(b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True))


def _as_json(
    size_bytes: int, throttle: float | None, folder: Path, turns: dict[str, Turns]
) -> dict[str, Any]:
    clients = {}
    for name, theirs in turns.items():
        clients[name] = {
            "mb_per_s": round(size_bytes / 1e6 / statistics.median(theirs.seconds), 1),
            "cpu_s_per_gb": round(statistics.median(theirs.cpu_s) / size_bytes * 1e9, 3),
            "hub_cpu_s_per_gb": round(statistics.median(theirs.hub_cpu_s) / size_bytes * 1e9, 3),
            "peak_mb": round(max(theirs.peak_mb)),
            "seconds": [round(seconds, 3) for seconds in theirs.seconds],
        }
        if name != OURS:
            clients[name]["our_ratio"] = round(_ratio(turns[OURS], theirs), 3)
    case = {"size_bytes": size_bytes, "bytes_per_s_of_a_connection": throttle, "into": str(folder)}
    facts = {key: value for key, value in describe_machine(threads=0).items() if key != "threads"}
    return {"case": case, "machine": facts, "clients": clients}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Speed of a verified download against other clients.")
    parser.add_argument("--size-mb", type=int, default=1024, help="of the weights (1024)")
    parser.add_argument("--throttle", type=float, metavar="BYTES_PER_S", help="of each connection")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each client (5)")
    parser.add_argument("--clients", nargs="+", choices=list(CLIENTS), default=list(CLIENTS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="to write in")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
