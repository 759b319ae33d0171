"""A download ends with the published bytes, or with the old ones and an error that says why."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from influence.errors import DownloadFailed, IntegrityError, LineBroken, UnsafeName, WriteFailed
from influence.hub import events
from influence.hub.manifest import Manifest, read_manifest
from influence.hub.records import RemoteFile
from influence.hub.safe_folder import SafeFolder
from influence.hub.transfer import download
from support.downloads import (
    BLOCK,
    CONTENT,
    NEW,
    NEWER,
    OLD,
    ORIGIN,
    content_of,
    fetch,
    listing,
    one_file,
    options,
    own_files,
)
from support.memory_source import (
    Fault,
    FreeClock,
    MemorySource,
    MemoryStream,
    clean_but_short,
    cut_after,
    expired,
    flipped,
    other_range,
    remote,
    some_bytes,
    too_much,
)


def test_a_model_of_many_files_arrives_whole_with_its_manifest_last(tmp_path: Path) -> None:
    source = MemorySource(NEW)
    manifest = fetch(source, tmp_path)
    assert content_of(tmp_path) == NEW
    assert own_files(tmp_path) == {"manifest.json", "lock"}
    with SafeFolder(tmp_path) as folder:
        assert read_manifest(folder) == manifest
    assert (manifest.sha, [file.path for file in manifest.files]) == (ORIGIN.sha, list(NEW))
    assert source.bytes_served == sum(map(len, NEW.values()))


@pytest.mark.parametrize(
    "cut_at", [0, 1, len(CONTENT) - 1, *random.Random(1).sample(range(2, len(CONTENT) - 2), 20)]
)
def test_a_cut_connection_goes_on_from_its_byte_d1(tmp_path: Path, cut_at: int) -> None:
    source = one_file(cut_after(cut_at))
    fetch(source, tmp_path, connections=1, span_bytes=1 << 20)
    assert content_of(tmp_path) == source.contents
    assert source.requests[1][1] == cut_at
    assert source.bytes_served == len(CONTENT)


@pytest.mark.parametrize(
    "fault", [expired, other_range, too_much, clean_but_short], ids=lambda fault: fault.__name__
)
def test_an_answer_that_is_wrong_is_asked_for_again_d9_d13_d24(tmp_path: Path, fault: Fault) -> None:
    source = one_file(fault, fault)
    fetch(source, tmp_path)
    assert content_of(tmp_path) == source.contents


def test_a_host_that_ignores_ranges_gives_the_file_in_one_stream_d8(tmp_path: Path) -> None:
    source = one_file(cut_after(20_000))
    source.ignores_ranges = True
    fetch(source, tmp_path)
    assert content_of(tmp_path) == source.contents
    assert source.bytes_served <= len(CONTENT) + 20_000


def test_a_flipped_bit_is_noticed_and_the_file_comes_anew_d5(tmp_path: Path) -> None:
    told: list[events.Event] = []
    source = one_file(flipped)
    download(source, ORIGIN, listing(source.contents), tmp_path, on_event=told.append, options=options())
    assert content_of(tmp_path) == source.contents
    assert events.Restarted("model.safetensors") in told


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_a_file_that_stays_wrong_never_gets_its_name_d5_d6(tmp_path: Path, path: str) -> None:
    right = {path: CONTENT, "other.txt": b"fine"}
    source = MemorySource({path: CONTENT[:-1] + b"x", "other.txt": b"fine"})
    with pytest.raises(IntegrityError, match=path):
        download(source, ORIGIN, listing(right), tmp_path, options=options())
    assert content_of(tmp_path) == {}
    assert "manifest.json" not in own_files(tmp_path)


def broken_run(folder: Path) -> None:
    """A run that ends with some blocks on the disk."""
    source = one_file(cut_after(30_000), *[cut_after(0)] * 5)
    with pytest.raises(DownloadFailed, match="tries"):
        fetch(source, folder, connections=1, span_bytes=1 << 20)


def test_what_an_earlier_run_brought_is_not_asked_for_again_d2(tmp_path: Path) -> None:
    broken_run(tmp_path)
    assert content_of(tmp_path) == {}
    source = one_file()
    fetch(source, tmp_path)
    assert source.bytes_served == len(CONTENT) - 30_000 // BLOCK * BLOCK
    assert content_of(tmp_path) == source.contents


@pytest.mark.parametrize("target", ["*.part", "*.journal"])
def test_a_changed_part_costs_its_block_and_nothing_else_d7(tmp_path: Path, target: str) -> None:
    broken_run(tmp_path)
    path = next((tmp_path / ".influence" / "parts").glob(target))
    changed = bytearray(path.read_bytes())
    at = BLOCK + 5 if target == "*.part" else changed.index(b"\n1 ") + 4
    changed[at] = changed[at] ^ 1
    path.write_bytes(changed)
    source = one_file()
    fetch(source, tmp_path)
    assert source.bytes_served == len(CONTENT) - (30_000 // BLOCK - 1) * BLOCK
    assert content_of(tmp_path) == source.contents


def test_parts_of_another_content_are_not_used_and_removed_d11(tmp_path: Path) -> None:
    broken_run(tmp_path)
    other = MemorySource({"model.safetensors": some_bytes(50_001, seed=9)})
    fetch(other, tmp_path, NEWER)
    assert other.bytes_served == 50_001
    assert own_files(tmp_path) == {"manifest.json", "lock"}


def test_retries_are_counted_per_file_and_only_without_progress_d23(tmp_path: Path) -> None:
    contents = {f"{n}.safetensors": some_bytes(BLOCK * 6, seed=n) for n in range(3)}
    source = MemorySource(contents, *[cut_after(BLOCK)] * 15)
    fetch(source, tmp_path, tries=2, connections=1)
    assert content_of(tmp_path) == contents


def test_a_host_that_asks_to_wait_is_waited_for_visibly_d21(tmp_path: Path) -> None:
    def busy(stream: MemoryStream) -> Iterator[bytes]:
        raise LineBroken(stream.path, "answered 429", wait_s=55.0)
        yield b""

    clock, told = FreeClock(), list[events.Event]()
    source = one_file(busy)
    download(
        source, ORIGIN, listing(source.contents), tmp_path, on_event=told.append, options=options(clock=clock)
    )
    waits = [event.seconds for event in told if isinstance(event, events.Waiting)]
    assert (waits[0], waits[-1], clock.now) == (55.0, 1.0, 55.0)


def test_progress_never_goes_back_and_ends_at_the_total_d5(tmp_path: Path) -> None:
    told: list[events.Event] = []
    source = one_file(flipped, cut_after(10))
    download(source, ORIGIN, listing(source.contents), tmp_path, on_event=told.append, options=options())
    done = [event.done_bytes for event in told if isinstance(event, events.Progress)]
    assert done == sorted(done)
    assert done[-1] == len(CONTENT)
    assert isinstance(told[0], events.Planned)
    assert isinstance(told[-1], events.Installed)


def test_a_second_run_asks_for_nothing_d45(tmp_path: Path) -> None:
    fetch(MemorySource(NEW), tmp_path)
    again = MemorySource(NEW)
    fetch(again, tmp_path)
    assert again.requests == []


def test_files_of_the_user_are_kept_if_right_and_replaced_if_wrong_d45(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(NEW["config.json"])
    (tmp_path / "model.safetensors").write_bytes(OLD["model.safetensors"])
    source = MemorySource(NEW)
    fetch(source, tmp_path)
    assert {path for path, _, _ in source.requests} == {"model.safetensors"}
    assert content_of(tmp_path) == NEW


def test_an_update_replaces_all_and_removes_what_the_new_version_lacks(tmp_path: Path) -> None:
    fetch(MemorySource(OLD), tmp_path)
    (tmp_path / "notes.txt").write_text("the user's own")
    fetch(MemorySource(NEW), tmp_path, NEWER)
    assert content_of(tmp_path) == {**NEW, "notes.txt": b"the user's own"}


def test_an_update_that_fails_leaves_the_old_version_whole_d44(tmp_path: Path) -> None:
    fetch(MemorySource(OLD), tmp_path)
    with pytest.raises(DownloadFailed):
        fetch(MemorySource(NEW, *[cut_after(0)] * 100), tmp_path, NEWER)
    assert content_of(tmp_path) == OLD
    with SafeFolder(tmp_path) as folder:
        manifest = read_manifest(folder)
    assert manifest is not None and manifest.sha == ORIGIN.sha


def test_a_file_of_which_nobody_tells_a_hash_is_said_to_be_unverified(tmp_path: Path) -> None:
    for _ in range(2):  # also where it is here already
        told: list[events.Event] = []
        source = MemorySource({"config.json": b"{}", "model.safetensors": CONTENT})
        files = [RemoteFile("config.json", 2), remote("model.safetensors", CONTENT)]
        download(source, ORIGIN, files, tmp_path, on_event=told.append, options=options())
        assert isinstance(told[0], events.Planned)
        assert [event for event in told if isinstance(event, events.Unverified)] == [
            events.Unverified("config.json")
        ]


def test_sizes_that_nobody_lists_are_found_out_d14(tmp_path: Path) -> None:
    source = one_file()
    source.tells_sizes = False
    unsized = RemoteFile("model.safetensors", None, None, None)
    manifest = download(source, ORIGIN, [unsized], tmp_path, options=options())
    assert manifest.files[0].size_bytes == len(CONTENT)
    assert content_of(tmp_path) == source.contents


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", ".git/config", ".influence/lock", "a\nb", "CON"])
def test_an_unsafe_name_stops_all_before_anything_is_written_d36(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    with pytest.raises(UnsafeName):
        fetch(MemorySource({"config.json": b"{}", name: b"evil"}), folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("planted", [".influence", ".influence/parts", "sub"])
def test_a_planted_link_stops_the_download_and_nothing_leaves_the_folder_d37(
    tmp_path: Path, planted: str
) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "model"
    outside.mkdir()
    (folder / planted).parent.mkdir(parents=True)
    (folder / planted).symlink_to(outside)
    with pytest.raises(WriteFailed, match="link"):
        fetch(MemorySource(NEW), folder)
    assert list(outside.iterdir()) == []


class FullDisk(SafeFolder):
    def free_bytes(self) -> int:
        return 1000


def test_a_disk_that_is_too_small_is_said_before_a_byte_moves_d42(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("influence.hub.transfer.SafeFolder", FullDisk)
    source = one_file()
    with pytest.raises(WriteFailed, match="50001 bytes are to come, but the disk has only 1000 free"):
        fetch(source, tmp_path)
    assert source.requests == []


def test_of_two_downloads_into_one_folder_one_waits_and_fetches_nothing_d39(tmp_path: Path) -> None:
    waiting, told = threading.Event(), list[events.Event]()

    def slow(stream: MemoryStream) -> Iterator[bytes]:
        assert waiting.wait(10)
        yield from stream.pieces()

    def note(event: events.Event) -> None:
        told.append(event)
        if isinstance(event, events.Waiting):
            waiting.set()

    first, second = one_file(slow), one_file()
    thread = threading.Thread(target=fetch, args=(first, tmp_path))
    thread.start()
    while not first.requests:
        pass
    download(second, ORIGIN, listing(second.contents), tmp_path, on_event=note, options=options())
    thread.join()
    assert second.requests == []
    assert any(isinstance(event, events.Waiting) and event.seconds is None for event in told)


@pytest.mark.parametrize("turn", range(5))
def test_two_downloads_at_once_are_right_where_locks_do_nothing_d41(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    monkeypatch.setattr("influence.hub.transfer._try_lock", lambda _: True)
    both_began, ended = threading.Barrier(2), list[Manifest]()

    def together(stream: MemoryStream) -> Iterator[bytes]:
        both_began.wait(10)
        yield from stream.pieces()

    threads = [
        threading.Thread(target=lambda: ended.append(fetch(one_file(together), tmp_path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 2
    assert content_of(tmp_path) == {"model.safetensors": CONTENT}


def test_an_interrupted_download_keeps_its_blocks_and_leaves_at_once_d46(tmp_path: Path) -> None:
    def interrupt(event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.done_bytes:
            raise KeyboardInterrupt

    def endless(stream: MemoryStream) -> Iterator[bytes]:
        yield stream.data[: 2 * BLOCK]
        while True:
            yield b""

    source = one_file(endless, endless)
    with pytest.raises(KeyboardInterrupt):
        download(source, ORIGIN, listing(source.contents), tmp_path, on_event=interrupt, options=options())
    again = one_file()
    fetch(again, tmp_path)
    assert again.bytes_served <= len(CONTENT) - 2 * BLOCK
    assert content_of(tmp_path) == again.contents
