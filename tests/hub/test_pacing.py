from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from influence.hub.clock import wait
from influence.hub.pacing import MAX_BACKOFF_S, MAX_WAIT_S, asked_wait, backoff
from support.fake_clock import FakeClock

WALL = 1_700_000_000.0


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "55"}, 55),
        ({"retry-after": " 0 "}, 0),
        ({"retry-after": http_date(WALL + 90)}, 90),
        ({"retry-after": http_date(WALL - 90)}, 0),
        ({"ratelimit": '"api";r=0;t=55'}, 55),
        ({"ratelimit": '"resolvers"; r=0; t=7'}, 7),
        ({"retry-after": "3", "ratelimit": '"api";r=0;t=55'}, 3),
        ({"retry-after": "86400"}, MAX_WAIT_S),
        ({"ratelimit": '"api";r=0;t=999999999'}, MAX_WAIT_S),
        ({"retry-after": http_date(WALL + 86400)}, MAX_WAIT_S),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Wed, 99 Nov 9999 99:99:99 GMT"}, None),
        ({"ratelimit": "garbage"}, None),
        ({}, None),
    ],
)
def test_a_host_is_waited_for_as_long_as_it_asks(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers, FakeClock(wall=WALL)) == seconds


def test_without_a_word_of_the_host_waits_double_up_to_a_limit() -> None:
    waits = [backoff(n_failed, FakeClock(chance=0.0)) for n_failed in range(1, 10)]
    assert waits[:6] == [0.5, 1, 2, 4, 8, 16]
    assert waits[-1] == MAX_BACKOFF_S == backoff(10**6, FakeClock())


def test_chance_takes_up_to_half_of_a_wait() -> None:
    assert backoff(3, FakeClock(chance=0.999)) == pytest.approx(1.0, abs=0.01)


def test_a_wait_counts_down_by_the_second() -> None:
    clock, told = FakeClock(), []
    wait(clock, 3.5, "because", lambda seconds, reason: told.append((seconds, reason)))
    assert told == [(3.5, "because"), (2.5, "because"), (1.5, "because"), (0.5, "because")]
    assert clock.now == 3.5
