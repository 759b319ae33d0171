"""What rank 0 tells the other ranks, pickled through a pipe of each; and what they say.

    Start     -> HERE, then READY         a device, and the group
    Load      -> blocks; fewest -> READY  a part of a model, and its cache
    Unload
    Run, Begin, Advance, CopyBlock, WriteBlocks
    ReadBlocks -> rows
              -> Failed                   the last thing that a rank says, at any time

A command does to a rank's part what rank 0 does to its own at that moment, so
that all meet in the same collectives. Sessions are rank 0's: a command carries
what a pass needs of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from influence.engines.base import Blocks, Step
from influence.engines.sampling import Draw
from influence.engines.torch import placement
from influence.engines.torch.batching import TorchSession
from influence.engines.torch.engine import TorchEngine
from influence.engines.torch.memory import Room
from influence.engines.torch.placement import Placement
from influence.engines.torch.quantize import MatrixFormat
from influence.errors import InfluenceError, InvalidCheckpoint
from influence.models.binding import Weights
from influence.models.model import Model, open_model
from influence.models.spec import ModelSpec

HERE, READY = "here", "ready"


@dataclass(frozen=True, slots=True)
class RankDevice:
    """Where a rank runs."""

    kind: Literal["cuda", "cpu"]
    index: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}" if self.kind == "cuda" else self.kind

    def placement(self) -> Placement:
        return placement.on_cuda(self.index) if self.kind == "cuda" else placement.on_cpu()


@dataclass(frozen=True, slots=True)
class Start:
    """The first thing that a rank is told."""

    rank: int
    size: int
    meeting: Path  # of RankGroup
    device: RankDevice


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a rank ends."""

    cause: str
    hint: str = ""

    @classmethod
    def by(cls, error: BaseException) -> Failed:
        if isinstance(error, InfluenceError):
            return cls(error.message, error.hint)
        return cls(f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """The weights of a whole model as another process finds them."""

    weights: Weights | Path  # themselves, or the model's folder
    fingerprint: str = ""  # of the files in the folder

    @classmethod
    def of(cls, model: Model) -> WeightsSource:
        return cls(model.folder.absolute(), model.checkpoint.fingerprint())

    def open(self) -> Weights:
        """Raises InvalidCheckpoint if the files are no longer those that rank 0 has opened."""
        if isinstance(self.weights, Weights):
            return self.weights
        model = open_model(self.weights)
        if model.checkpoint.fingerprint() != self.fingerprint:
            raise InvalidCheckpoint(self.weights, "changed while it was loaded", hint="start again")
        return model.weights


@dataclass(frozen=True, slots=True)
class Load:
    """A part of a model."""

    spec: ModelSpec  # of the whole
    source: WeightsSource
    room: Room
    form: MatrixFormat


@dataclass(frozen=True, slots=True)
class Unload:
    """That model is no longer needed."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as it is now; the number tells it from others."""

    number: int
    context: int
    position: int
    blocks: list[int]


class Mirror(TorchSession):
    """What a rank has of a session: what it was last told."""

    def follow(self, view: SessionView) -> Mirror:
        self.blocks, self._position = view.blocks, view.position
        return self


@dataclass(slots=True)
class RankPart:
    """A rank's engine, of which only the device half is used: its pool gives no blocks."""

    engine: TorchEngine
    _mirrors: dict[int, Mirror] = field(default_factory=dict)  # of the latest step

    def sessions(self, views: Sequence[SessionView]) -> list[Mirror]:
        self._mirrors = {view.number: self._mirror_of(view).follow(view) for view in views}
        return list(self._mirrors.values())

    def _mirror_of(self, view: SessionView) -> Mirror:
        held = self._mirrors.get(view.number)
        return held or Mirror(self.engine, view.context, self.engine.placement)


class Command(Protocol):
    """What is done to a part; rows if it was asked for them."""

    def on(self, part: RankPart) -> Blocks | None: ...


@dataclass(frozen=True, slots=True)
class Run:
    """As `PagedEngine.run`."""

    sessions: list[SessionView]
    token_ids: list[Sequence[int]]
    n_logits: list[int]

    def on(self, part: RankPart) -> None:
        steps = zip(part.sessions(self.sessions), self.token_ids, self.n_logits, strict=True)
        part.engine.run([Step(*step) for step in steps])


@dataclass(frozen=True, slots=True)
class Begin:
    """As `TorchEngine.begin`."""

    sessions: list[SessionView]
    token_ids: Sequence[int]
    draws: Sequence[Draw]

    def on(self, part: RankPart) -> None:
        part.engine.begin(part.sessions(self.sessions), self.token_ids, self.draws)


@dataclass(frozen=True, slots=True)
class Advance:
    """As `TorchEngine.advance`, whose result nobody here waits for."""

    sessions: list[SessionView]

    def on(self, part: RankPart) -> None:
        part.engine.decode.advance(part.sessions(self.sessions))


@dataclass(frozen=True, slots=True)
class CopyBlock:
    """As `PagedEngine.copy_block`."""

    source: int
    target: int

    def on(self, part: RankPart) -> None:
        part.engine.copy_block(self.source, self.target)


@dataclass(frozen=True, slots=True)
class ReadBlocks:
    """As `PagedEngine.read_blocks`: this rank's columns of the rows."""

    blocks: list[int]

    def on(self, part: RankPart) -> Blocks:
        return part.engine.read_blocks(self.blocks)


@dataclass(frozen=True, slots=True)
class WriteBlocks:
    """As `PagedEngine.write_blocks`, of this rank's columns."""

    blocks: list[int]
    rows: Blocks

    def on(self, part: RankPart) -> None:
        part.engine.write_blocks(self.blocks, self.rows)
