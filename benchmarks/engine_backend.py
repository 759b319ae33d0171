"""Any engine of ours as a benchmark sees it."""

from __future__ import annotations

from collections.abc import Sequence

from influence.engines.base import Engine, Session, Step
from influence.engines.sampling import Draw, SamplingParams

_GREEDY = SamplingParams(temperature=0.0)


class EngineBackend:
    """Sessions that grow together, chosen from greedily through the engine's own sampler. Owns the engine."""

    def __init__(self, engine: Engine, context: int) -> None:
        self._engine = engine
        self._context = context
        self._sessions: list[Session] = []
        self.vocab_size = engine.spec.vocab_size
        # Weights that one forward reads; None where they are those of the files or of the packing.
        self.step_bytes: int | None = None
        self.description = engine.description

    def reset(self, n_streams: int) -> None:
        for session in self._sessions:
            session.close()
        self._sessions = [self._engine.new_session(self._context) for _ in range(n_streams)]

    def append(self, rows: Sequence[Sequence[int]]) -> list[int]:
        self._engine.forward([Step(session, row) for session, row in zip(self._sessions, rows, strict=True)])
        return [sample.token_id for sample in self._engine.sample(self._draws(0))]

    def decode(self, token_ids: Sequence[int], n_tokens: int) -> list[int]:
        """These ids and what is chosen after them, `n_tokens` steps; the last tokens chosen. Runs ahead if the engine does."""
        steps = [Step(session, [one]) for session, one in zip(self._sessions, token_ids, strict=True)]
        run = self._engine.decode_ahead(steps, self._draws(1))
        ids = list(token_ids)
        for n_left in range(n_tokens, 0, -1):
            if run is None:
                ids = self.append([[one] for one in ids])
                continue
            if n_left > 1:
                run.launch()
            ids = [sample.token_id for sample in run.take()]
        return ids

    def rewind(self, position: int) -> None:
        for session in self._sessions:
            session.rewind(position)

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        self.reset(1)
        self._engine.forward([Step(self._sessions[0], token_ids, n_rows)])
        return self._engine.logits().tobytes()

    def close(self) -> None:
        self._engine.close()

    def _draws(self, n_ahead: int) -> list[Draw]:
        """Greedy ones of each session, whose step of `n_ahead` tokens is still to run."""
        return [
            Draw(row, session.position + n_ahead, _GREEDY, n_logprobs=-1)
            for row, session in enumerate(self._sessions)
        ]
