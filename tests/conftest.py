"""Fixtures that many tests share."""

import signal
from pathlib import Path

import pytest

from influence.engines import machine

MAX_WORKERS = 5  # one takes a GB where torch and transformers are

PROJECT = Path(__file__).resolve().parent.parent
SHARED_DATA = PROJECT.parent / "shared" / "data"


def pytest_configure() -> None:
    """A shell that starts the tests in the background has them ignore Ctrl-C, and so all that they start."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for another process a third of their time."""
    return min(machine.usable_cores() + 1, MAX_WORKERS)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real weights, tokenizers, templates and configs; not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data, which is not here")
    return SHARED_DATA
