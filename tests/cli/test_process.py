"""The real process: streams, signals, exit codes, and no connection."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cli import MODEL, command, environment, run_process

ONCE = ("generate", "Once upon a time", "-m", MODEL)
needs_unix = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of Unix")


@contextmanager
def process(*args: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A running command, killed at the latest at the end of the block."""
    running = subprocess.Popen(command(*args), env=environment(), **options)  # type: ignore[call-overload]
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


@pytest.fixture
def endless(model_copy: Path) -> tuple[str, ...]:
    """Arguments of a generation that goes on for minutes: nothing ends it, and its context is long."""
    (model_copy / "generation_config.json").unlink(missing_ok=True)
    for name, changes in {
        "config.json": {"eos_token_id": None, "max_position_embeddings": 1_000_000},
        "tokenizer_config.json": {"eos_token": None},
        "special_tokens_map.json": {"eos_token": None},
    }.items():
        file = model_copy / name
        if file.exists():
            file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return ("generate", "Once upon a time", "-m", str(model_copy), "--raw", "--max-tokens", "100000")


BREAKS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no folder": (
        lambda model: model.rename(model.with_name("gone")),
        "the model folder is not there",
        "-m demo",
    ),
    "no tokenizer": (
        lambda model: (model / "tokenizer.json").unlink(),
        "there is no tokenizer.json",
        "download",
    ),
    "no config": (lambda model: (model / "config.json").unlink(), "config.json", "folder"),
    "no weights": (lambda model: (model / "model.safetensors").unlink(), "safetensors", "download"),
    "unsupported": (
        lambda model: (model / "config.json").write_text(json.dumps({"model_type": "mamba"})),
        "mamba: state space",
        "use ",
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_model_that_is_not_whole_has_its_own_error_and_hint(model_copy: Path, case: str) -> None:
    spoil, said, hinted = BREAKS[case]
    spoil(model_copy)
    done = run_process("generate", "Once", "-m", str(model_copy))
    assert (done.returncode, done.stdout) == (1, b"")
    error, hint = done.stderr.decode().splitlines()
    assert error.startswith("error: ") and said in error
    assert hint.startswith("hint: ") and hinted in hint


def test_a_model_path_that_is_not_given_is_bad_usage() -> None:
    done = run_process("generate", "Once")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: the model path is not provided\nhint: ")


def test_the_errors_of_spec_are_all_different(model_copy: Path) -> None:
    assert len({said for _, said, _ in BREAKS.values()}) == len(BREAKS)


def test_output_without_a_terminal_has_no_escapes() -> None:
    done = run_process("generate", "Once", "-m", MODEL, "--max-tokens", "4", "--stats")
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"loading" not in done.stderr


@needs_unix
def test_a_reader_that_leaves_ends_it_quietly() -> None:
    with process(*ONCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.wait(20) == 0
        assert running.stderr.read() == b""


@needs_unix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error() -> None:
    with Path("/dev/full").open("wb") as full, process(*ONCE, stdout=full, stderr=subprocess.PIPE) as running:
        _, stderr = running.communicate(timeout=20)
    assert running.returncode == 1
    assert stderr.splitlines()[0] == b"error: No space left on device"
    assert b"Exception ignored" not in stderr


@needs_unix
def test_sigterm_ends_it_with_what_there_is(endless: tuple[str, ...]) -> None:
    with process(*endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.read(1)
        running.send_signal(signal.SIGTERM)
        stdout, stderr = running.communicate(timeout=20)
    assert running.returncode == 143
    assert stdout.endswith(b"\n")
    assert stderr == b""


@needs_unix
def test_ctrl_c_on_a_terminal_prints_what_there_is_and_a_newline(endless: tuple[str, ...]) -> None:
    screen, terminal = os.openpty()
    with process(
        *endless, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    ) as running:
        os.close(terminal)
        shown = os.read(screen, 1)
        os.killpg(running.pid, signal.SIGINT)
        exit_code = running.wait(20)
        shown += read_all(screen)
    os.close(screen)
    assert exit_code == 130
    assert shown.endswith(b"\r\n")
    assert b"Traceback" not in shown and b"error" not in shown


def read_all(screen: int) -> bytes:
    """What the terminal still shows; Linux reports its end as an error."""
    shown = b""
    try:
        while piece := os.read(screen, 4096):
            shown += piece
    except OSError:
        pass
    return shown


def test_generate_opens_no_connection() -> None:
    sealed = [sys.executable, "-m", "influence.cli.sealed"]
    done = subprocess.run(
        [*sealed, "generate", "Tell me a story", "-m", MODEL, "--max-tokens", "8"],
        capture_output=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.strip()


@pytest.mark.parametrize("args", [("list",), ("show", MODEL), ("plan", MODEL)], ids=" ".join)
def test_looking_at_models_opens_no_connection(args: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "influence.cli.sealed", *args, "--json"],
        capture_output=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)
