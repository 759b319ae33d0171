"""Our engine on a GPU, and how fast that GPU reads its memory: imported only where one is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from engine_backend import EngineBackend
from influence.engines.paging import BLOCK_SIZE
from influence.engines.torch.devices import load_on
from influence.engines.torch.engine import TorchEngine
from influence.engines.torch.memory import Room
from influence.engines.torch.parallel.commands import RankDevice
from influence.engines.torch.parallel.engine import load_on_ranks
from influence.engines.torch.quantize import MatrixFormat
from influence.models.model import Model

# Eighty times the largest cache of a GPU today, so that hardly any of it is read from there.
_BUFFER_BYTES = 4 << 30


class GpuBackend(EngineBackend):
    def __init__(
        self,
        model: Model,
        ranks: Sequence[RankDevice],
        *,
        context: int,
        kv_positions: int,
        form: MatrixFormat,
    ) -> None:
        """Sequences of up to `context` tokens, `kv_positions` in all, whatever length the model was trained on."""
        longer = replace(model, spec=replace(model.spec, max_context=max(model.spec.max_context, context)))
        # Each sequence may leave its last block nearly empty.
        room = Room(BLOCK_SIZE, n_sessions=2 * -(-kv_positions // BLOCK_SIZE))
        if len(ranks) > 1:
            engine: TorchEngine = load_on_ranks(longer, ranks, room, form)
        else:
            engine = load_on(longer, ranks[0].placement(), room, form)
        super().__init__(engine, context)
        self.step_bytes = engine.step_bytes


class GpuReadProbe:
    """Sums a large buffer on the device: hardly any arithmetic, so that the time is the reading's."""

    def __init__(self, device: Any, n_bytes: int = _BUFFER_BYTES) -> None:
        self._buffer = torch.ones(n_bytes // 4, device=device)

    def gb_per_s(self) -> float:
        """The best of five passes."""
        best_s = min(self._pass_s() for _ in range(5))
        return float(self._buffer.nbytes) / best_s / 1e9

    def _pass_s(self) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._buffer.sum()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def close(self) -> None:
        del self._buffer
