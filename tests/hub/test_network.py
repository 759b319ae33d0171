"""Connections: who is trusted, which way they go, and what stands in it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import pytest

from influence.errors import HubUnreachable
from influence.hub import network
from influence.hub.client import Hub
from influence.hub.endpoint import Endpoint
from influence.hub.names import RepoId
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub
from support.hub_clients import Connect, trust
from support.proxies import connect_proxy, socks_proxy

REPO = RepoId("org", "name")


@pytest.fixture(autouse=True)
def a_model(fake_hub: FakeHub) -> None:
    fake_hub.add_repo("org/name", {"config.json": b"{}"})


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("kind", ["expired", "wronghost", "untrusted"])
def test_a_certificate_that_proves_nothing_ends_it_at_the_first_try(
    kind: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub(certificate=kind) as hub:
        trust(hub, monkeypatch)
        with Hub(Endpoint.parse(hub.url), clock=clock) as client, pytest.raises(HubUnreachable) as caught:
            client.resolve(REPO)
        assert "certificate" in caught.value.message
        assert "SSL_CERT_FILE" in caught.value.hint
        assert clock.slept == []
        assert hub.log == []


def test_without_the_file_of_its_authority_the_hub_is_not_trusted(
    fake_hub: FakeHub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(HubUnreachable, match="certificate"):
        connect().resolve(REPO)
    assert fake_hub.log == []


def test_certificates_that_can_not_be_read_are_named(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(HubUnreachable, match=r"/nowhere/ca\.pem"):
        connect()


def test_a_closed_port_is_tried_five_times_and_named_with_what_to_do(
    connect: Connect, clock: FakeClock
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    waits: list[str] = []
    with pytest.raises(HubUnreachable) as caught:
        connect(f"https://{host}", on_wait=lambda seconds, reason: waits.append(reason)).resolve(REPO)
    assert host in caught.value.message
    assert "--mirror" in caught.value.hint
    assert clock.now == 0.5 + 1 + 2 + 4
    assert all(host in reason for reason in waits)


def test_a_host_that_does_not_exist_is_named(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(HubUnreachable, match=r"hub\.invalid.*not known"):
        connect("https://hub.invalid").resolve(REPO)


@pytest.fixture
def black_hole() -> Iterator[network.Address]:
    """An address that never answers: a listener whose queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield socket.AF_INET, listener.getsockname()


def test_an_address_that_never_answers_costs_a_quarter_of_a_second(
    fake_hub: FakeHub, connect: Connect, black_hole: network.Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (socket.AF_INET, ("127.0.0.1", port_of(fake_hub.url)))
    monkeypatch.setattr(network, "addresses_of", lambda host, port: [black_hole, black_hole, good])
    began = time.monotonic()
    assert connect(f"https://localhost:{port_of(fake_hub.url)}").resolve(REPO).sha
    assert time.monotonic() - began < 5


def test_where_no_address_answers_it_is_said_in_time(
    connect: Connect, black_hole: network.Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "addresses_of", lambda host, port: [black_hole, black_hole])
    with pytest.raises(HubUnreachable, match="no answer"):
        connect(connect_s=0.1, tries=1).resolve(REPO)


def test_a_refused_address_gives_way_to_the_next_at_once(fake_hub: FakeHub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = (socket.AF_INET, listener.getsockname())
    good = (socket.AF_INET, ("127.0.0.1", port_of(fake_hub.url)))
    with network.connect_first([closed, closed, good], 5) as connection:
        assert connection.getpeername() == good[1]
        assert os.get_blocking(connection.fileno())


def test_the_families_of_addresses_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    found = [(six, 1, 6, "", ("::1", 1)), (six, 1, 6, "", ("::2", 1)), (four, 1, 6, "", ("1.1.1.1", 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert [address[0] for _, address in network.addresses_of("x", 1)] == ["::1", "1.1.1.1", "::2"]


def test_the_proxy_of_the_environment_carries_the_requests(
    fake_hub: FakeHub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_proxy(password="opensesame") as (address, asked):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:opensesame@{address}")
        assert connect().resolve(REPO).sha
    assert asked == [f"CONNECT 127.0.0.1:{port_of(fake_hub.url)} HTTP/1.1"]


def test_a_socks_proxy_carries_them_too(
    fake_hub: FakeHub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socks_proxy() as (address, asked):
        monkeypatch.setenv("ALL_PROXY", f"socks5://{address}")
        assert connect().resolve(REPO).sha
    assert asked == [f"127.0.0.1:{port_of(fake_hub.url)}"]


@pytest.mark.parametrize("value", ["127.0.0.1", "localhost,127.0.0.1", "*"])
def test_a_host_of_no_proxy_is_reached_directly(
    value: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", value)
    assert connect(tries=1).resolve(REPO).sha


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ("http://user:opensesame@127.0.0.1:9", "through the proxy http://127.0.0.1:9"),
        ("gopher://user:opensesame@127.0.0.1:9", "must begin with one of http, https, socks5, socks5h"),
        ("http://user:opensesame@[::1", "Invalid IPv6 URL"),
    ],
)
def test_a_proxy_that_can_not_be_used_is_named_without_its_password(
    proxy: str, problem: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(HubUnreachable) as caught:
        connect().resolve(REPO)
    assert problem in caught.value.message
    assert "opensesame" not in caught.value.message + caught.value.hint


def test_a_proxy_that_refuses_is_named_without_its_password(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_proxy(password="right") as (address, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:opensesame@{address}")
        with pytest.raises(HubUnreachable) as caught:
            connect().resolve(REPO)
    assert f"through the proxy http://{address}" in caught.value.message
    assert "opensesame" not in caught.value.message


def test_a_password_of_netrc_is_not_sent(
    fake_hub: FakeHub,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password opensesame\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    connect().resolve(REPO)
    assert "authorization" not in fake_hub.log[0].headers
