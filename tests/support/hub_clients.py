"""What tests that need a client of the fake hub share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from influence.hub.client import Hub
from support.fake_hub import FakeHub

_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

# Makes a client of the fake hub: `connect(url="", token="", **options of Hub)`.
Connect = Callable[..., Hub]


def trust(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process trust the hub's certificates, and go to it without a proxy."""
    monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
    for name in _PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
