"""Whole downloads from a hub that misbehaves: the right bytes arrive, through every layer of the real client."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from influence.errors import DownloadFailed, IntegrityError
from influence.hub import events
from influence.hub.client import Hub
from influence.hub.manifest import Manifest
from influence.hub.names import RepoId
from influence.hub.source import HubSource
from influence.hub.transfer import Origin, download
from support.downloads import BLOCK, CONTENT, content_of, options, own_files
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub
from support.hub_clients import Connect
from support.memory_source import FreeClock, some_bytes

REPO = RepoId("org", "name")
WEIGHTS = "model.safetensors"
FILES = {"config.json": b'{"model_type": "llama"}', WEIGHTS: CONTENT}

Get = Callable[..., Manifest]


@pytest.fixture
def get(fake_hub: FakeHub, connect: Connect, tmp_path: Path) -> Get:
    """Resolves main and downloads all its files into tmp_path/model."""
    fake_hub.add_repo("org/name", FILES)

    def run(hub: Hub | None = None, on_event: events.OnEvent = events.ignore, **changes: Any) -> Manifest:
        hub = hub or connect()
        revision = hub.resolve(REPO)
        origin = Origin(str(REPO), "main", revision.sha, fake_hub.url)
        files = hub.tree(REPO, revision.sha)
        source = HubSource(hub, REPO, revision.sha)
        folder = tmp_path / "model"
        return download(
            source, origin, files, folder, on_event=on_event, options=options(clock=FreeClock(), **changes)
        )

    return run


@pytest.mark.parametrize(
    ("mode", "facts"),
    [
        ("cut", {"at": 5000}),
        ("eof", {"at": 5000}),
        ("rst", {"at": 5000}),
        ("corrupt", {"at": 7}),
        ("shortlength", {"by": 9}),
        ("longlength", {"by": 9}),
        ("wrongrange", {"by": 1}),
        ("norange", {}),
        ("range200", {}),
        ("etagflip", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_two_answers_that_are_wrong_do_not_matter_d1_d5_d8_d9_d11_d13_d19(
    get: Get, fake_hub: FakeHub, tmp_path: Path, mode: str, facts: dict[str, int]
) -> None:
    fake_hub.mode(mode, path=WEIGHTS, times=2, **facts)
    get()
    assert content_of(tmp_path / "model") == FILES
    assert own_files(tmp_path / "model") == {"manifest.json", "lock"}


@pytest.mark.parametrize("mode", ["nolength", "gzip", "range200", "etagflip"])
def test_a_host_that_is_always_like_that_is_coped_with_d8_d11_d14_d15(
    get: Get, fake_hub: FakeHub, tmp_path: Path, mode: str
) -> None:
    fake_hub.mode(mode)
    get()
    assert content_of(tmp_path / "model") == FILES


def test_a_stalled_part_is_restarted_while_the_others_go_on_d17(
    get: Get, fake_hub: FakeHub, connect: Connect, tmp_path: Path
) -> None:
    fake_hub.mode("stall", path=WEIGHTS, at=100, times=1)
    told: list[events.Event] = []
    get(connect(silence_s=0.3), told.append)
    assert content_of(tmp_path / "model") == FILES
    assert [event.path for event in told if isinstance(event, events.Retrying)] == [WEIGHTS]


class ImpatientClock(FakeClock):
    """A second passes each time that it is looked at."""

    def monotonic(self) -> float:
        self.advance(1.0)
        return self.now


def test_a_dribbling_line_is_left_for_another_d18(
    get: Get, fake_hub: FakeHub, connect: Connect, tmp_path: Path
) -> None:
    fake_hub.mode("dribble", path=WEIGHTS, delay_s=0.001, times=1)
    told: list[events.Event] = []
    get(connect(clock=ImpatientClock()), told.append, connections=1)
    assert content_of(tmp_path / "model") == FILES
    retried = [event for event in told if isinstance(event, events.Retrying)]
    assert [event.path for event in retried] == [WEIGHTS]
    assert "bytes came in 60 s" in retried[0].reason


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ({"status": 503}, 0.5),
        ({"status": 500}, 0.5),
        ({"status": 429}, 0.5),
        ({"status": 429, "headers": {"Retry-After": "55"}}, 55.0),
        ({"status": 429, "headers": {"RateLimit": '"api";r=0;t=40'}}, 40.0),
    ],
)
def test_a_busy_host_is_waited_for_and_then_goes_on_d21_d22_d23(
    get: Get, fake_hub: FakeHub, tmp_path: Path, answer: dict[str, Any], seconds: float
) -> None:
    fake_hub.mode("answer", path="/org/name/resolve/*", times=1, **answer)
    told: list[events.Event] = []
    get(on_event=told.append, connections=1)
    assert content_of(tmp_path / "model") == FILES
    waits = [event.seconds for event in told if isinstance(event, events.Waiting) and event.seconds]
    assert max(waits) == seconds


def test_a_host_that_stays_broken_leaves_what_came_for_the_next_run_d23(
    get: Get, fake_hub: FakeHub, tmp_path: Path
) -> None:
    fake_hub.mode("cut", path=WEIGHTS, at=2 * BLOCK, times=1)
    fake_hub.mode("answer", path="/xet-bridge/*", status=503)
    with pytest.raises(DownloadFailed, match="503"):
        get(connections=1)
    assert content_of(tmp_path / "model") == {}
    fake_hub.clear_modes()
    get()
    assert content_of(tmp_path / "model") == FILES


def test_signed_addresses_that_expire_are_renewed_at_the_byte_d24(
    get: Get, fake_hub: FakeHub, tmp_path: Path
) -> None:
    fake_hub.mode("expire", path=WEIGHTS, after=2 * BLOCK)
    get(connections=1, span_bytes=BLOCK)
    assert content_of(tmp_path / "model") == FILES
    assert fake_hub.bytes_served == sum(map(len, FILES.values()))


def test_all_files_are_of_one_commit_though_the_branch_moves_d12(
    get: Get, fake_hub: FakeHub, tmp_path: Path
) -> None:
    old = fake_hub.repos["org/name"].branches["main"]
    newer = {"config.json": b'{"model_type": "gpt2"}', WEIGHTS: some_bytes(50_001, seed=5)}
    fake_hub.mode("movehead", times=1, files=newer)
    manifest = get(connections=1)
    assert fake_hub.repos["org/name"].branches["main"] != old
    assert manifest.sha == old
    assert content_of(tmp_path / "model") == FILES
    assert get().sha != old
    assert content_of(tmp_path / "model") == newer


def test_a_part_that_is_complete_is_only_checked_d10(get: Get, fake_hub: FakeHub, tmp_path: Path) -> None:
    """A run that ended after the last byte, before the name; no range of it could be had any more."""

    class Killed(Exception):
        pass

    def kill(event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.done_bytes == event.total_bytes:
            raise Killed

    with pytest.raises(Killed):
        get(on_event=kill)
    assert content_of(tmp_path / "model") == {}
    fake_hub.mode("416", path=WEIGHTS)
    fake_hub.log.clear()
    get()
    assert content_of(tmp_path / "model") == FILES
    assert fake_hub.bytes_served == 0


def test_a_file_that_ends_before_its_listed_size_fails_and_says_so_d10(get: Get, fake_hub: FakeHub) -> None:
    fake_hub.mode("416", path=WEIGHTS)
    with pytest.raises(DownloadFailed, match="gave up after 5 tries"):
        get()


def test_what_stays_corrupt_gets_no_name_d5(get: Get, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.mode("corrupt", path=WEIGHTS, at=20_000)
    with pytest.raises(IntegrityError, match=WEIGHTS):
        get()
    assert content_of(tmp_path / "model") == {}


def test_of_two_runs_at_once_one_asks_for_the_bytes_d39(
    get: Get, fake_hub: FakeHub, connect: Connect, tmp_path: Path
) -> None:
    threads = [threading.Thread(target=get, args=(connect(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content_of(tmp_path / "model") == FILES
    assert fake_hub.bytes_served == sum(map(len, FILES.values()))
