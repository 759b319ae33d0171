"""The fake hub, started once a module, and our client on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from influence.hub.client import Hub
from influence.hub.endpoint import Endpoint
from influence.hub.token import Token
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub
from support.hub_clients import Connect, trust


@pytest.fixture(scope="module")
def running_hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def fake_hub(running_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """An empty hub of good manners, whose certificates this process trusts."""
    running_hub.reset()
    trust(running_hub, monkeypatch)
    return running_hub


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def connect(fake_hub: FakeHub, clock: FakeClock) -> Iterator[Connect]:
    """Makes clients of the fake hub, closed with the test: `connect(token="hf_x", tries=2)`."""
    opened: list[Hub] = []

    def make(url: str = "", token: str = "", **options: Any) -> Hub:
        endpoint = Endpoint.parse(url or fake_hub.url)
        options = {"clock": clock, **options}
        opened.append(Hub(endpoint, token=Token(token) if token else None, **options))
        return opened[-1]

    yield make
    for hub in opened:
        hub.close()
