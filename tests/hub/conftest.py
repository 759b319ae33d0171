"""The fake hub, started once a module, and our client on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub

from influence.hub.client import Hub
from influence.hub.endpoint import Endpoint
from influence.hub.token import Token

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

Connect = Callable[..., Hub]


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


def trust(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


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
