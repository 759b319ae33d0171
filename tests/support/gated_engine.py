"""A real engine with a gate before it: tests decide when it works, and whether it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from influence.engines.base import Engine, KvPool, Session, Step
from influence.engines.sampling import Draw, Sample


class GatedEngine(Engine):
    """Forwards wait while the gate is shut; `before_forward` may raise, to play a failing engine."""

    def __init__(self, engine: Engine) -> None:
        self.inner = engine
        self.spec, self.description = engine.spec, engine.description
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()  # a forward came to the shut gate
        self.before_forward: Callable[[Sequence[Step]], Any] = lambda steps: None
        self.n_tokens = 0  # that went in

    @property
    def kv_pool(self) -> KvPool:
        return self.inner.kv_pool

    def new_session(self, context: int) -> Session:
        return self.inner.new_session(context)

    def forward(self, steps: Sequence[Step]) -> int:
        if not self.gate.is_set():
            self.arrived.set()
            assert self.gate.wait(60), "the gate stayed shut"
        self.before_forward(steps)
        self.n_tokens += sum(len(step.token_ids) for step in steps)
        return self.inner.forward(steps)

    def logits(self) -> Any:
        return self.inner.logits()

    def sample(self, draws: Sequence[Draw]) -> list[Sample]:
        return self.inner.sample(draws)

    def close(self) -> None:
        self.gate.set()
        self.inner.close()

    def shut(self) -> None:
        """From now on the engine does nothing until `gate` is set."""
        self.arrived.clear()
        self.gate.clear()
