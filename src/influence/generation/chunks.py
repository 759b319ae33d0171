"""What of each sequence a step runs, and what it wants of the step's rows of logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from influence.engines.sampling import Draw
from influence.generation.sequence import SequenceState


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a sequence runs in a step."""

    sequence: SequenceState
    n_tokens: int  # of its pending ones
    draft: Sequence[int] = ()  # guessed tokens behind them

    @property
    def width(self) -> int:
        return self.n_tokens + len(self.draft)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of logits that are a sequence's, and the guess at the token that they give."""

    sequence: SequenceState
    first: int
    n: int
    draft: Sequence[int]

    @property
    def came_true(self) -> bool:
        """Whether the token drawn is the draft's, so that the row behind it counts too."""
        return (
            len(self.draft) > 0
            and not self.sequence.has_ended
            and self.sequence.token_ids[-1] == self.draft[0]
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one sequence wants of the rows of a step."""

    sequence: SequenceState
    draws: list[Draw]


def all_decode(chunks: Sequence[Chunk]) -> bool:
    return all(chunk.sequence.n_generated > 0 for chunk in chunks)


def width(chunks: Sequence[Chunk]) -> int:
    """Tokens of all of them."""
    return sum(chunk.width for chunk in chunks)
