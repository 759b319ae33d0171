"""Bytes that come in pieces go to their place, and through memory into the hash where that is near."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from influence.hub.cursor import Cursor
from influence.hub.hashing import RunningHash
from influence.hub.journal import Part
from influence.hub.memory import BlockMemory
from influence.hub.safe_folder import SafeFolder
from support.downloads import BLOCK, CONTENT, ORIGIN
from support.memory_source import remote

N_KEPT = 3


class Scene:
    """A part, its hash, and a memory for a few blocks."""

    def __init__(self, folder: SafeFolder) -> None:
        self.part = Part(folder, remote("model.safetensors", CONTENT), len(CONTENT), ORIGIN.sha, BLOCK)
        self.memory = BlockMemory(N_KEPT * BLOCK)
        self.running = RunningHash(self.part, self.memory)

    def cursor(self, position: int = 0) -> Cursor:
        return Cursor(self.part, position, self.running)

    def receive(self, cursor: Cursor, n_bytes: int, content: bytes = CONTENT) -> None:
        """Bytes come as from a line: into the room that they are given, as far as it reaches."""
        while n_bytes:
            room = cursor.room()
            piece = room[: min(n_bytes, len(room), len(content) - cursor.position)]
            piece[:] = content[cursor.position : cursor.position + len(piece)]
            n_bytes -= len(piece)
            cursor.feed(piece)

    def advance(self) -> None:
        assert self.running.advance(lambda: None) is None

    def n_free(self) -> int:
        """Blocks that there is memory for; takes them."""
        return sum(self.memory.take(BLOCK) is not None for _ in range(N_KEPT + 1))

    def forbid_reading(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(self.part, "read_into", lambda *_: pytest.fail("a block was read back"))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with SafeFolder(tmp_path) as folder:
        scene = Scene(folder)
        yield scene
        scene.part.close()


@pytest.mark.parametrize("step", [100, BLOCK, 3 * BLOCK])
def test_a_file_that_comes_in_order_is_hashed_from_memory(
    scene: Scene, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.forbid_reading(monkeypatch)
    cursor = scene.cursor()
    for begin in range(0, len(CONTENT), step):
        scene.receive(cursor, min(step, len(CONTENT) - begin))
        scene.advance()
    assert scene.running.measured().sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert scene.n_free() == N_KEPT


def test_bytes_that_came_by_another_way_are_hashed_from_memory_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.forbid_reading(monkeypatch)
    cursor = scene.cursor()
    cursor.feed(memoryview(CONTENT)[:1000])  # as with the head of an answer
    scene.receive(cursor, BLOCK)
    cursor.feed(memoryview(CONTENT)[BLOCK + 1000 : 2 * BLOCK + 7])
    scene.advance()
    for begin in range(2 * BLOCK + 7, len(CONTENT), BLOCK):
        cursor.feed(memoryview(CONTENT)[begin : begin + BLOCK])
        scene.advance()
    assert scene.running.measured().sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_what_the_hash_is_too_far_behind_for_is_read_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("influence.hub.hashing._LONGEST_WAIT_S", 0.0)
    scene.receive(scene.cursor(), len(CONTENT))
    scene.advance()
    assert scene.running.measured().sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert scene.n_free() == N_KEPT


def test_a_line_that_outruns_the_hash_waits_for_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.forbid_reading(monkeypatch)
    monkeypatch.setattr("influence.hub.hashing._LONGEST_WAIT_S", 60.0)
    monkeypatch.setattr("influence.hub.hashing._NEAR", N_KEPT - 1)
    cursor = scene.cursor()
    scene.receive(cursor, (N_KEPT - 1) * BLOCK)
    hashing = threading.Timer(0.0, scene.advance)
    hashing.start()
    scene.receive(cursor, BLOCK)
    hashing.join()
    scene.advance()
    assert scene.part.has(N_KEPT - 1)


def test_a_line_does_not_wait_for_a_hash_that_waits_for_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("influence.hub.hashing._LONGEST_WAIT_S", 60.0)
    scene.receive(scene.cursor(10 * BLOCK), 2 * BLOCK)
    assert scene.n_free() == N_KEPT


def test_what_comes_far_ahead_takes_no_memory(scene: Scene) -> None:
    scene.receive(scene.cursor(10 * BLOCK), 2 * BLOCK)
    assert scene.n_free() == N_KEPT


def test_a_block_that_is_given_up_in_the_middle_leaves_its_memory_to_others(scene: Scene) -> None:
    cursor = scene.cursor()
    scene.receive(cursor, BLOCK + 7)
    cursor.close()
    assert scene.n_free() == N_KEPT - 1  # the whole one waits for the hash
    scene.advance()
    assert not scene.part.has(1)


def test_where_two_may_write_the_same_block_the_hash_is_of_what_is_in_the_part(scene: Scene) -> None:
    scene.receive(scene.cursor(), BLOCK)
    scene.running.read_all_back()
    scene.part.write(0, b"other")
    scene.receive(scene.cursor(BLOCK), len(CONTENT) - BLOCK)
    scene.advance()
    assert scene.running.measured().sha256 == hashlib.sha256(b"other" + CONTENT[5:]).hexdigest()
    assert scene.n_free() == N_KEPT


def test_a_file_that_comes_anew_is_hashed_from_its_new_bytes(scene: Scene) -> None:
    scene.receive(scene.cursor(), 2 * BLOCK, bytes(len(CONTENT)))
    scene.part.restart()
    scene.running.restart()
    scene.receive(scene.cursor(), len(CONTENT))
    scene.advance()
    assert scene.running.measured().sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert scene.n_free() == N_KEPT
