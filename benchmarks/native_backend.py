"""Our own CPU engine as a benchmark sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from influence.engines import native
from influence.engines.base import Session, Step
from influence.engines.packing import PackedWeights
from influence.engines.sampling import Draw, SamplingParams
from influence.models.model import Model

_GREEDY = SamplingParams(temperature=0.0)


class NativeBackend:
    """Sessions that grow together, chosen from greedily through the engine's own sampler."""

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
        self._engine = native.load(
            spec,
            model.weights,
            threads=threads,
            kernels=kernels,
            kv_bytes=n_blocks * native.kv_block_bytes(spec, model.weights),
            packed=packed,
        )
        self._context = context
        self._sessions: list[Session] = []
        self.vocab_size = spec.vocab_size
        self.description = self._engine.description

    def reset(self, n_streams: int) -> None:
        for session in self._sessions:
            session.close()
        self._sessions = [self._engine.new_session(self._context) for _ in range(n_streams)]

    def append(self, rows: Sequence[Sequence[int]]) -> list[int]:
        self._engine.forward([Step(session, row) for session, row in zip(self._sessions, rows, strict=True)])
        draws = [
            Draw(row, session.position, _GREEDY, n_logprobs=-1) for row, session in enumerate(self._sessions)
        ]
        return [sample.token_id for sample in self._engine.sample(draws)]

    def rewind(self, position: int) -> None:
        for session in self._sessions:
            session.rewind(position)

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        self.reset(1)
        self._engine.forward([Step(self._sessions[0], token_ids, n_rows)])
        return self._engine.logits().tobytes()

    def close(self) -> None:
        self._engine.close()
