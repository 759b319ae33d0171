"""A model is examined before its weights move: one commit, whole, and the same on a second host."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from influence.errors import (
    GatedModel,
    HostsDisagree,
    IncompleteModel,
    IntegrityError,
    InvalidAnswer,
    RevisionNotFound,
    UnsafeName,
)
from influence.hub.names import RepoId
from influence.hub.offer import check_granted, examine
from influence.hub.records import RemoteFile
from support.fake_hub import FakeHub, Virtual
from support.hub_clients import Connect

REPO = RepoId("org", "name")
SHARDS = {f"model-0000{n}-of-00003.safetensors": Virtual(1000 * n, seed=n) for n in (1, 2, 3)}
INDEX = {"model.safetensors.index.json": json.dumps({"weight_map": dict(zip("abc", SHARDS, strict=True))})}
CONFIG = {"config.json": b"{}"}


def paths(files: tuple[RemoteFile, ...]) -> set[str]:
    return {file.path for file in files}


def test_an_offer_is_one_commit_with_the_files_worth_their_bytes(fake_hub: FakeHub, connect: Connect) -> None:
    sha = fake_hub.add_repo("org/name", CONFIG | INDEX | SHARDS | {"model.gguf": b"x"})
    offer = examine(connect(), REPO)
    assert (offer.revision.sha, offer.witness, offer.unhashed) == (sha, "", ())
    assert paths(offer.selection.chosen) == {*CONFIG, *INDEX, *SHARDS}
    assert [file.path for file, _ in offer.selection.left_out] == ["model.gguf"]


def test_no_byte_of_the_weights_is_asked_for(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.add_repo("org/name", CONFIG | INDEX | SHARDS)
    examine(connect(), REPO)
    assert not any("-of-" in request.path for request in fake_hub.log)


def test_who_may_not_have_a_gated_model_learns_it_before_a_download_begins_d25(
    fake_hub: FakeHub, connect: Connect
) -> None:
    """Its list is for everybody; its bytes are not, so one of the largest file is asked for."""
    fake_hub.add_repo("org/name", CONFIG | SHARDS, gated="manual")
    fake_hub.add_token("hf_granted", "org/name")
    offer = examine(connect(), REPO)
    with pytest.raises(GatedModel):
        check_granted(connect(), offer)
    assert fake_hub.bytes_served == 0
    check_granted(connect(token="hf_granted"), offer)
    assert fake_hub.bytes_served == 1


def test_an_index_that_names_a_shard_which_is_not_there_is_refused_d47(
    fake_hub: FakeHub, connect: Connect
) -> None:
    fake_hub.add_repo("org/name", CONFIG | INDEX | {name: SHARDS[name] for name in [*SHARDS][1:]})
    with pytest.raises(IncompleteModel, match="lacks 'model-00001-of-00003") as caught:
        examine(connect(), REPO)
    assert caught.value.missing == ["model-00001-of-00003.safetensors"]
    with pytest.raises(IncompleteModel):
        examine(connect(), REPO, include=["*.json", "*00002*"])


def test_shards_that_the_user_leaves_out_are_not_missing(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.add_repo("org/name", CONFIG | INDEX | SHARDS)
    offer = examine(connect(), REPO, exclude=["*-of-*"])
    assert paths(offer.selection.chosen) == {*CONFIG, *INDEX}


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"weight_map": 1}',
        b'{"weight_map": {"a": 1, "b": "x"}}',
        b'{"weight_map": {"a": 1}}',
        b"[" * 10_000,
    ],
)
def test_an_index_that_is_none_is_refused(fake_hub: FakeHub, connect: Connect, content: bytes) -> None:
    fake_hub.add_repo("org/name", CONFIG | SHARDS | {"model.safetensors.index.json": content})
    with pytest.raises(InvalidAnswer, match=r"model\.safetensors\.index\.json"):
        examine(connect(), REPO)


def test_an_index_that_names_a_file_outside_the_folder_is_refused(
    fake_hub: FakeHub, connect: Connect
) -> None:
    index = json.dumps({"weight_map": {"a": "../../.bashrc"}})
    fake_hub.add_repo("org/name", CONFIG | SHARDS | {"model.safetensors.index.json": index})
    with pytest.raises(UnsafeName):
        examine(connect(), REPO)


def test_a_damaged_index_is_asked_for_again_once(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.add_repo("org/name", CONFIG | INDEX | SHARDS)
    fake_hub.mode("corrupt", path="*.index.json", times=1, at=5)
    examine(connect(), REPO)
    fake_hub.mode("corrupt", path="*.index.json", at=5)
    with pytest.raises(IntegrityError, match=r"index\.json"):
        examine(connect(), REPO)


def test_a_second_host_that_tells_the_same_is_named(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.add_repo("org/name", CONFIG | INDEX | SHARDS)
    witness = connect(fake_hub.other_url)
    assert examine(connect(), REPO, witness=witness).witness == witness.endpoint.host
    asked = [request.path for request in fake_hub.log if request.origin == "other"]
    assert len(asked) == 2 and all(path.startswith("/api/") for path in asked)


def other_tree(fake_hub: FakeHub, change: Callable[[list[dict[str, object]]], object]) -> None:
    """Let the hub list a tree with a change, and the other host the true one."""
    repo = fake_hub.repos["org/name"]
    sha = repo.branches["main"]
    entries = repo.tree(sha)
    change(entries)
    body = json.dumps(entries).encode()
    fake_hub.mode(
        "answer",
        path=f"/api/models/org/name/tree/{sha}",
        times=1,
        body=body,
        headers={"Content-Type": "application/json"},
    )


DIFFERENCES: dict[str, Callable[[list[dict[str, object]]], object]] = {
    "a hash": lambda entries: entries[0].update(oid="1" * 40),
    "a size": lambda entries: entries[0].update(size=9),
    "one file less": lambda entries: entries.pop(0),
    "one file more": lambda entries: entries.append({**entries[0], "path": "more.json"}),
    "a file that is not wanted": lambda entries: entries.append({**entries[0], "path": "x.gguf"}),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_any_difference_between_two_hosts_names_the_file_and_both(
    fake_hub: FakeHub, connect: Connect, difference: str
) -> None:
    fake_hub.add_repo("org/name", CONFIG | {"model.safetensors": b"weights"})
    other_tree(fake_hub, DIFFERENCES[difference])
    hub, witness = connect(), connect(fake_hub.other_url)
    with pytest.raises(HostsDisagree) as caught:
        examine(hub, REPO, witness=witness)
    assert set(caught.value.told) == {hub.endpoint.host, witness.endpoint.host}
    assert any(name in caught.value.message for name in ("config.json", "more.json", "x.gguf"))


def test_a_branch_that_is_elsewhere_on_the_second_host_is_a_difference(
    fake_hub: FakeHub, connect: Connect
) -> None:
    old = fake_hub.add_repo("org/name", CONFIG | {"model.safetensors": b"old"})
    info = json.dumps({"id": "org/name", "sha": old}).encode()
    new = fake_hub.add_commit("org/name", CONFIG | {"model.safetensors": b"new"})
    stale = {"body": info, "headers": {"Content-Type": "application/json"}, "times": 1}
    fake_hub.mode("answer", path="/api/models/org/name/revision/main", **stale)
    with pytest.raises(HostsDisagree, match=f"{old}.*{new}"):
        examine(connect(), REPO, witness=connect(fake_hub.other_url))
    examine(connect(), REPO, old, witness=connect(fake_hub.other_url))


def test_a_hash_that_one_host_does_not_tell_is_taken_from_the_other(
    fake_hub: FakeHub, connect: Connect
) -> None:
    sha = fake_hub.add_repo("org/name", CONFIG | {"model.safetensors": b"weights"})
    fake_hub.mode("notree", times=1)
    weights = fake_hub.repos["org/name"].commits[sha]["model.safetensors"]
    offer = examine(connect(), REPO, witness=connect(fake_hub.other_url))
    assert RemoteFile("model.safetensors", 7, weights.sha256) in offer.selection.chosen


def test_a_revision_that_is_not_there_is_said(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.add_repo("org/name", CONFIG)
    with pytest.raises(RevisionNotFound):
        examine(connect(), REPO, "v9")
