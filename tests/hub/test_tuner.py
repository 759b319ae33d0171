"""The number of connections follows what they bring: lines as formulas, moment by moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from influence.hub.tuner import Moment, Tuner

Line = Callable[[int], float]  # bytes/s by the number of connections


def each_alone(n: int) -> float:
    return 8.0 * n


def shared(n: int) -> float:
    return 100.0


def shared_by_nine(n: int) -> float:
    return min(8.0 * n, 72.0)


def better_alone(n: int) -> float:
    return 100.0 / n


def watch(tuner: Tuner, line: Line, n_moments: int, *, is_busy: bool = False) -> list[int]:
    """The numbers that were tried."""
    tried = []
    for _ in range(n_moments):
        tried.append(tuner.n_connections)
        tuner.observe(Moment(line(tuner.n_connections), tuner.n_connections, is_busy=is_busy))
    return tried


@pytest.mark.parametrize(
    ("line", "most", "expected"),
    [
        (each_alone, 16, [4, 4, 8, 16, 16]),
        (each_alone, 6, [4, 4, 6, 6]),
        (shared, 16, [4, 4, 8, 8, 4, 4]),
        (shared_by_nine, 16, [4, 4, 8, 16, 16, 8, 8]),
        (better_alone, 16, [4, 4, 8, 8, 2, 1, 1, 1]),
        (shared, 1, [1, 1, 1, 1]),
        (shared, 2, [2, 2, 2, 2]),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_connections_double_while_that_helps(line: Line, most: int, expected: list[int]) -> None:
    assert watch(Tuner(most), line, len(expected)) == expected


def test_where_one_connection_is_fastest_it_is_found_within_a_second_and_kept() -> None:
    tuner = Tuner(16)
    time_s = 0.0
    while tuner.n_connections > 1:
        time_s += tuner.moment_s
        watch(tuner, better_alone, 1)
    assert time_s < 1
    tried = watch(tuner, better_alone, 100)
    assert tried.count(1) >= 90


def test_where_the_processors_are_the_limit_one_connection_is_tried_at_once() -> None:
    assert watch(Tuner(16), shared, 30, is_busy=True) == [4] + [1] * 11 + [2, 2] + [1] * 16


def test_what_many_brought_in_their_first_moment_is_not_held_against_one_that_keeps_processors_busy() -> None:
    assert watch(Tuner(16), lambda n: 60.0 if n == 1 else 100.0, 9, is_busy=True) == [4] + [1] * 8


def test_where_one_brings_less_than_four_they_come_back_though_the_processors_are_busy() -> None:
    assert watch(Tuner(16), each_alone, 6, is_busy=True) == [4, 1, 1, 4, 4, 4]


def test_a_line_that_begins_to_throttle_each_connection_gets_more_of_them() -> None:
    tuner = Tuner(16)
    watch(tuner, shared, 20)
    assert tuner.n_connections == 4
    tried = watch(tuner, each_alone, 40)
    assert tried.count(16) > 20


def test_a_line_that_stops_to_gain_by_many_gets_fewer_of_them_and_loses_nothing() -> None:
    tuner = Tuner(16)
    watch(tuner, each_alone, 10)
    assert tuner.n_connections == 16
    watch(tuner, shared, 30)
    assert tuner.n_connections < 16


def test_attempts_that_were_in_vain_become_rare() -> None:
    tuner = Tuner(16)
    watch(tuner, each_alone, 200)
    tried = watch(tuner, each_alone, 1000)
    assert sum(number != 16 for number in tried) <= 20


def test_a_new_connection_that_starts_slowly_is_not_judged_at_once() -> None:
    tuner = Tuner(16)
    watch(tuner, each_alone, 2)
    assert tuner.n_connections == 8
    for rate in (20.0, 22.0, 25.0, 28.0, 33.0, 38.0):  # slower than four were, but growing
        tuner.observe(Moment(rate, 8))
        assert tuner.n_connections == 8
    tuner.observe(Moment(64.0, 8))
    assert tuner.n_connections == 16


def test_connections_that_never_open_are_given_up() -> None:
    tuner = Tuner(16)
    watch(tuner, each_alone, 2)
    for _ in range(12):
        tuner.observe(Moment(32.0, 4))
    assert tuner.n_connections == 4


def test_connections_that_have_not_left_yet_do_not_speak_for_fewer() -> None:
    tuner = Tuner(16)
    while tuner.n_connections != 2:
        watch(tuner, better_alone, 1)
    for _ in range(20):
        tuner.observe(Moment(1000.0, 8))
    assert tuner.n_connections == 2


@pytest.mark.parametrize(
    "trouble", [Moment(0, 0, was_limited=True), Moment(50, 8, n_failed=8), Moment(50, 16, was_limited=True)]
)
def test_a_host_in_trouble_gets_half_as_many_and_a_rest(trouble: Moment) -> None:
    tuner = Tuner(16)
    watch(tuner, each_alone, 10)
    for expected in (8, 4, 2, 1, 1):
        tuner.observe(trouble)
        assert tuner.n_connections == expected
    assert set(watch(tuner, each_alone, 9)) == {1}
    watch(tuner, each_alone, 200)
    assert tuner.n_connections == 16


def test_silence_decides_nothing() -> None:
    tuner = Tuner(16)
    for _ in range(100):
        tuner.observe(Moment(0.0, 0))
    assert tuner.n_connections == 4


def test_one_failed_try_is_no_trouble() -> None:
    tuner = Tuner(16)
    watch(tuner, each_alone, 10)
    tuner.observe(Moment(128.0, 16, n_failed=1))
    assert tuner.n_connections == 16
