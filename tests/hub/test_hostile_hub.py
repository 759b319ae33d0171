"""A hub that means harm, from its list of files to the folder on this disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from influence.errors import NoSafeWeights, RedirectRefused, UnsafeName
from influence.hub.names import RepoId
from influence.hub.offer import examine
from influence.hub.source import HubSource
from influence.hub.transfer import Options, Origin, download
from support.downloads import content_of
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub
from support.hub_clients import Connect
from support.unsafe_names import UNSAFE

REPO = RepoId("org", "name")
FILES = {"config.json": b"{}", "model.safetensors": b"weights"}


def fetch(connect: Connect, folder: Path) -> None:
    """As `influence download` does it: examined, then transferred."""
    hub = connect()
    offer = examine(hub, REPO)
    sha = offer.revision.sha
    origin = Origin(str(REPO), "main", sha, str(hub.endpoint))
    options = Options(clock=FakeClock(), tries=2)
    download(HubSource(hub, REPO, sha), origin, offer.selection.chosen, folder, options=options)


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Every path below a folder, with its kind and content."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, _digest(path)) for path in folder.rglob("*")
    }


def _digest(path: Path) -> str:
    if path.is_symlink():
        return str(path.readlink())
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """What a model must not touch: beside its folder, above it, and the links in it."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root")
    (tmp_path / "models/other").mkdir(parents=True)
    (tmp_path / "models/other/config.json").write_text("{}")
    (tmp_path / "models/link").symlink_to(tmp_path / "etc")
    return tmp_path


@pytest.mark.parametrize("name", UNSAFE.values(), ids=UNSAFE)
def test_an_unsafe_name_in_the_list_changes_nothing_beside_the_model_d36(
    name: str, fake_hub: FakeHub, connect: Connect, world: Path
) -> None:
    """It stops the download before anything is written; or it is left out, as any file of its kind."""
    fake_hub.add_repo("org/name", {**FILES, name: b"evil"})
    before = snapshot(world)
    folder = world / "models/org_name"
    try:
        fetch(connect, folder)
    except UnsafeName:
        assert not folder.exists()
    else:
        assert content_of(folder) == FILES
    after = {path: found for path, found in snapshot(world).items() if "org_name" not in path}
    assert after == before


@pytest.mark.parametrize(
    "names",
    [("notes.txt", "NOTES.txt"), ("caf\u00e9.txt", "cafe\u0301.txt"), ("x" * 300, "y"), ("con.json", "y")],
)
def test_names_that_are_one_on_some_systems_stop_the_download_d36(
    names: tuple[str, str], fake_hub: FakeHub, connect: Connect, tmp_path: Path
) -> None:
    fake_hub.add_repo("org/name", {**FILES, **dict.fromkeys(names, b"evil")})
    with pytest.raises(UnsafeName):
        fetch(connect, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_a_file_is_replaced_and_what_it_leads_to_is_left_alone_d37(
    fake_hub: FakeHub, connect: Connect, world: Path
) -> None:
    fake_hub.add_repo("org/name", FILES)
    folder = world / "models/org_name"
    folder.mkdir()
    (folder / "config.json").symlink_to(world / "etc/passwd")
    before = snapshot(world / "etc")
    fetch(connect, folder)
    assert content_of(folder) == FILES
    assert not (folder / "config.json").is_symlink()
    assert snapshot(world / "etc") == before


@pytest.mark.parametrize("target", ["http", "file", "network"])
def test_a_download_that_is_sent_astray_writes_no_file_d29_d32(
    target: str, fake_hub: FakeHub, connect: Connect, tmp_path: Path
) -> None:
    fake_hub.add_repo("org/name", FILES)
    where = {"file": "file:///etc/passwd", "network": "https://169.254.169.254/latest/meta-data"}
    if target == "http":
        fake_hub.mode("http", path="model.safetensors")
    else:
        fake_hub.mode("redirect", path="model.safetensors", to=where[target])
    with pytest.raises(RedirectRefused):
        fetch(connect, tmp_path / "model")
    assert "model.safetensors" not in content_of(tmp_path / "model")
    assert {request.origin for request in fake_hub.log} <= {"hub", "cdn"}


def test_a_model_of_pickled_weights_alone_writes_nothing_d48(
    fake_hub: FakeHub, connect: Connect, tmp_path: Path
) -> None:
    fake_hub.add_repo("org/name", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04."})
    with pytest.raises(NoSafeWeights, match=r"only weights in \.bin") as caught:
        fetch(connect, tmp_path / "model")
    assert "can run code" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    assert fake_hub.bytes_served == 0


def test_pickled_weights_beside_safe_ones_stay_where_they_are_d48(
    fake_hub: FakeHub, connect: Connect, tmp_path: Path
) -> None:
    fake_hub.add_repo("org/name", {**FILES, "pytorch_model.bin": b"\x80\x04.", "modeling.py": b"import os"})
    fetch(connect, tmp_path / "model")
    assert content_of(tmp_path / "model") == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
