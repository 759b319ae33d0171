"""The engine boundary over several ranks: the books are here, the device half is everybody's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count

import numpy as np
import numpy.typing as npt

from influence.engines.base import Blocks, Step
from influence.engines.paging import BlockPool
from influence.engines.sampling import Draw, Sample
from influence.engines.torch.batching import TorchSession, own
from influence.engines.torch.engine import TorchEngine, block_bytes
from influence.engines.torch.memory import Room, blocks_within
from influence.engines.torch.parallel import commands
from influence.engines.torch.parallel.commands import (
    Command,
    Load,
    RankDevice,
    SessionView,
    Unload,
    WeightsSource,
)
from influence.engines.torch.parallel.cuts import cut
from influence.engines.torch.parallel.group import PeerLost
from influence.engines.torch.parallel.team import Team
from influence.engines.torch.placement import Arrival, Placement
from influence.engines.torch.quantize import MatrixFormat
from influence.models.binding import Weights
from influence.models.model import Model
from influence.models.spec import ModelSpec
from torch import Tensor


class NumberedSession(TorchSession):
    """A session that other ranks know by a number."""

    def __init__(self, engine: TeamEngine, context: int, placement: Placement, number: int) -> None:
        super().__init__(engine, context, placement)
        self.number = number

    @property
    def view(self) -> SessionView:
        return SessionView(self.number, self.context, self.position, self.blocks)


class TeamEngine(TorchEngine):
    """Runs any ModelSpec that can be cut, on all ranks of a team.

    Every method that touches the device tells the other ranks to do the same.
    A block of the cache is the ranks' parts of it, one after another.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        team: Team,
        room: Room,
        form: MatrixFormat = "stored",
        *,
        source: WeightsSource | None = None,  # of the same weights; None: they are sent
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Raises InvalidParameter for a model that can't be cut so, OutOfMemory, RankFailed. `room` is of each device."""
        cuts = [cut(spec, rank, team.size, form) for rank in range(team.size)]
        self._team, self._number, self._numbers, self._on_close = team, next(team.numbers), count(), on_close
        own = cuts[0]
        with team.guarded(math.inf):
            team.tell((self._number, Load(spec, source or WeightsSource(weights), room, form)))
            part = own.weights(weights)
            n_blocks = blocks_within(room, own.spec, part, team.placement, form)
            super().__init__(
                own.spec,
                part,
                team.placement,
                n_blocks=lambda: self._fewest(n_blocks()),
                form=form,
                tied_rows=own.vocabulary,
            )
            team.gather()
        self.spec = spec
        self._block_bytes = [block_bytes(one.spec, self._dtype) for one in cuts]
        self.pool = BlockPool(self.pool.n_blocks, sum(self._block_bytes))
        self.kv_identity += f" on {team.size} ranks"
        self.description += f", tensor parallel on {team.size}"

    def make_session(self, context: int) -> NumberedSession:
        return NumberedSession(self, context, self.placement, next(self._numbers))

    def run(self, steps: Sequence[Step]) -> int:
        token_ids, n_logits = [step.token_ids for step in steps], [step.n_logits for step in steps]
        views = _views([own(step) for step in steps])
        with self._together(commands.Run(views, token_ids, n_logits)):
            return super().run(steps)

    def begin(
        self, sessions: Sequence[TorchSession], token_ids: Sequence[int], draws: Sequence[Draw]
    ) -> None:
        with self._together(commands.Begin(_views(sessions), token_ids, draws)):
            super().begin(sessions, token_ids, draws)

    def advance(self, sessions: Sequence[TorchSession]) -> Arrival:
        self.decode.require_run_of(sessions)
        with self._together(commands.Advance(_views(sessions))):
            return super().advance(sessions)

    def arrived(self, arrival: Arrival) -> Tensor:
        with self._team.guarded():
            return super().arrived(arrival)

    def logits(self) -> npt.NDArray[np.float32]:
        with self._team.guarded():
            return super().logits()

    def sample(self, draws: Sequence[Draw]) -> list[Sample]:
        with self._team.guarded():
            return super().sample(draws)

    def copy_block(self, source: int, target: int) -> None:
        with self._together(commands.CopyBlock(source, target)):
            super().copy_block(source, target)

    def read_blocks(self, blocks: Sequence[int]) -> Blocks:
        with self._together(commands.ReadBlocks(list(blocks))):
            return np.concatenate([super().read_blocks(blocks), *self._team.gather()], axis=1)

    def write_blocks(self, blocks: Sequence[int], rows: Blocks) -> None:
        first, *others = np.split(rows, np.cumsum(self._block_bytes)[:-1], axis=1)
        with self._team.guarded():
            told = [(self._number, commands.WriteBlocks(list(blocks), part)) for part in others]
            self._team.tell_each(told)
            super().write_blocks(blocks, first)

    @property
    def is_usable(self) -> bool:
        return self._team.is_whole

    def close(self) -> None:
        if "decode" in self.__dict__ and self._team.is_whole:
            with suppress(PeerLost):
                self._team.tell((self._number, Unload()))
        super().close()
        self._on_close()

    @contextmanager
    def _together(self, command: Command) -> Iterator[None]:
        """What this rank does, the others are told to do."""
        with self._team.guarded():
            self._team.tell((self._number, command))
            yield

    def _fewest(self, n_blocks: int) -> int:
        """What the rank with the least room has room for."""
        fewest: int = min(n_blocks, *self._team.gather())
        self._team.tell(fewest)
        return fewest


def load_on_ranks(
    model: Model, devices: Sequence[RankDevice], room: Room, form: MatrixFormat = "stored"
) -> TeamEngine:
    """The model on these devices, this process on the first; each has that room. Raises what TeamEngine raises."""
    cut(model.spec, 0, len(devices), form)  # what can't be is refused before a process is started
    team = Team(devices)
    try:
        return TeamEngine(
            model.spec,
            model.weights,
            team,
            room,
            form,
            source=WeightsSource.of(model),
            on_close=team.close,
        )
    except BaseException:
        team.close()
        raise


def _views(sessions: Sequence[TorchSession]) -> list[SessionView]:
    return [session.view for session in sessions if isinstance(session, NumberedSession)]
