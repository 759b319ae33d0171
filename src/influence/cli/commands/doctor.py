"""`influence doctor`: what this machine is, what runs on it, and that nothing is sent out."""

from __future__ import annotations

import sys
from typing import Any

import click

from influence.cli import output, sealed
from influence.cli.options import json_option

# The commands that may open a connection; all others never do.
COMMANDS_THAT_CONNECT = ("download", "plan", "search", "verify --repair")
_PROOF = ("generate", "Once upon a time", "--model-path", "demo", "--max-tokens", "16", "--seed", "0")
_PROOF_TIMEOUT_S = 60


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what this machine is, which engine each device would use, and prove that nothing is sent out.

    \b
    influence doctor
    influence doctor --json

    The proof is a short generation by the demo model in a process where
    opening a connection, looking up a host and starting a program fail.
    Exit code 1 if that did not work.
    """
    facts = {
        "influence": _versions(),
        "machine": _machine(),
        "devices": _devices(),
        "privacy": {"commands_that_connect": list(COMMANDS_THAT_CONNECT), "proof": prove_sealed()},
    }
    if as_json:
        output.write_json(facts)
    else:
        output.write(_as_text(facts))
    if not facts["privacy"]["proof"]["passed"]:
        raise click.exceptions.Exit(1)


def prove_sealed() -> dict[str, Any]:
    """Generate with the demo model in a sealed process: {"passed": bool, "result": what happened}."""
    import subprocess

    command = [sys.executable, "-m", sealed.__name__, *_PROOF]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROOF_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"passed": False, "result": f"the demo generation could not be run: {error}"}
    if done.returncode == 0 and done.stdout.strip():
        return {"passed": True, "result": "the demo model generated; no connection attempted"}
    if done.returncode == sealed.REACHED_OUT:
        return {"passed": False, "result": f"something tried to reach out: {done.stderr.strip()}"}
    return {"passed": False, "result": f"the demo generation failed: {done.stderr.strip()}"}


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    from influence import __version__

    libraries = {name: version(name) for name in ("numpy", "tokenizers", "jinja2")}
    return {"version": __version__, "python": platform.python_version(), **libraries}


def _machine() -> dict[str, Any]:
    import platform

    import psutil

    from influence.engines import machine

    cores = machine.cores()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": machine.cpu_name(),
        "physical_cores": cores.n_physical,
        "logical_cores": cores.n_logical,
        "usable_cores": cores.n_usable,
        "memory_bytes": int(psutil.virtual_memory().total),
        "available_memory_bytes": machine.available_memory(),
    }


def _devices() -> dict[str, Any]:
    from dataclasses import asdict

    from influence.engines import select

    reports: dict[str, Any] = {report.name: asdict(report) for report in select.devices()}
    reports["cpu"]["kernel_tables"] = select.cpu_kernels()
    return reports


def _as_text(facts: dict[str, Any]) -> str:
    parts = [
        _section("influence", [(name, value) for name, value in facts["influence"].items()]),
        _section("machine", _machine_rows(facts["machine"])),
        _section("devices", _device_rows(facts["devices"])),
        _section("privacy", _privacy_rows(facts["privacy"])),
    ]
    return "\n".join(parts)


def _section(title: str, rows: list[tuple[str, str]]) -> str:
    return f"{title}\n{output.columns([('  ' + name, value) for name, value in rows])}\n"


def _machine_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    cores = f"{facts['physical_cores']} physical, {facts['logical_cores']} logical"
    memory, available = output.size(facts["memory_bytes"]), output.size(facts["available_memory_bytes"])
    return [
        ("system", facts["system"]),
        ("cpu", facts["cpu"]),
        ("cores", f"{cores}; this process may use {facts['usable_cores']}"),
        ("memory", f"{memory}, {available} available to this process"),
    ]


def _device_rows(devices: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (name, report["description"] if report["available"] else f"not available: {report['reason']}")
        for name, report in devices.items()
    ]
    chosen, *others = devices["cpu"]["kernel_tables"]
    rows.insert(1, ("  kernel tables", f"{chosen} (chosen) {' '.join(others)}"))
    return rows


def _privacy_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    connecting = f"{', '.join(facts['commands_that_connect'])}; all others never do"
    verdict = "passed" if facts["proof"]["passed"] else "FAILED"
    return [("commands that connect", connecting), ("proof", f"{verdict}: {facts['proof']['result']}")]
