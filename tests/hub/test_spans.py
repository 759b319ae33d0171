"""Spans of a file cover what is missing, exactly once, however they are split on the way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from influence.hub.cursor import Cursor
from influence.hub.journal import Part
from influence.hub.memory import BlockMemory
from influence.hub.safe_folder import SafeFolder
from influence.hub.spans import Job, Span, split_largest
from support.downloads import BLOCK, CONTENT, ORIGIN
from support.memory_source import remote


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    with SafeFolder(tmp_path) as folder:
        part = Part(folder, remote("model.safetensors", CONTENT), len(CONTENT), ORIGIN.sha, BLOCK)
        yield Job(part, BlockMemory())
        part.close()


def test_what_is_missing_is_asked_for_and_nothing_else(job: Job) -> None:
    Cursor(job.part, BLOCK, job.hash).feed(memoryview(CONTENT)[BLOCK : 2 * BLOCK])
    spans = [(span.position, span.end) for span in job.spans(3 * BLOCK)]
    assert spans[:2] == [(0, BLOCK), (2 * BLOCK, 5 * BLOCK)]
    assert spans[-1] == (11 * BLOCK, len(CONTENT))


def test_a_claim_never_passes_the_end(job: Job) -> None:
    span = Span(job, 0, BLOCK)
    assert [span.claim(n) for n in (BLOCK - 1, 10, 10)] == [BLOCK - 1, 1, 0]


@pytest.mark.parametrize("position", [0, 1, BLOCK, 5 * BLOCK + 3])
def test_a_split_falls_between_two_blocks_and_loses_no_byte(job: Job, position: int) -> None:
    span = Span(job, position, 10 * BLOCK)
    rest = span.split()
    assert rest is not None
    assert (span.end, rest.end) == (rest.position, 10 * BLOCK)
    assert rest.position % BLOCK == 0
    assert abs(span.n_left - rest.n_left) <= 2 * BLOCK


def test_a_last_block_is_not_split(job: Job) -> None:
    span = Span(job, 4 * BLOCK, 5 * BLOCK)
    assert span.split() is None
    assert span.end == 5 * BLOCK


def test_the_largest_is_split_if_that_is_worth_it(job: Job) -> None:
    spans = [Span(job, 0, 2 * BLOCK), Span(job, 2 * BLOCK, 8 * BLOCK)]
    assert split_largest(spans, 7 * BLOCK) is None
    rest = split_largest(spans, 6 * BLOCK)
    assert rest is not None
    assert (rest.position, rest.end) == (5 * BLOCK, 8 * BLOCK)
    assert split_largest([], 0) is None


def test_what_is_given_back_begins_with_the_unfinished_block(job: Job) -> None:
    span = Span(job, BLOCK, 5 * BLOCK)
    span.claim(BLOCK + 10)
    rest = span.rest()
    assert (rest.position, rest.end) == (2 * BLOCK, 5 * BLOCK)


@pytest.mark.parametrize("seed", range(20))
def test_connections_that_take_over_from_each_other_bring_each_byte_once(job: Job, seed: int) -> None:
    chance = random.Random(seed)
    under_way = job.spans(len(CONTENT))
    brought = bytearray(len(CONTENT))
    while any(span.n_left for span in under_way):
        span = chance.choice(under_way)
        begin = span.position
        n_bytes = span.claim(chance.randrange(1, BLOCK))
        for position in range(begin, begin + n_bytes):
            brought[position] += 1
        if chance.random() < 0.5 and (rest := split_largest(under_way, 2 * BLOCK)):
            under_way.append(rest)
    assert set(brought) == {1}
