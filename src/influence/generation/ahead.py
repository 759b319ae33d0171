"""Sequences that decode while the host is a step behind, on an engine that feeds tokens to itself.

    begin      the first step is launched
    advance    the next is launched, then the tokens of the one before are read
    end        nothing more is launched, and what is in flight is read

A sequence that stops is noticed a step late: its session ran one token too
many, and is rewound. It knows sequences and a run, but neither admission nor
events; the loop takes the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from influence.engines.base import DecodeRun, Engine
from influence.engines.sampling import Sample
from influence.generation.sequence import SequenceState

Taken = list[tuple[SequenceState, Sample]]


class Ahead:
    """A run and the sequences in it, in the order of its draws."""

    def __init__(self, run: DecodeRun, sequences: Sequence[SequenceState]) -> None:
        self._run = run
        self._sequences = list(sequences)

    @classmethod
    def begin(cls, engine: Engine, sequences: Sequence[SequenceState]) -> Self | None:
        """A run of sequences that each have one token to run and the next to choose; None if there can be none."""
        if not all(
            one.n_generated > 0 and one.n_pending == 1 and one.constraint is None for one in sequences
        ):
            return None
        if not any(_wants_more(one, 1) for one in sequences):
            return None  # one step is all that is left
        draws = [sequence.next_draw(row) for row, sequence in enumerate(sequences)]
        run = engine.decode_ahead([sequence.step(1) for sequence in sequences], draws)
        return None if run is None else cls(run, sequences)

    @property
    def n_sequences(self) -> int:
        return len(self._sequences)

    @property
    def can_go_on(self) -> bool:
        """Whether each of them is to have one more token than those in flight."""
        return all(_wants_more(sequence, self._run.n_in_flight) for sequence in self._sequences)

    def advance(self) -> Taken:
        """Launch a step, and the tokens of the oldest one."""
        self._run.launch()
        return self._take()

    def end(self) -> Taken:
        """The tokens of the oldest step in flight, and none if nothing is."""
        return self._take() if self._run.n_in_flight else []

    def forget(self) -> None:
        """Have all sessions hold what is known alone; what is in flight is computed again."""
        for sequence in self._sequences:
            sequence.forget_unknown()

    def _take(self) -> Taken:
        samples = self._run.take()
        both = zip(self._sequences, samples, strict=True)
        return [(sequence, sample) for sequence, sample in both if not sequence.has_ended]


def _wants_more(sequence: SequenceState, n_in_flight: int) -> bool:
    return not sequence.has_ended and sequence.n_generated + n_in_flight < sequence.max_new_tokens
