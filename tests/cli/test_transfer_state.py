"""The numbers that a transfer shows: never more than is true, never backwards, never wider than the terminal."""

from __future__ import annotations

import pytest

from influence.cli.transfer_state import Speed, TransferState, cells, clipped
from influence.hub.events import (
    FileDone,
    Installed,
    Planned,
    Progress,
    Reading,
    Restarted,
    Retrying,
    Unverified,
    Waiting,
)

SHA = "a" * 40


def planned(kept: int = 0) -> TransferState:
    state = TransferState("asking")
    state.take(Planned(2, 10_000_000, kept, SHA), 0.0)
    return state


def test_before_anything_is_known_it_says_what_goes_on() -> None:
    state = TransferState("asking hub.example")
    assert state.report(0.0) == "asking hub.example"
    assert state.lines(0.0, 80) == ["asking hub.example"]


def test_bytes_of_earlier_runs_are_counted_as_here_but_not_as_speed() -> None:
    state = planned(kept=5_000_000)
    assert state.report(0.0) == "50 %, 5.0 MB of 10.0 MB"
    state.take(Progress(6_000_000, 10_000_000, 2, ()), 1.0)
    assert state.report(1.0) == "60 %, 6.0 MB of 10.0 MB, 1.0 MB/s, 4.0 s left, 2 connections"


def test_a_line_for_each_file_under_way_and_one_for_all() -> None:
    state = planned()
    files = (("model.safetensors", 4_000_000, 8_000_000), ("config.json", 570, 570))
    state.take(Progress(4_000_570, 10_000_000, 1, files), 2.0)
    first, second, total = state.lines(2.0, 200)
    assert first.split() == [
        "model.safetensors",
        "━" * 12 + "─" * 12,
        "50",
        "%",
        "4.0",
        "MB",
        "of",
        "8.0",
        "MB",
    ]
    assert second.endswith("100 %  570 bytes, checking its hash")
    assert total.startswith("total              ━━━━━━━━━──")
    assert total.endswith(" 40 %  4.0 MB of 10.0 MB  2.0 MB/s  3.0 s left  1 connection")


def test_of_many_files_the_first_are_shown_and_the_others_counted() -> None:
    state = planned()
    state.take(Progress(0, 10_000_000, 16, tuple((f"{n}.json", 0, 10) for n in range(16))), 0.0)
    lines = state.lines(0.0, 100)
    assert len(lines) == 10
    assert lines[-2] == "and 8 files more"


def test_on_a_narrow_terminal_the_bars_give_way_to_the_numbers() -> None:
    state = planned()
    state.take(Progress(4_000_000, 10_000_000, 16, (("model-00001-of-00002.safetensors", 1, 8),)), 2.0)
    for n_columns in (80, 100, 120, 160):
        *_, total = state.lines(2.0, n_columns)
        assert " 40 %  4.0 MB of 10.0 MB  2.0 MB/s  3.0 s left  16 connections" in total
        assert ("━" in total) == (n_columns >= 120)


def test_a_time_that_nobody_could_wait_for_is_not_told() -> None:
    state = planned()
    state.take(Progress(1, 10_000_000, 1, ()), 3600.0)
    assert "left" not in state.report(3600.0)


@pytest.mark.parametrize("n_columns", [1, 2, 20, 40, 80])
def test_no_line_is_wider_than_the_terminal(n_columns: int) -> None:
    state = planned()
    names = ["x" * 300, "模型" * 100, "e\u0301" * 100, "a\x1b[31mb\n"]
    state.take(Progress(0, 10_000_000, 4, tuple((name, 1, 10) for name in names)), 0.0)
    state.take(Waiting(5.0, "y" * 300), 0.0)
    lines = state.lines(0.0, n_columns)
    assert len(lines) == 6
    assert max(map(cells, lines)) <= max(n_columns - 1, 0)
    assert not any(character in line for line in lines for character in "\x1b\n")


def test_a_clipped_name_keeps_its_beginning_and_its_end() -> None:
    assert clipped("model-00001-of-00002.safetensors", 40) == "model-00001-of-00002.safetensors"
    assert clipped("a" * 30 + "-00001-of-00002.safetensors", 40) == "a" * 26 + "…2.safetensors"
    assert clipped("anything", 0) == ""


def test_a_wait_is_counted_down_and_gone_when_it_is_over() -> None:
    state = planned()
    state.take(Waiting(12.2, "too many requests"), 0.0)
    assert state.waiting(0.5) == "waiting 12 s: too many requests"
    state.take(Waiting(0.2, "too many requests"), 1.0)
    assert state.lines(1.0, 80)[-1] == "waiting 1 s: too many requests"
    assert state.waiting(3.0) == ""
    state.take(Waiting(None, "another process is downloading"), 4.0)
    assert state.waiting(4.0) == "waiting: another process is downloading"


def test_a_failed_try_is_shown_for_a_moment() -> None:
    state = planned()
    state.take(Retrying("model.safetensors", 1, "the connection broke"), 0.0)
    assert state.waiting(0.0) == "again, try 2: the connection broke"


def test_what_happened_to_a_file_is_worth_a_line() -> None:
    state = planned()
    assert state.take(FileDone("config.json", 570), 0.0) == "config.json  570 bytes"
    assert "comes again" in state.take(Restarted("a\x1b.json"), 0.0)
    assert "nobody tells a hash of a.json" in state.take(Unverified("a.json"), 0.0)
    assert state.take(Planned(1, 2_000_000, 0, SHA), 0.0) == "1 file, 2.0 MB"
    assert (
        state.take(Planned(3, 2_000_000, 1_000_000, SHA), 0.0) == "3 files, 2.0 MB, of which 1.0 MB are here"
    )
    assert state.take(Progress(1, 2, 1, ()), 0.0) == state.take(Installed(1, 2), 0.0) == ""


def test_reading_starts_its_own_count_and_a_download_after_it_too() -> None:
    state = TransferState("opening")
    state.take(Reading("a", 0, 100), 0.0)
    state.take(Reading("a", 50, 100), 1.0)
    assert state.report(1.0) == "50 %, 50 bytes of 100 bytes, 50 bytes/s, 1.0 s left"
    state.take(Planned(1, 200, 150, SHA), 2.0)
    assert state.report(2.0) == "75 %, 150 bytes of 200 bytes"


def test_the_speed_is_that_of_the_last_quarter_of_a_minute() -> None:
    speed = Speed()
    assert speed.at(0.0) == 0.0
    for second in range(61):
        speed.note(float(second), 1000 * min(second, 30) + 100 * max(second - 30, 0))
    assert speed.at(60.0) == pytest.approx(100.0)


def test_a_line_that_stalls_gets_slower_by_the_second() -> None:
    speed = Speed()
    speed.note(0.0, 0)
    speed.note(1.0, 1000)
    assert speed.at(1.0) == 1000.0
    assert speed.at(10.0) == 100.0


def test_the_share_is_rounded_down_so_that_100_is_all() -> None:
    state = planned()
    state.take(Progress(9_999_999, 10_000_000, 1, ()), 1.0)
    assert state.percent == 99
