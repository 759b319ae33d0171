"""A download through the real client: ranges, signed addresses, and what it asks whom for."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from influence.errors import DownloadFailed
from influence.hub.client import Hub
from influence.hub.endpoint import Endpoint
from influence.hub.names import RepoId
from influence.hub.source import HubSource
from influence.hub.transfer import download
from support.downloads import BLOCK, CONTENT, ORIGIN, content_of, options
from support.memory_source import FreeClock, remote

HOST, STORAGE = "https://hub.test", "https://storage.test"


class TwoHosts:
    """A hub that redirects to storage, whose signatures hold for so many requests each."""

    def __init__(self, good_for: int = 1000, ranges: bool = True) -> None:
        self.requests: list[httpx2.Request] = []
        self._good_for, self._ranges = good_for, ranges
        self._used: dict[str, int] = {}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.host == "hub.test":
            address = f"{STORAGE}/blob?sig={len(self._used)}"
            self._used[address] = 0
            headers = {
                "Location": address,
                "X-Repo-Commit": ORIGIN.sha,
                "X-Linked-Size": str(len(CONTENT)),
            }
            return httpx2.Response(302, headers=headers)
        self._used[str(request.url)] += 1
        if self._used[str(request.url)] > self._good_for:
            return httpx2.Response(403, text="<Error>Request has expired</Error>")
        return self._bytes(request.headers.get("range", ""))

    def _bytes(self, wanted: str) -> httpx2.Response:
        if not wanted or not self._ranges:
            return httpx2.Response(200, stream=httpx2.ByteStream(CONTENT))
        begin, last = map(int, wanted.removeprefix("bytes=").split("-"))
        stated = f"bytes {begin}-{last}/{len(CONTENT)}"
        part = httpx2.ByteStream(CONTENT[begin : last + 1])
        return httpx2.Response(206, stream=part, headers={"Content-Range": stated})

    def asked(self, host: str) -> int:
        return sum(request.url.host == host for request in self.requests)


def run(hosts: TwoHosts, folder: Path) -> None:
    endpoint = Endpoint.parse(HOST)
    with Hub(endpoint, clock=FreeClock(), transport=httpx2.MockTransport(hosts)) as hub:
        source = HubSource(hub, RepoId.parse(ORIGIN.repo), ORIGIN.sha)
        download(
            source, ORIGIN, [remote("model.safetensors", CONTENT)], folder, options=options(connections=1)
        )


def test_a_signed_address_is_asked_for_once_and_used_for_all_ranges(tmp_path: Path) -> None:
    hosts = TwoHosts()
    run(hosts, tmp_path)
    assert content_of(tmp_path) == {"model.safetensors": CONTENT}
    assert hosts.asked("hub.test") == 1
    assert hosts.asked("storage.test") == -(-len(CONTENT) // (4 * BLOCK))
    assert urlsplit(str(hosts.requests[0].url)).path == f"/org/name/resolve/{ORIGIN.sha}/model.safetensors"


def test_an_expired_address_is_renewed_at_the_hub_d24(tmp_path: Path) -> None:
    hosts = TwoHosts(good_for=2)
    run(hosts, tmp_path)
    assert content_of(tmp_path) == {"model.safetensors": CONTENT}
    assert hosts.asked("hub.test") == 2


def test_an_address_that_is_never_good_ends_after_the_tries_d24(tmp_path: Path) -> None:
    hosts = TwoHosts(good_for=0)
    with pytest.raises(DownloadFailed, match="5 tries"):
        run(hosts, tmp_path)
    assert hosts.asked("hub.test") == 5


def test_storage_that_ignores_ranges_gives_the_file_once_d8(tmp_path: Path) -> None:
    hosts = TwoHosts(ranges=False)
    run(hosts, tmp_path)
    assert content_of(tmp_path) == {"model.safetensors": CONTENT}
