"""A generator over the fake engine, and what requests to it are made of."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from influence.engines.sampling import SamplingParams
from influence.generation.events import Completion
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from support.fake_engine import VOCAB, FakeDetokenizer, FakeEngine
from support.generation_oracle import Expected

EOS = 31
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


@contextmanager
def running(engine: FakeEngine, **options: Any) -> Iterator[Generator]:
    """A generator on `engine`; afterwards every block must be free."""
    options = {"max_running": 8, "tokens_per_step": 16, "new_detokenizer": FakeDetokenizer, **options}
    with Generator(engine, None, frozenset({EOS}), **options) as generator:  # type: ignore[arg-type]
        yield generator
    assert engine.sessions == []
    assert engine.n_free == engine.n_blocks


def params(max_tokens: int = 20, **values: Any) -> GenerationParams:
    """By default 20 tokens, whatever they are."""
    sampling = SamplingParams(**{"seed": 1, **values.pop("sampling", {})})
    return GenerationParams(sampling, max_tokens, **{"ignore_eos": True, **values})


def facts(completion: Completion) -> Expected:
    return Expected(completion.text, completion.token_ids, completion.finish_reason, completion.stop_string)


class Gate:
    """Holds the engine before a forward until the test lets it go on."""

    def __init__(self, engine: FakeEngine) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        engine.before_forward = self.wait

    def wait(self, steps: object) -> None:
        self.reached.set()
        assert self.opened.wait(20)


class Cycle:
    """A constraint: one of each group in turn; complete after `n` tokens; `may_end` allows EOS at any time."""

    def __init__(self, groups: Sequence[Sequence[int]], n: int, *, may_end: bool = False) -> None:
        self.groups, self.n, self.may_end = groups, n, may_end
        self.accepted: list[int] = []

    def allowed(self) -> np.ndarray:
        mask = np.zeros(VOCAB, np.bool_)
        mask[list(self.groups[len(self.accepted) % len(self.groups)])] = True
        mask[EOS] = self.may_end
        return mask

    def accept(self, token_id: int) -> None:
        self.accepted.append(token_id)

    @property
    def is_complete(self) -> bool:
        return len(self.accepted) == self.n
