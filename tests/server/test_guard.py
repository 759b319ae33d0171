"""Who may ask: hosts, origins, keys, on every route."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from influence.server.app import App, create_app
from influence.server.service import Service
from influence.server.settings import Settings
from support.servers import listening, served_demo
from support.wire import exchange

KEY = "secret-key-1"


@pytest.fixture(scope="module")
def locked() -> Iterator[Service]:
    with served_demo(
        Settings(api_keys=(KEY, "secret-key-2"), cors_origins=("https://app.example",))
    ) as service:
        yield service


@pytest.fixture(scope="module")
def locked_client(locked: Service) -> Iterator[TestClient]:
    with TestClient(create_app(locked), base_url="http://localhost") as client:
        yield client


def paths(app: App) -> list[tuple[str, str]]:
    """(method, path) of every route that needs a key."""
    return [
        (method, route.path.replace("{model:path}", "demo"))
        for route in app.routes
        for method in sorted(route.methods or ())
        if not route.path.startswith(("/health", "/page/")) and route.path != "/"
    ]


WRONG_KEYS = [
    {},
    {"authorization": "Bearer wrong"},
    {"authorization": "Bearer null"},
    {"authorization": f"Bearer {KEY[:-1]}"},
    {"authorization": f"Bearer {KEY}x"},
    {"authorization": KEY},
    {"x-api-key": ""},
    {"authorization": "Bearer " + "x" * 20_000},
    {"authorization": "Bearer \xe9"},
]


def test_every_route_but_the_public_ones_wants_a_key(locked: Service, locked_client: TestClient) -> None:
    bodies = set()
    routes = paths(create_app(locked))
    assert len(routes) > 8
    for method, path in routes:
        for headers in WRONG_KEYS:
            raw = {name: value.encode("latin-1") for name, value in headers.items()}
            response = locked_client.request(method, f"{path}?api_key={KEY}", headers=raw)
            assert response.status_code == 401, (method, path, headers)
            assert response.headers["www-authenticate"] == "Bearer"
            if method not in ("HEAD",) and path.startswith("/v1/generate"):
                bodies.add(response.json()["error"]["message"])
    assert len(bodies) == 1


@pytest.mark.parametrize("key", [KEY, "secret-key-2"])
@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
def test_either_key_opens_in_either_header(locked_client: TestClient, name: str, key: str) -> None:
    value = f"Bearer {key}" if name == "authorization" else key
    assert locked_client.get("/tokenizer_info", headers={name: value}).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_a_probe_needs_no_key(locked_client: TestClient, path: str) -> None:
    assert locked_client.get(path).status_code == 200


@pytest.fixture(scope="module")
def locked_port(locked: Service) -> Iterator[int]:
    with listening(locked) as port:
        yield port


@pytest.mark.parametrize(
    "path",
    ["//metrics", "/./metrics", "/health/../metrics", "/health/%2e%2e/metrics", "/%6detrics", "/metrics/",
     "/health/", "/health/live/../../metrics", "/METRICS", "/metrics%00", "/metrics;a", "/nothing", "/%2Fmetrics",
     "/metrics?/health", "/health%3f/../metrics", "/\\metrics", "/health#/metrics", "*"],
)  # fmt: skip
def test_no_spelling_of_a_path_slips_by(locked_port: int, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"
    assert exchange(locked_port, request.encode(), "GET")[0] == 401


@pytest.mark.parametrize("path", ["/page/../metrics", "/page/%2e%2e/metrics", "/page/../health/../metrics"])
def test_nothing_but_the_page_lies_in_its_folder(locked_port: int, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"
    assert exchange(locked_port, request.encode(), "GET")[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.com", "localhost.evil.com", "127.0.0.1.nip.io", "evil.com:8080", "", "[::2]"]
)
def test_another_host_is_refused_on_loopback(client: TestClient, host: str) -> None:
    response = client.get("/health", headers={"host": host})
    assert response.status_code == 403
    assert "--allow-host" in response.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:8080", "[::1]:8080", "[::1]"])
def test_this_machine_by_any_of_its_names_is_answered(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"host": host}).status_code == 200


def test_a_host_that_was_allowed_is_answered() -> None:
    with (
        served_demo(Settings(allowed_hosts=("box.lan",))) as service,
        TestClient(create_app(service)) as client,
    ):
        assert client.get("/health", headers={"host": "Box.lan:80"}).status_code == 200
        assert client.get("/health", headers={"host": "evil.com"}).status_code == 403


def test_a_page_of_another_origin_gets_no_leave(client: TestClient) -> None:
    foreign = {"origin": "https://evil.example"}
    asked = client.options("/v1/generate", headers={**foreign, "access-control-request-method": "POST"})
    assert asked.status_code == 403
    for response in (asked, client.get("/health", headers=foreign)):
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_page_that_was_named_may_ask_and_read(locked_client: TestClient) -> None:
    named = {"origin": "https://app.example"}
    asked = locked_client.options(
        "/v1/generate",
        headers={
            **named,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        },
    )
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "https://app.example"
    assert asked.headers["access-control-allow-methods"] == "POST"
    refused = locked_client.post("/v1/generate", headers=named, json={})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (
        401,
        "https://app.example",
    )
    other = locked_client.get("/health", headers={"origin": "https://app.example.evil"})
    assert "access-control-allow-origin" not in other.headers


def test_computed_prefixes_are_not_shared_between_keys(locked_client: TestClient) -> None:
    def cached(key: str) -> int:
        body = {"prompt": "One long beginning that two users share, word for word, of their stories" * 4}
        response = locked_client.post("/v1/generate", json=body, headers={"x-api-key": key})
        n_cached: int = response.json()["usage"]["cached_tokens"]
        return n_cached

    assert cached(KEY) < cached(KEY)
    assert cached("secret-key-2") == 0
