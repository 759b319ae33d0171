"""The fake hub is a hub: the real client of the real one says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from support.fake_hub import FakeHub, Virtual
from support.fake_hub.wire import Request, _sender

WEIGHTS = Virtual(5 << 20, seed=2)
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "folder/a b.txt": b"hello",
    "big.txt": b"z" * (2 << 20),
}


@pytest.fixture(autouse=True)
def official_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The real client takes its certificates from the environment when it makes its first connection."""
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


def test_the_hubs_own_client_downloads_a_snapshot(fake_hub: FakeHub, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    fake_hub.add_repo("org/name", FILES)
    snapshot_download("org/name", endpoint=fake_hub.url, local_dir=tmp_path, token=False)
    assert hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest() == WEIGHTS.sha256
    for path in ("config.json", "folder/a b.txt", "big.txt"):
        assert (tmp_path / path).read_bytes() == FILES[path]


def test_the_hubs_own_client_finds_its_copy_to_be_what_the_fake_hub_lists(
    fake_hub: FakeHub, tmp_path: Path
) -> None:
    from huggingface_hub import HfApi, snapshot_download

    fake_hub.add_repo("org/name", FILES)
    snapshot_download("org/name", endpoint=fake_hub.url, local_dir=tmp_path, token=False)
    api = HfApi(endpoint=fake_hub.url, token=False)
    verdict = api.verify_repo_checksums("org/name", local_dir=tmp_path)
    assert (verdict.checked_count, verdict.mismatches, verdict.missing_paths) == (len(FILES), [], [])
    (tmp_path / "config.json").write_bytes(b'{"model_type": "llamb"}')
    verdict = api.verify_repo_checksums("org/name", local_dir=tmp_path)
    assert [wrong["path"] for wrong in verdict.mismatches] == ["config.json"]


def test_the_hubs_own_client_gets_its_own_errors(fake_hub: FakeHub, tmp_path: Path) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    fake_hub.add_repo("org/name", FILES)
    fake_hub.add_repo("org/gated", FILES, gated="auto")
    api = HfApi(endpoint=fake_hub.url, token=False)
    for repo, path, revision, error in [
        ("org/missing", "config.json", None, RepositoryNotFoundError),
        ("org/name", "nothing.json", None, EntryNotFoundError),
        ("org/name", "config.json", "v9", RevisionNotFoundError),
        ("org/gated", "config.json", None, GatedRepoError),
    ]:
        with pytest.raises(error):
            api.hf_hub_download(repo, path, revision=revision, local_dir=tmp_path)


def test_a_virtual_file_is_the_same_however_it_is_read() -> None:
    whole = WEIGHTS.read(0, WEIGHTS.size_bytes)
    assert len(whole) == WEIGHTS.size_bytes
    assert hashlib.sha256(whole).hexdigest() == WEIGHTS.sha256
    for begin, end in [(0, 1), (1 << 20, (1 << 20) + 9), ((1 << 20) - 3, (3 << 20) + 3), (5 << 20, 5 << 20)]:
        assert WEIGHTS.read(begin, end) == whole[begin:end]
    assert len({whole[i << 20 : (i + 1) << 20] for i in range(5)}) == 5


def test_what_was_served_is_counted(fake_hub: FakeHub) -> None:
    fake_hub.add_repo("org/name", FILES)
    url = f"{fake_hub.url}/org/name/resolve/main/config.json"
    context = httpx2.create_ssl_context()
    with httpx2.Client(verify=context, follow_redirects=True) as client:
        client.get(f"{fake_hub.url}/api/models/org/name")
        client.get(url, headers={"Range": "bytes=2-5"})
        client.head(url)
    assert fake_hub.bytes_served == 4
    assert [request.method for request in fake_hub.log] == ["GET", "GET", "GET", "HEAD", "HEAD"]
    assert [request.range for request in fake_hub.log][2] == "bytes=2-5"


def test_bytes_are_counted_before_anyone_has_them_and_not_where_the_line_is_gone() -> None:
    request, seen = Request("hub", "GET", "/file", {}), []

    class Line:
        def sendall(self, data: bytes) -> None:
            seen.append((data, request.bytes_served))
            if data == b"late":
                raise ConnectionResetError

    send = _sender(Line(), request, chunked=False)  # type: ignore[arg-type]
    send(b"abc")
    with pytest.raises(ConnectionResetError):
        send(b"late")
    assert (seen, request.bytes_served) == ([(b"abc", 3), (b"late", 7)], 3)
