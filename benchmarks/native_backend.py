"""Our own CPU engine as a benchmark sees it."""

from __future__ import annotations

from dataclasses import replace

from engine_backend import EngineBackend
from influence.engines import native
from influence.engines.packing import PackedWeights
from influence.models.model import Model


class NativeBackend(EngineBackend):
    def __init__(
        self,
        model: Model,
        *,
        threads: int,
        kernels: str | None,
        context: int,
        kv_positions: int,
        packed: PackedWeights | None = None,
    ) -> None:
        """Sequences of up to `context` tokens, whatever length the model was trained on.

        `kv_positions` are the most that all of them hold together.
        """
        spec = replace(model.spec, max_context=max(model.spec.max_context, context))
        # Each sequence may leave its last block nearly empty.
        n_blocks = 2 * -(-kv_positions // native.BLOCK_SIZE)
        engine = native.load(
            spec,
            model.weights,
            threads=threads,
            kernels=kernels,
            kv_bytes=n_blocks * native.kv_block_bytes(spec, model.weights),
            packed=packed,
        )
        super().__init__(engine, context)
