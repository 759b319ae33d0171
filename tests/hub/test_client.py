"""Revisions, trees and files: one commit, every hash, and what to do where the list is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from influence.errors import (
    HubError,
    InvalidAnswer,
    InvalidParameter,
    MirrorRefused,
    ModelNotFound,
    RevisionNotFound,
    UnsafeName,
)
from influence.hub.names import RepoId
from influence.hub.records import RemoteFile
from support.fake_hub import FakeHub, Virtual
from support.hub_clients import Connect

REPO = RepoId("org", "name")
API = "/api/models/org/name"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": Virtual(3 << 20, seed=1),
    "folder/notes.txt": b"notes",
    "README.md": b"",
}


@pytest.fixture
def sha(fake_hub: FakeHub) -> str:
    return fake_hub.add_repo("org/name", FILES, tags=["license:mit"], cardData={"license": "apache-2.0"})


def test_a_branch_is_resolved_to_its_commit_and_facts(connect: Connect, sha: str) -> None:
    revision = connect().resolve(REPO)
    assert (revision.repo, revision.sha, revision.gated, revision.private) == (REPO, sha, "", False)
    assert revision.licence == "apache-2.0"
    assert set(revision.siblings) == set(FILES)
    assert revision.last_modified == "2026-01-02T03:04:05.000Z"


@pytest.mark.parametrize("branch", ["v1.0", "refs/pr/1", "feature/a+b"])
def test_any_branch_can_be_asked_for(branch: str, fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    other = fake_hub.add_commit("org/name", {"config.json": b"[]"}, branch)
    assert connect().resolve(REPO, branch).sha == other
    assert connect().resolve(REPO, sha).sha == sha
    assert connect().resolve(REPO).sha == sha


def test_an_impossible_revision_is_refused_before_anything_is_asked(
    fake_hub: FakeHub, connect: Connect
) -> None:
    with pytest.raises(InvalidParameter, match="revision"):
        connect().resolve(REPO, "../../x")
    assert fake_hub.log == []


def test_all_files_are_of_the_commit_that_was_resolved_though_the_branch_moves(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode("movehead", times=1, files={"config.json": b"new", "model.safetensors": b"new"})
    client = connect()
    revision = client.resolve(REPO)
    for _ in range(2):
        assert client.read_file(REPO, revision.sha, "config.json", 100) == FILES["config.json"]
    assert client.resolve(REPO).sha != sha


def test_a_file_that_its_host_says_is_of_another_commit_is_refused(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.serve(f"/org/name/resolve/{sha}/config.json", b"{}", headers={"X-Repo-Commit": "1" * 40})
    with pytest.raises(InvalidAnswer, match=f"of commit {'1' * 40}"):
        connect().read_file(REPO, sha, "config.json", 100)


@pytest.mark.parametrize("tree_page", [1000, 2, 1])
def test_a_tree_lists_every_file_with_size_and_hash(
    tree_page: int, fake_hub: FakeHub, connect: Connect, sha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_hub, "tree_page", tree_page)
    contents = fake_hub.repos["org/name"].commits[sha]
    weights = contents["model.safetensors"]
    expected = {
        RemoteFile(path, content.size_bytes, git_sha1=content.git_sha1)
        for path, content in contents.items()
        if content is not weights
    } | {RemoteFile("model.safetensors", 3 << 20, sha256=weights.sha256)}
    files = connect().tree(REPO, sha)
    assert set(files) == expected
    assert len(files) == len(FILES)


def test_the_hubs_own_client_lists_the_same_tree(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    from huggingface_hub import HfApi, RepoFile

    theirs = HfApi(endpoint=fake_hub.url, token=False).list_repo_tree(
        "org/name", revision=sha, recursive=True
    )
    listed = {
        RemoteFile(entry.path, entry.size, entry.lfs.sha256, None)
        if entry.lfs
        else RemoteFile(entry.path, entry.size, None, entry.blob_id)
        for entry in theirs
        if isinstance(entry, RepoFile)
    }
    assert set(connect().tree(REPO, sha)) == listed


def test_a_next_page_that_a_mirror_left_on_the_official_host_is_asked_of_the_mirror(
    fake_hub: FakeHub, connect: Connect, sha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_hub, "tree_page", 3)
    path = f"{API}/tree/{sha}"
    fake_hub.mode("link", times=1, to=f"https://huggingface.co{path}?recursive=true&cursor=3")
    assert len(connect().tree(REPO, sha)) == len(FILES)
    assert {request.origin for request in fake_hub.log} == {"hub"}


@pytest.mark.parametrize(
    "link", ["https://evil.example/other?cursor=2", "/api/whoami-v2", "file:///etc/passwd", "https://[::1"]
)
def test_a_next_page_elsewhere_is_not_followed(
    link: str, fake_hub: FakeHub, connect: Connect, sha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_hub, "tree_page", 2)
    fake_hub.mode("link", to=link)
    with pytest.raises(InvalidAnswer, match="next page is elsewhere"):
        connect().tree(REPO, sha)
    assert len(fake_hub.log) == 1


def test_a_list_whose_next_page_is_itself_ends(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    path = f"{API}/tree/{sha}"
    fake_hub.serve(path, b"[]", headers={"Link": f'<{path}?recursive=true&expand=false>; rel="next"'})
    assert connect().tree(REPO, sha) == ()
    assert len(fake_hub.log) <= 2


def test_a_list_that_never_ends_is_given_up(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.repos["org/name"].commits[sha] |= {
        f"{i}.txt": fake_hub.repos["org/name"].commits[sha]["README.md"] for i in range(300)
    }
    fake_hub.tree_page, before = 1, fake_hub.tree_page
    with pytest.raises(InvalidAnswer, match="200 pages"):
        connect().tree(REPO, sha)
    fake_hub.tree_page = before


ENTRY = {"type": "file", "path": "a", "size": 1, "oid": "0" * 40}
LFS = {"oid": "0" * 64, "size": 1, "pointerSize": 1}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {},
        {**ENTRY, "type": "link"},
        {**ENTRY, "path": None},
        {**ENTRY, "size": -1},
        {**ENTRY, "size": 1.5},
        {**ENTRY, "size": True},
        {**ENTRY, "size": "1"},
        {**ENTRY, "size": 1 << 60},
        {**ENTRY, "oid": "xyz"},
        {**ENTRY, "oid": None},
        {**ENTRY, "oid": "A" * 40},
        {**ENTRY, "lfs": {**LFS, "oid": "0" * 63}},
        {**ENTRY, "lfs": {**LFS, "oid": "../../../etc/passwd"}},
        {**ENTRY, "lfs": {**LFS, "size": -1}},
        {**ENTRY, "lfs": "no"},
    ],
)
def test_an_entry_that_can_not_be_meant_is_refused(
    entry: object, fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.serve(f"{API}/tree/{sha}", json.dumps([entry]).encode())
    with pytest.raises(InvalidAnswer):
        connect().tree(REPO, sha)


@pytest.mark.parametrize("body", [b"{}", b"null", b"3", b'"x"'])
def test_a_tree_that_is_no_list_is_refused(
    body: bytes, fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.serve(f"{API}/tree/{sha}", body)
    with pytest.raises(InvalidAnswer, match="not the list"):
        connect().tree(REPO, sha)


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b'{"sha": 3}', b'{"sha": "main"}', b'{"sha": "../../x"}']
)
def test_a_revision_without_a_commit_is_refused(body: bytes, fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.serve(f"{API}/revision/main", body)
    with pytest.raises(InvalidAnswer, match="names no commit"):
        connect().resolve(REPO)


# Where the tree can't be listed --------------------------------------------------------------


def large(fake_hub: FakeHub, sha: str, path: str) -> RemoteFile:
    content = fake_hub.repos["org/name"].commits[sha][path]
    return RemoteFile(path, content.size_bytes, sha256=content.sha256)


@pytest.mark.parametrize("mode", ["notree", "refuse", "page"])
def test_without_a_tree_the_usual_files_are_found_and_it_is_said(
    mode: str, fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode(mode, path=f"{API}/tree/*")
    notices: list[str] = []
    files = connect(on_notice=notices.append).tree(REPO, sha)
    config = fake_hub.repos["org/name"].commits[sha]["config.json"]
    assert set(files) == {
        RemoteFile("config.json", config.size_bytes, git_sha1=config.git_sha1),
        large(fake_hub, sha, "model.safetensors"),
    }
    assert len(notices) == 1
    assert "only the usual files" in notices[0]


def test_without_a_tree_the_shards_of_the_index_are_found_too(fake_hub: FakeHub, connect: Connect) -> None:
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1], "c": shards[1]}}).encode()
    files = {"model.safetensors.index.json": index, shards[0]: b"1", shards[1]: b"22"}
    sha = fake_hub.add_repo("org/name", files)
    fake_hub.mode("notree")
    listed = {file.path: file for file in connect().tree(REPO, sha)}
    assert set(listed) == set(files)
    assert [listed[shard] for shard in shards] == [large(fake_hub, sha, shard) for shard in shards]


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (b"[]", InvalidAnswer),
        (b"{}", InvalidAnswer),
        (b'{"weight_map": 3}', InvalidAnswer),
        (b'{"weight_map": {"a": 3}}', InvalidAnswer),
        (b'{"weight_map": {"a": ["x"]}}', InvalidAnswer),
        (b"no json", InvalidAnswer),
        (b'{"weight_map": {"a": "../../x"}}', UnsafeName),
        (b'{"weight_map": {"a": "/etc/passwd"}}', UnsafeName),
    ],
)
def test_an_index_that_names_no_shards_is_refused(
    index: bytes, error: type[HubError], fake_hub: FakeHub, connect: Connect
) -> None:
    sha = fake_hub.add_repo("org/name", {"model.safetensors.index.json": index})
    fake_hub.mode("notree")
    with pytest.raises(error):
        connect().tree(REPO, sha)


def test_a_host_without_a_tree_and_without_the_files_says_its_own_words(
    fake_hub: FakeHub, connect: Connect
) -> None:
    sha = fake_hub.add_repo("org/name", {"other.txt": b""})
    fake_hub.mode("refuse", path=f"{API}/tree/*")
    with pytest.raises(MirrorRefused, match="invalid request"):
        connect().tree(REPO, sha)


def test_a_missing_model_or_commit_is_not_looked_for_by_its_usual_files(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    with pytest.raises(ModelNotFound):
        connect().tree(RepoId("org", "missing"), sha)
    with pytest.raises(RevisionNotFound):
        connect().tree(REPO, "0" * 40)
    assert all(request.path.startswith("/api/") for request in fake_hub.log)


# Files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a/b c.txt", "日本語.txt", "100%.txt", "a+b&c=d.txt", "x#y.txt", "q;r.txt"])
def test_any_name_of_a_file_survives_the_way_into_its_url(
    path: str, fake_hub: FakeHub, connect: Connect
) -> None:
    sha = fake_hub.add_repo("org/name", {path: b"content"})
    assert connect().read_file(REPO, sha, path, 100) == b"content"


def test_a_range_in_the_middle_of_many_gigabytes_is_read(fake_hub: FakeHub, connect: Connect) -> None:
    weights = Virtual(60 << 30, seed=3, known_sha256="0" * 64)
    sha = fake_hub.add_repo("org/name", {"model.safetensors": weights})
    begin = (50 << 30) + 12345
    client = connect()
    assert client.read_range(REPO, sha, "model.safetensors", begin, begin + 100) == weights.read(
        begin, begin + 100
    )
    assert client.tree(REPO, sha)[0].size_bytes == 60 << 30


def test_the_http_library_is_loaded_by_the_first_request_alone() -> None:
    code = "import sys, influence.hub.client, influence.hub.selection; print('httpx2' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "False"
