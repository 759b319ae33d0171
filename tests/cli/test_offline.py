"""A model that is here whole needs nobody (D55)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from influence import demo
from support.cli import TIMEOUT_S, environment
from support.downloads import fetch
from support.memory_source import MemorySource

NAME = "org/name"
COMMANDS = [
    ["generate", "Once", "-m", NAME, "--max-tokens", "2"],
    ["list"],
    ["show", NAME],
    ["plan", NAME],
    ["inspect", "model", "-m", NAME],
    ["verify", NAME],
]
# Each command in turn, in a process that can't open a socket.
RUN_SEALED = """
import contextlib, io, json
from influence.cli import sealed
sealed.seal()
from influence.cli.main import main
ended = []
for arguments in {commands}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(arguments)
    ended.append([arguments[0], code, said.getvalue() if code else "", list(sealed.attempts())])
print(json.dumps(ended))
"""


@pytest.fixture
def downloaded(tmp_path: Path) -> Path:
    """A folder with a model on its shelf, downloaded whole."""
    files = {path.name: path.read_bytes() for path in demo.folder().iterdir()}
    fetch(MemorySource(files), tmp_path / "models/org_name")
    return tmp_path


def test_a_model_that_is_here_whole_is_used_without_a_socket_d55(downloaded: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_SEALED.format(commands=COMMANDS)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=downloaded,
        env=environment(HTTPS_PROXY="http://127.0.0.1:9", HF_TOKEN="hf_x"),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[command[0], 0, "", []] for command in COMMANDS]
