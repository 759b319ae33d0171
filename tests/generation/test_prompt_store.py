"""Prompts on disk: found by a later process, never trusted unread, bounded, and to the bit what computing gives."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from influence.errors import EngineError
from influence.generation import prompt_store
from influence.generation.generator import Generator
from influence.generation.prompt_store import PromptStore
from influence.models.spec import RopeScaling
from support.fake_engine import FakeEngine, fake_spec
from support.generation_oracle import expected_of
from support.generators import facts, params, running

# 100 tokens are 25 blocks of the fake engine's 4 positions; a prompt leaves its last token to run.
LONG = [i * 7 % 30 for i in range(101)]


@contextmanager
def stored(
    folder: Path, engine: FakeEngine | None = None, digest: str = "weights", max_bytes: int = 1 << 30
) -> Iterator[tuple[FakeEngine, Generator]]:
    """A generator of a new process, as it were, over the folder; all is written at the end."""
    engine = engine or FakeEngine(n_blocks=200)
    with (
        PromptStore(folder, engine, digest, max_bytes=max_bytes) as store,
        running(engine, prompt_store=store) as generator,
    ):
        yield engine, generator


def run(generator: Generator, prompt: list[int] = LONG, **values: str) -> int:
    """Tokens of the prompt that were not computed; the text is as it must be."""
    completion = generator.submit(prompt, params(5), **values).collect()  # type: ignore[arg-type]
    engine = generator._engine
    assert isinstance(engine, FakeEngine)
    context = 64 if engine.spec.rope_depends_on_context and len(prompt) < 60 else 256
    assert facts(completion) == expected_of(engine, prompt, params(5), frozenset(), 256, context)
    return completion.statistics.cached_tokens


def test_a_later_process_goes_on_from_what_an_earlier_one_computed(tmp_path: Path) -> None:
    with stored(tmp_path) as (_, generator):
        assert run(generator) == 0
    with stored(tmp_path) as (engine, generator):
        assert run(generator) == 100
        assert engine.n_tokens == 1 + 4
        assert run(generator, [*LONG[:80], 1, 2, 3]) == 80
    with stored(tmp_path) as (_, generator):
        assert run(generator, [*LONG, 9, 9, 9, 9]) == 100


def test_prompts_that_begin_alike_share_their_files(tmp_path: Path) -> None:
    with stored(tmp_path) as (_, generator):
        run(generator)
        run(generator, [*LONG[:80], *range(21)])
    assert len(list(tmp_path.glob("*.kv"))) == 25 + 5


def test_little_is_not_worth_the_disk(tmp_path: Path) -> None:
    with stored(tmp_path) as (_, generator):
        run(generator)
    with stored(tmp_path) as (_, generator):
        assert run(generator, LONG[:64]) == 0  # 60 tokens: not enough
        assert run(generator, LONG[:70]) == 64  # from memory


def test_memory_and_disk_together_serve_one_prompt(tmp_path: Path) -> None:
    with stored(tmp_path) as (_, generator):
        run(generator)
    with stored(tmp_path) as (engine, generator):
        run(generator, LONG[:31])
        n_before = engine.n_tokens
        assert run(generator) == 100
        assert engine.n_tokens - n_before == 1 + 4


@pytest.mark.parametrize(
    "other",
    [
        lambda folder: stored(folder, digest="other weights"),
        lambda folder: stored(folder, FakeEngine(200, spec=fake_spec(max_context=255))),
        lambda folder: stored(folder, identified("another kernel table")),
    ],
    ids=["weights", "spec", "engine"],
)
def test_what_another_model_or_engine_computed_is_not_taken(
    tmp_path: Path,
    other: Callable[[Path], contextmanager],  # type: ignore[valid-type]
) -> None:
    with stored(tmp_path) as (_, generator):
        run(generator)
    with other(tmp_path) as (_, generator):  # type: ignore[attr-defined]
        assert generator.submit(LONG, params(1)).collect().statistics.cached_tokens == 0
    with stored(tmp_path) as (_, generator):  # and both keep theirs in one folder
        assert run(generator) == 100


def identified(kv_identity: str) -> FakeEngine:
    engine = FakeEngine(200)
    engine.kv_identity = kv_identity
    return engine


def test_salts_are_kept_apart_on_disk_too(tmp_path: Path) -> None:
    with stored(tmp_path) as (_, generator):
        run(generator, salt="anna")
    with stored(tmp_path) as (_, generator):
        assert run(generator, salt="ben") == 0
        assert run(generator, salt="anna") == 100


def test_where_rope_depends_on_the_context_only_the_same_one_serves(tmp_path: Path) -> None:
    def spec() -> FakeEngine:
        scaling = RopeScaling("dynamic", 2.0, original_max_context=64)
        return FakeEngine(200, spec=fake_spec(scaling=scaling))

    long_enough = [*LONG[:90], 5]
    with stored(tmp_path, spec()) as (_, generator):
        run(generator, long_enough)
    with stored(tmp_path, spec()) as (_, generator):
        assert run(generator, LONG[:20]) == 0
        assert run(generator, [*long_enough, 6]) == 88


# Damage.


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def replace_by_another_block(path: Path) -> None:
    other = next(other for other in path.parent.glob("*.kv") if other != path)
    shutil.copyfile(other, path)


@pytest.mark.parametrize(
    "damage",
    [
        flip_last_byte,
        cut_short,
        replace_by_another_block,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.write_bytes(b"y" + path.read_bytes()[1:]),
    ],
    ids=["bit", "cut", "renamed", "empty", "longer", "magic"],
)
def test_a_damaged_block_is_removed_and_computed_again(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    with stored(tmp_path) as (engine, generator):
        run(generator)
        names = PromptStore(tmp_path, engine, "weights", max_bytes=1).names(np.array(LONG), "", 256)
    damaged = tmp_path / f"{names[20]}.kv"
    damage(damaged)
    with caplog.at_level(logging.WARNING), stored(tmp_path) as (_, generator):
        assert run(generator) == 80
    assert [record.getMessage() for record in caplog.records if names[20] in record.getMessage()]
    with stored(tmp_path) as (_, generator):  # written anew
        assert run(generator) == 100


def test_a_block_that_another_process_removed_is_computed_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stored(tmp_path) as (_, generator):
        run(generator)
    with stored(tmp_path) as (_, generator):
        for path in tmp_path.glob("*.kv"):
            path.unlink()
        assert run(generator) == 0
    assert caplog.records == []
    assert len(list(tmp_path.glob("*.kv"))) == 25


def test_a_block_that_can_not_be_read_is_computed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with stored(tmp_path) as (_, generator):
        run(generator)
    for path in list(tmp_path.glob("*.kv")):
        path.unlink()
        path.mkdir()
    with stored(tmp_path) as (_, generator):
        assert run(generator) == 0
    assert "can't be read" in caplog.text


def test_a_disk_that_can_not_be_written_costs_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with stored(tmp_path) as (_, generator):
        monkeypatch.setattr(prompt_store, "_private", full)
        assert run(generator) == 0
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_ours_stay_and_abandoned_ones_go(tmp_path: Path) -> None:
    abandoned, recent = tmp_path / f".{'a' * 64}.1.tmp", tmp_path / f".{'b' * 64}.2.tmp"
    notes = tmp_path / "notes.kv"
    for path in (abandoned, recent, notes):
        path.write_text("x")
    os.utime(abandoned, (0, 0))
    os.utime(notes, (0, 0))
    with stored(tmp_path, max_bytes=0) as (_, generator):
        run(generator)
    assert sorted(tmp_path.iterdir()) == sorted([recent, notes])


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "prompts"
    with stored(folder) as (_, generator):
        run(generator)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_file_in_the_folder_s_place_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        PromptStore(tmp_path / "file", FakeEngine(), "weights", max_bytes=1)


def test_a_folder_in_which_another_process_writes_can_be_opened(tmp_path: Path) -> None:
    engine, ended = FakeEngine(200), threading.Event()

    def open_again_and_again() -> None:
        while not ended.is_set():
            PromptStore(tmp_path, engine, "weights", max_bytes=1).close()

    opener = threading.Thread(target=open_again_and_again)
    opener.start()
    with stored(tmp_path) as (_, generator):
        for i in range(10):
            run(generator, [i, *LONG[1:]])
    ended.set()
    opener.join()
    with stored(tmp_path) as (_, generator):
        assert run(generator, [9, *LONG[1:]]) == 100


# Size.


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.kv"))


def test_the_least_recently_used_prompt_goes_first_and_its_end_before_its_beginning(tmp_path: Path) -> None:
    one_prompt = 25 * (48 + 32)  # header and 4 ids of 8 bytes
    others = [[i, *LONG[1:]] for i in range(3)]
    with stored(tmp_path, max_bytes=2 * one_prompt) as (_, generator):
        run(generator, others[0])
        run(generator, others[1])
    with stored(tmp_path, max_bytes=2 * one_prompt) as (_, generator):
        assert run(generator, others[0]) == 100  # used: now the other one is older
        run(generator, [*others[2][:41], 7])  # 10 blocks
    assert size_of(tmp_path) == 2 * one_prompt
    with stored(tmp_path, max_bytes=2 * one_prompt) as (engine, generator):
        assert run(generator, others[0]) == 100
        assert run(generator, others[1]) == 0  # 60 tokens of it are there: too few to be read
        names = PromptStore(tmp_path, engine, "weights", max_bytes=1 << 30).names(
            np.array(others[1]), "", 256
        )
    store = PromptStore(tmp_path, FakeEngine(200), "weights", max_bytes=1 << 30)
    assert store.n_stored(names) >= 15


def test_what_the_disk_can_not_keep_up_with_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_store, "_MAX_PENDING_BYTES", 30 * 32)
    engine = FakeEngine(200)
    store = PromptStore(tmp_path, engine, "weights", max_bytes=1 << 30)

    held = threading.Event()
    store._writer.submit(held.wait, 20)  # a slow disk
    with running(engine, prompt_store=store) as generator:
        for i in range(3):
            run(generator, [i, *LONG[1:]])
        held.set()
        store.close()
    assert len(list(tmp_path.glob("*.kv"))) == 25


# In company.


def test_others_go_on_while_the_disk_is_read_and_followers_share_what_it_gives(tmp_path: Path) -> None:
    with stored(tmp_path) as (_, generator):
        run(generator)
    with stored(tmp_path) as (engine, generator):
        streams = [generator.submit(prompt, params(5)) for prompt in (LONG, LONG, [3, 4])]
        cached = [stream.collect().statistics.cached_tokens for stream in streams]
    assert cached == [100, 100, 0]
    assert engine.n_tokens == (1 + 4) + (1 + 4) + (2 + 4)


def test_a_request_is_cancelled_while_the_disk_is_read(tmp_path: Path) -> None:

    with stored(tmp_path) as (_, generator):
        run(generator)
    engine = FakeEngine(200)
    with PromptStore(tmp_path, engine, "weights", max_bytes=1 << 30) as store:
        held = threading.Event()
        store._reader.submit(held.wait, 20)
        with running(engine, prompt_store=store) as generator:
            stream = generator.submit(LONG, params(5))
            assert facts(generator.submit([3], params(5)).collect()).finish_reason == "length"
            stream.cancel()
            assert stream.collect().finish_reason == "cancelled"
            held.set()
            assert run(generator) == 100


def test_a_session_that_refuses_the_blocks_fails_that_request_alone(tmp_path: Path) -> None:
    with stored(tmp_path) as (_, generator):
        run(generator)
    with stored(tmp_path) as (engine, generator):
        make_session = engine.new_session

        def refusing(context: int) -> object:
            session = make_session(context)
            session.append_blocks = lambda blocks: 1 / 0  # type: ignore[assignment,method-assign,return-value]
            return session

        engine.new_session = refusing  # type: ignore[assignment,method-assign]
        stream = generator.submit(LONG, params(5))
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            stream.collect()
        engine.new_session = make_session  # type: ignore[method-assign]
        assert run(generator) == 100
