"""The demo model behind the app: in this process, and as a real `influence serve`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from influence.server.app import create_app
from influence.server.service import Service
from support.servers import served_demo


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """The demo model, loaded once, with default settings."""
    with served_demo() as service:
        yield service


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[TestClient]:
    """A client of the app, in this process, without a socket."""
    with TestClient(
        create_app(service), base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        yield client
