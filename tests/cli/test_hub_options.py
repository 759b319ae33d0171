"""Which hub is asked, and who gets the token."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Callable

import pytest

from influence.hub import endpoint
from support.cli import Outcome
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub

Run = Callable[..., Outcome]


@pytest.fixture
def official(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The fake hub as the one that HF_TOKEN is for."""
    monkeypatch.setattr(endpoint, "OFFICIAL", fake_hub.url)
    fake_hub.add_token("hf_mine")
    return fake_hub


def tokens_sent(hub: FakeHub) -> set[str | None]:
    return {request.headers.get("authorization") for request in hub.log}


def test_the_environments_token_goes_to_the_official_hub(
    influence: Run, official: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert influence("search", "x", "-r", official.url).exit_code == 0
    assert tokens_sent(official) == {"Bearer hf_mine"}


@pytest.mark.parametrize(
    "token", ["hf_S3cret\n", "hf_S3cret x", "\thf_S3cret", "hf_S3cr\u00e9t", "hf_S3cret\r\nX: y"]
)
def test_a_token_with_spaces_or_line_ends_is_refused_here_and_not_shown_d51(
    token: str, influence: Run, official: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = influence("search", "x", "-r", official.url, "--token", token)
    monkeypatch.setenv("HF_TOKEN", token)
    from_environment = influence("search", "x", "-r", official.url)
    for outcome in (given, from_environment):
        assert (outcome.exit_code, outcome.stdout) == (2, "")
        assert "without spaces or line ends" in outcome.stderr
        assert "S3cr" not in outcome.stderr
    assert official.log == []


def test_a_token_can_come_from_standard_input_where_no_list_of_processes_shows_it_d50(
    influence: Run, official: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hf_mine\n"))
    assert influence("search", "x", "-r", official.url, "--token", "-").exit_code == 0
    assert tokens_sent(official) == {"Bearer hf_mine"}


def test_plain_http_is_refused_beyond_this_machine_unless_it_is_allowed_d35(
    influence: Run, fake_hub: FakeHub, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def unknown(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert influence("search", "x", "-r", fake_hub.plain_url).exit_code == 0
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    refused = influence("search", "x", "-r", "http://mirror.test")
    assert (refused.exit_code, asked) == (2, [])
    assert "--allow-http" in refused.stderr
    allowed = influence("search", "x", "-r", "http://mirror.test", "--allow-http")
    assert (allowed.exit_code, set(asked)) == (1, {"mirror.test"})
