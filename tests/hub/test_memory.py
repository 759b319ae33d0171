"""Buffers for blocks are bounded, and used again."""

from __future__ import annotations

from influence.hub.memory import BlockMemory


def test_no_more_is_given_than_there_may_be() -> None:
    memory = BlockMemory(30)
    taken = [memory.take(10) for _ in range(4)]
    assert [buffer is None for buffer in taken] == [False, False, False, True]


def test_a_buffer_that_came_back_is_given_again() -> None:
    memory = BlockMemory(10)
    first = memory.take(10)
    assert first is not None
    assert memory.take(10) is None
    memory.give_back(first)
    assert memory.take(10) is first


def test_buffers_of_another_length_make_room() -> None:
    memory = BlockMemory(30)
    small = [memory.take(10) for _ in range(3)]
    for buffer in small[:2]:
        assert buffer is not None
        memory.give_back(buffer)
    large = memory.take(20)
    assert large is not None
    assert len(large) == 20
    assert memory.take(10) is None


def test_a_block_that_is_too_large_for_all_of_it_gets_none() -> None:
    assert BlockMemory(30).take(31) is None
