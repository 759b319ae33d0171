"""`/` as browsers and Ollama's clients meet it. What the page does is in browser/."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from influence.server.page_api import load_assets

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
ASSETS = load_assets()


def test_a_browser_gets_the_page(client: TestClient) -> None:
    answer = client.get("/", headers=BROWSER)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>influence</title>" in answer.text


@pytest.mark.parametrize("accept", ["*/*", "application/json", "", "text/htmlx"])
def test_any_other_client_reads_that_ollama_is_running(client: TestClient, accept: str) -> None:
    answer = client.get("/", headers={"Accept": accept})
    assert (answer.status_code, answer.text) == (200, "Ollama is running")
    assert answer.headers["content-type"].startswith("text/plain")


def test_head_is_answered_without_a_body(client: TestClient) -> None:
    answer = client.head("/", headers={"Accept": "*/*"})
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_cache_keeps_both_faces_apart(client: TestClient) -> None:
    assert client.get("/", headers=BROWSER).headers["vary"] == "Accept"
    assert client.get("/").headers["vary"] == "Accept"


def test_the_policy_lets_nothing_run_that_the_server_does_not_serve(client: TestClient) -> None:
    headers = client.get("/", headers=BROWSER).headers
    policy = headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert not any("unsafe" in rule or "*" in rule or "http" in rule for rule in policy)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_file_of_the_page_is_served_with_its_type(client: TestClient, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert (answer.status_code, answer.content) == (200, ASSETS[name].body)
    assert answer.headers["content-type"] == ASSETS[name].media_type


def test_a_file_that_has_not_changed_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/page/app.js")
    again = client.get("/page/app.js", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/page/app.js", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "../page_api.py",
        "..%2fpage_api.py",
        "%2e%2e/page_api.py",
        "/etc/passwd",
        "markdown",
        "markdown/",
        "app.js/",
        "",
    ],
)
def test_a_path_is_a_name_of_the_table_or_nothing(client: TestClient, path: str) -> None:
    assert client.get(f"/page/{path}").status_code == 404


def test_the_page_names_only_files_that_are_there() -> None:
    page = ASSETS["index.html"].body.decode()
    named = re.findall(r'(?:src|href)="(/page/[^"]+)"', page)
    assert len(named) > 4
    assert {name.removeprefix("/page/") for name in named} <= set(ASSETS)


def test_modules_import_only_files_that_are_there() -> None:
    for name, asset in ASSETS.items():
        folder = name.rpartition("/")[0]
        for target in re.findall(r'from "(\.[^"]+)"', asset.body.decode()):
            path = f"{folder}/{target.removeprefix('./')}".lstrip("/")
            assert path in ASSETS, f"{name} imports {target}"


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for name, asset in ASSETS.items():
        addresses = re.findall(rb"""(?:src|href|url|import|fetch)[=(\s]*["']?(https?:)?//[\w.]""", asset.body)
        assert addresses == [], name


def test_no_module_reads_text_as_markup() -> None:
    holes = re.compile(
        rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    )
    assert [name for name, asset in ASSETS.items() if holes.search(asset.body) and name.endswith(".js")] == []
