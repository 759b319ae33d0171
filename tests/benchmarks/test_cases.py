"""What the benchmarks derive from clocks: turns, medians and ratios, without a clock."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cases import OURS, Case, Outcome, Turns, measure, suite


class Recorded:
    """An engine whose turns last what they are told, and that writes down whose turn it was."""

    def __init__(self, name: str, seconds: Sequence[float], log: list[str]) -> None:
        self.description = name
        self._seconds = list(seconds)
        self._log = log

    def prefill_s(self, n_tokens: int) -> float:
        self._log.append(self.description)
        return self._seconds.pop(0)

    def decode_s(self, n_tokens: int, depth: int, n_streams: int) -> float:
        return self.prefill_s(n_tokens)

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        return b""


class Steady:
    def gb_per_s(self) -> float:
        return 20.0


def test_engines_take_turns_and_the_first_turn_does_not_count() -> None:
    log: list[str] = []
    runners = {
        OURS: Recorded("a", [9.0, 1.0, 2.0, 3.0], log),
        "peer": Recorded("b", [9.0, 2.0, 4.0, 6.0], log),
    }
    outcome = measure(Case("prefill", 10), runners, repeat=3, probe=Steady(), step_bytes=1)
    assert log == ["a", "b"] * 4
    assert outcome.turns[OURS].seconds == [1.0, 2.0, 3.0]
    assert outcome.tokens_per_s("peer") == 10 / 4.0


def test_the_ratio_is_of_neighbouring_turns() -> None:
    # The machine slows down tenfold after two turns; the peer stays half as fast in each.
    turns = {OURS: Turns([1.0, 1.0, 10.0], [1.0] * 3), "peer": Turns([2.0, 2.0, 20.0], [1.0] * 3)}
    assert Outcome(Case("prefill", 10), turns, 1, 0.0).ratio("peer") == 2.0


def test_bandwidth_counts_steps_not_streams() -> None:
    case = Case("streams", n_tokens=10, depth=128, n_streams=4)
    outcome = Outcome(case, {OURS: Turns([2.0], [20.0])}, step_bytes=2_000_000_000, others_share=0.0)
    assert outcome.tokens_per_s(OURS) == 20.0
    assert outcome.gb_per_s(OURS) == 10.0
    assert outcome.bandwidth_share(OURS) == pytest.approx(0.5)


def test_one_stream_is_timed_once() -> None:
    names = [
        case.name
        for case in suite(groups=["streams", "decode"], prompt=512, new_tokens=64, depth=2048, streams=[1, 4])
    ]
    assert names == ["decode at 128", "decode at 128, 4 streams"]
