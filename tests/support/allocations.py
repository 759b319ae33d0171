"""A program that counts the native core's allocations, under tests/engines/count_allocations.c.

    LD_PRELOAD=count_allocations.so python -m support.allocations

prints for every engine how many a first step of each kind made, and how many
further ones of its size did:

    {"avx2 f16 q8": {"one token": [32, 0], "guesses": [32, 0], ...}, ...}
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from itertools import product
from typing import get_args

from influence.engines import native
from influence.engines.base import Step
from influence.engines.packing import WeightFormat, pack_weights
from influence.engines.sampling import Draw, SamplingParams
from support.random_specs import Extras, random_weights, small_spec

FURTHER_STEPS = 70  # so that a session has to take another block of the KV cache on the way
N_SESSIONS = 8
N_GUESSES = 4
ALL_FILTERS = SamplingParams(temperature=1.0, top_k=20, top_p=0.9, min_p=0.01)

SPEC = small_spec(n_layers=1)
WEIGHTS = random_weights(SPEC, Extras(biases=True, dtype="BF16"))
# Kernel table, type of the KV cache, format of the weights: what has to do with each other together.
ENGINES = [
    *product(native.kernel_names(), ["f16"], get_args(WeightFormat)),
    *product(native.kernel_names(), ["f32", "q8"], ["stored"]),
]

Act = Callable[[], object]
Counts = dict[str, tuple[int, int]]  # by kind of step: of the first, and of all further ones


def engine_of(kernels: str, kv_type: native.KvType, form: WeightFormat) -> native.NativeEngine:
    packed = None
    if form != "stored":
        packed = pack_weights(WEIGHTS, form, folder=None, fingerprint="", kernels=kernels, threads=1)
    return native.load(
        SPEC,
        WEIGHTS,
        kernels=kernels,
        kv_type=kv_type,
        packed=packed,
        threads=2,
        kv_bytes=8 << 20,
        shared_work=0,
    )


def one_token(engine: native.NativeEngine) -> Act:
    session = engine.new_session(SPEC.max_context)
    return lambda: engine.forward([Step(session, [7])])


def several_sessions(engine: native.NativeEngine) -> Act:
    sessions = [engine.new_session(SPEC.max_context) for _ in range(N_SESSIONS)]
    return lambda: engine.forward([Step(session, [7]) for session in sessions])


def guesses(engine: native.NativeEngine) -> Act:
    """Guessed tokens behind one that is certain; none of them holds."""
    session = engine.new_session(SPEC.max_context)
    token_ids = [7] * (1 + N_GUESSES)

    def verify() -> None:
        engine.forward([Step(session, token_ids, n_logits=len(token_ids))])
        session.rewind(session.position - N_GUESSES)

    return verify


def draws(engine: native.NativeEngine) -> Act:
    """Of one row under another chance each time, so that what the filters keep differs."""
    session = engine.new_session(SPEC.max_context)
    positions = iter(range(SPEC.max_context))
    engine.forward([Step(session, [7])])
    return lambda: engine.sample([Draw(0, next(positions), ALL_FILTERS, n_logprobs=-1)])


KINDS = {"one token": one_token, "several sessions": several_sessions, "guesses": guesses, "draws": draws}


def count(act: Act) -> tuple[int, int]:
    counter = ctypes.c_long.in_dll(ctypes.CDLL(None), "n_allocations")
    seen = [counter.value]
    for _ in range(1 + FURTHER_STEPS):
        act()
        seen.append(counter.value)
    return seen[1] - seen[0], seen[-1] - seen[1]


def counts_of(names: tuple[str, native.KvType, WeightFormat]) -> Counts:
    return {kind: count(start(engine_of(*names))) for kind, start in KINDS.items()}


if __name__ == "__main__":
    print(json.dumps({" ".join(names): counts_of(names) for names in ENGINES}))
