"""`influence doctor`: the machine, the devices, and the proof of privacy."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import click
import pytest

from influence.cli import sealed
from influence.cli.commands import doctor
from influence.cli.main import influence as cli
from support.cli import Outcome

Run = Callable[..., Outcome]


def test_the_doctor_knows_the_machine_and_proves_that_nothing_is_sent(influence: Run) -> None:
    outcome = influence("doctor", "--json")
    data = json.loads(outcome.stdout)
    assert outcome.exit_code == 0
    assert data["privacy"]["proof"] == {
        "passed": True,
        "result": "the demo model generated; no connection attempted",
    }
    assert data["machine"]["usable_cores"] >= 1
    assert data["devices"]["cpu"]["available"]
    assert data["devices"]["cpu"]["kernel_tables"][-1] == "generic"
    assert not data["devices"]["cuda"]["available"]
    assert data["devices"]["cuda"]["reason"]


def no_proof(returncode: int, stdout: str, stderr: str) -> Callable[..., Any]:
    return lambda command, **options: subprocess.CompletedProcess(command, returncode, stdout, stderr)


@pytest.mark.parametrize(
    ("returncode", "stdout", "stderr", "result"),
    [
        (
            sealed.REACHED_OUT,
            "a story",
            "refused: socket.__new__",
            "something tried to reach out: refused: socket.__new__",
        ),
        (1, "", "error: no model", "the demo generation failed: error: no model"),
        (0, "", "", "the demo generation failed: "),
    ],
)
def test_a_proof_that_fails_is_told_and_exits_1(
    influence: Run, monkeypatch: pytest.MonkeyPatch, returncode: int, stdout: str, stderr: str, result: str
) -> None:
    monkeypatch.setattr(subprocess, "run", no_proof(returncode, stdout, stderr))
    assert doctor.prove_sealed() == {"passed": False, "result": result}
    outcome = influence("doctor")
    assert outcome.exit_code == 1
    assert f"FAILED: {result}".rstrip() in outcome.stdout


def test_the_report_reads_as_text_too(influence: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", no_proof(0, "a story", ""))
    outcome = influence("doctor")
    assert outcome.exit_code == 0
    for part in ("influence\n  version", "machine\n  system", "this process may use", "(chosen)", "proof"):
        assert part in outcome.stdout


def test_the_commands_that_connect_are_those_that_take_a_mirror() -> None:
    taking = set()
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if any("--mirror" in parameter.opts for parameter in command.params):
            taking.add(name)
    assert taking == {words.split()[0] for words in doctor.COMMANDS_THAT_CONNECT}
