"""The hash that follows behind the writing is the hash of the file, whatever the order of its blocks."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from influence.hub.cursor import Cursor
from influence.hub.hashing import RunningHash
from influence.hub.journal import Part, measure
from influence.hub.memory import BlockMemory
from influence.hub.records import RemoteFile
from influence.hub.safe_folder import SafeFolder
from support.downloads import BLOCK, CONTENT, ORIGIN
from support.memory_source import remote

OpenPart = Callable[..., Part]


@pytest.fixture
def open_part(tmp_path: Path) -> Iterator[OpenPart]:
    """Opens the part of a file in one folder, as a run does; closed with the test."""
    opened: list[Part] = []
    with SafeFolder(tmp_path) as folder:

        def make(file: RemoteFile | None = None) -> Part:
            file = file or remote("model.safetensors", CONTENT)
            opened.append(Part(folder, file, len(CONTENT), ORIGIN.sha, BLOCK))
            return opened[-1]

        yield make
        for part in opened:
            part.close()


def running_hash(part: Part, n_kept: int = 0) -> RunningHash:
    """One that keeps so many blocks in memory."""
    return RunningHash(part, BlockMemory(n_kept * BLOCK))


def write_block(part: Part, block: int, content: bytes = CONTENT) -> None:
    begin, end = part.place(block)
    Cursor(part, begin, running_hash(part)).feed(memoryview(content)[begin:end])


def keep_running() -> None:
    pass


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("large", [True, False], ids=["sha256", "git-sha1"])
def test_blocks_in_any_order_give_the_hash_of_the_file(open_part: OpenPart, seed: int, large: bool) -> None:
    part = open_part(remote("model.safetensors", CONTENT, large=large))
    running, blocks = running_hash(part), list(range(part.n_blocks))
    random.Random(seed).shuffle(blocks)
    for block in blocks:
        assert not running.is_whole
        write_block(part, block)
        assert running.advance(keep_running) is None
    assert running.is_whole
    assert running.measured() == measure(part._data, BLOCK, git=not large)
    assert running.measured().sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_file_without_bytes_is_whole_at_once(tmp_path: Path) -> None:
    with SafeFolder(tmp_path) as folder:
        part = Part(folder, remote("empty", b""), 0, ORIGIN.sha, BLOCK)
        running = running_hash(part)
        assert running.advance(keep_running) is None
        assert running.is_whole
        assert running.measured().sha256 == hashlib.sha256(b"").hexdigest()
        part.close()


def test_a_block_of_an_earlier_run_that_was_changed_stops_the_hash_until_it_came_again(
    open_part: OpenPart, tmp_path: Path
) -> None:
    first = open_part()
    for block in range(first.n_blocks):
        write_block(first, block)
    path = tmp_path / first.part_name
    with path.open("r+b") as file:
        file.seek(3 * BLOCK + 7)
        file.write(bytes([CONTENT[3 * BLOCK + 7] ^ 1]))
    part = open_part()
    running = running_hash(part)
    assert running.advance(keep_running) == 3
    part.drop(3)
    assert running.advance(keep_running) is None
    assert not running.is_whole
    write_block(part, 3)
    assert running.advance(keep_running) is None
    assert running.measured().sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_part_that_is_cut_behind_our_back_is_noticed(open_part: OpenPart, tmp_path: Path) -> None:
    part = open_part()
    for block in range(part.n_blocks):
        write_block(part, block)
    os.truncate(tmp_path / part.part_name, 2 * BLOCK + 5)
    assert running_hash(part).advance(keep_running) == 2


def test_a_hash_that_is_given_up_in_the_middle_loses_nothing(open_part: OpenPart) -> None:
    class GivenUp(Exception):
        pass

    def give_up() -> None:
        raise GivenUp

    part = open_part()
    running = running_hash(part)
    for block in range(part.n_blocks):
        write_block(part, block)
    with pytest.raises(GivenUp):
        running.advance(give_up)
    assert running.advance(keep_running) is None
    assert running.measured().sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_block_that_is_there_is_never_written_again(open_part: OpenPart) -> None:
    """Else bytes that were hashed could change afterwards."""
    part = open_part()
    write_block(part, 2)
    other = bytes(len(CONTENT))
    assert Cursor(part, 0, running_hash(part)).feed(memoryview(other))
    assert part.read_into(buffer := memoryview(bytearray(BLOCK)), 2 * BLOCK) == BLOCK
    assert buffer == CONTENT[2 * BLOCK : 3 * BLOCK]
    assert part.read_into(buffer, 3 * BLOCK) == BLOCK
    assert buffer == bytes(BLOCK)
