"""What the tests of the commands share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from influence import demo
from influence.hub import http
from support.cli import Outcome, run
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub
from support.hub_clients import trust


@pytest.fixture
def influence(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command in this process: `influence("generate", "Once", "-m", "demo")`."""
    return lambda *args: run(capsys, *args)


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    """A copy of the demo model to break."""
    return Path(shutil.copytree(demo.folder(), tmp_path / "model"))


@pytest.fixture(scope="module")
def running_hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def fake_hub(running_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """An empty hub of good manners, whose certificates this process trusts; no token is in the environment."""
    running_hub.reset()
    trust(running_hub, monkeypatch)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return running_hub


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock of every command's requests: waits cost nothing."""
    clock = FakeClock()
    monkeypatch.setattr(http, "SystemClock", lambda: clock)
    return clock
