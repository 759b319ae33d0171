"""What the tests of the commands share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from influence import demo
from support.cli import Outcome, run


@pytest.fixture
def influence(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command in this process: `influence("generate", "Once", "-m", "demo")`."""
    return lambda *args: run(capsys, *args)


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    """A copy of the demo model to break."""
    return Path(shutil.copytree(demo.folder(), tmp_path / "model"))
