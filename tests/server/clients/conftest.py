"""Servers on sockets for clients that we did not write, each run in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from influence.server.service import Service
from support.scripted import scripted_service
from support.servers import listening

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.fixture(scope="session")
def demo_url(service: Service) -> Iterator[str]:
    """The demo model."""
    with listening(service) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def parrot_url() -> Iterator[str]:
    """A model that answers everything with one call of a tool."""
    with scripted_service() as (service, engine), listening(service) as port:
        engine.say(CALL)
        yield f"http://127.0.0.1:{port}"
