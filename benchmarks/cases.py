"""What is measured, in turns: A B A B, each turn between two looks at the memory's speed.

Machines drift, by clock, by neighbours, by memory: two engines are compared by
the median of their ratios turn by turn, never by numbers of different minutes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from contention import Moment, share_of_others

OURS = "influence"

Group = Literal["prefill", "decode", "depth", "streams"]
GROUPS: tuple[Group, ...] = ("prefill", "decode", "depth", "streams")
STREAM_PROMPT = 128  # tokens that each sequence holds where decode is timed


@dataclass(frozen=True, slots=True)
class Case:
    """`n_tokens` in one batch after nothing (prefill), or one after another after `depth` in each stream."""

    group: Group
    n_tokens: int
    depth: int = 0
    n_streams: int = 1

    @property
    def name(self) -> str:
        if self.group == "prefill":
            return f"prefill {self.n_tokens}"
        streams = f", {self.n_streams} streams" if self.n_streams > 1 else ""
        return f"decode at {self.depth}{streams}"

    @property
    def is_prefill(self) -> bool:
        return self.group == "prefill"

    @property
    def context(self) -> int:
        """Positions that each sequence needs."""
        return self.depth + self.n_tokens

    @property
    def n_tokens_in_all(self) -> int:
        return self.n_tokens * self.n_streams


class Timed(Protocol):
    """A Runner, here or in another process."""

    description: str

    def prefill_s(self, n_tokens: int) -> float: ...
    def decode_s(self, n_tokens: int, depth: int, n_streams: int) -> float: ...
    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes: ...


class Probe(Protocol):
    def gb_per_s(self) -> float: ...


@dataclass(slots=True)
class Turns:
    """One engine's turns at one case."""

    seconds: list[float] = field(default_factory=list)
    read_gb_per_s: list[float] = field(default_factory=list)  # the machine's, around each turn


@dataclass(frozen=True, slots=True)
class Outcome:
    """All turns of one case; what is derived from them are medians over the turns."""

    case: Case
    turns: Mapping[str, Turns]
    step_bytes: int  # weights that one forward reads
    others_share: float  # of the processors' time, 0 to 1, that went to other programs

    def tokens_per_s(self, engine: str) -> float:
        return self.case.n_tokens_in_all / statistics.median(self.turns[engine].seconds)

    def gb_per_s(self, engine: str) -> float:
        """Weights read while decoding; the KV cache is not counted."""
        return self.step_bytes * self.case.n_tokens / statistics.median(self.turns[engine].seconds) / 1e9

    def bandwidth_share(self, engine: str) -> float:
        """Of what the machine could read around that turn."""
        n_bytes = self.step_bytes * self.case.n_tokens
        turns = self.turns[engine]
        pairs = zip(turns.seconds, turns.read_gb_per_s, strict=True)
        return statistics.median(n_bytes / seconds / 1e9 / speed for seconds, speed in pairs)

    def ratio(self, peer: str) -> float:
        """How many times as fast as the peer we are."""
        pairs = zip(self.turns[OURS].seconds, self.turns[peer].seconds, strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)


def suite(
    *, groups: Sequence[Group], prompt: int, new_tokens: int, depth: int, streams: Sequence[int]
) -> list[Case]:
    """The cases of these groups, quick ones first; one stream is what `decode` times already."""
    if "decode" in groups:
        streams = [n_streams for n_streams in streams if n_streams > 1]
    found = {
        "prefill": [Case("prefill", prompt)],
        "decode": [Case("decode", new_tokens, STREAM_PROMPT)],
        "depth": [Case("depth", new_tokens, depth)],
        "streams": [Case("streams", new_tokens, STREAM_PROMPT, n_streams) for n_streams in streams],
    }
    return [case for group in GROUPS if group in groups for case in found[group]]


def measure(
    case: Case, runners: Mapping[str, Timed], *, repeat: int, probe: Probe, step_bytes: int
) -> Outcome:
    """`repeat` turns of every runner, after one that does not count."""
    turns = {name: Turns() for name in runners}
    for runner in runners.values():
        _seconds(case, runner)
    begin = Moment.now()
    before = probe.gb_per_s()
    for _ in range(repeat):
        for name, runner in runners.items():
            turns[name].seconds.append(_seconds(case, runner))
            after = probe.gb_per_s()
            turns[name].read_gb_per_s.append((before + after) / 2)
            before = after
    return Outcome(case, turns, step_bytes, share_of_others(begin, Moment.now()))


def _seconds(case: Case, runner: Timed) -> float:
    if case.is_prefill:
        return runner.prefill_s(case.n_tokens)
    return runner.decode_s(case.n_tokens, case.depth, case.n_streams)
