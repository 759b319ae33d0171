"""The native engine on real weights, and at its edges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from influence import _native
from influence.engines import native
from influence.engines.base import Engine, Step
from influence.engines.packing import pack_weights
from influence.engines.sampling import Draw, SamplingParams
from influence.errors import ContextFull, InvalidParameter, NumericError, OutOfMemory
from influence.models.model import open_model
from influence.models.spec import ModelSpec
from support.kernel_cases import ROUNDING_TABLES
from support.random_specs import Extras, random_weights, small_spec
from support.tensors import tensor_of

GREEDY = SamplingParams(temperature=0.0)
TABLES = native.kernel_names()


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((shared_data / "weights/stories260K-golden.json").read_text())
    return loaded


def load(folder: Path, kernels: str) -> Engine:
    model = open_model(folder)
    return native.load(model.spec, model.weights, kernels=kernels, threads=2)


def greedy(engine: Engine, prompt: list[int], n_tokens: int) -> list[int]:
    """The prompt and what greedy decoding appends to it."""
    session = engine.new_session(engine.spec.max_context)
    token_ids = list(prompt)
    engine.forward([Step(session, token_ids)])
    for _ in range(n_tokens):
        [chosen] = engine.sample([Draw(row=0, position=session.position, params=GREEDY)])
        token_ids.append(chosen.token_id)
        engine.forward([Step(session, token_ids[-1:])])
    session.close()
    return token_ids


def exact(kernels: str) -> bool:
    """Whether the table keeps activations in float32 for bfloat16 weights."""
    return kernels not in ROUNDING_TABLES


@pytest.mark.parametrize("kernels", TABLES)
@pytest.mark.parametrize("folder", ["stories260K-hf", "stories260K-hf-sharded", "stories260K-hf-f16"])
def test_a_trained_model_gives_the_golden_tokens(
    shared_data: Path, golden: dict[str, Any], folder: str, kernels: str
) -> None:
    engine = load(shared_data / "weights" / folder, kernels)
    expected = golden["bos_only_200_new_tokens"]
    assert greedy(engine, [1], len(expected) - 1) == expected


@pytest.mark.parametrize("packed", [False, True], ids=["stored", "packed"])
@pytest.mark.parametrize("kernels", [name for name in TABLES if exact(name)])
def test_a_bfloat16_model_gives_its_golden_tokens(
    shared_data: Path, golden: dict[str, Any], kernels: str, packed: bool
) -> None:
    expected = golden["greedy200_f32_from_rounded_weights"]["stories260K-hf-bf16"]
    model = open_model(shared_data / "weights/stories260K-hf-bf16")
    small = None
    if packed:
        small = pack_weights(model.weights, "packed", folder=None, fingerprint="", kernels=kernels, threads=2)
        assert small.note == ""
    engine = native.load(model.spec, model.weights, kernels=kernels, threads=2, packed=small)
    assert greedy(engine, [1], len(expected) - 1) == expected


@pytest.mark.parametrize("kernels", TABLES)
def test_the_logits_of_a_trained_model_are_the_golden_ones(
    shared_data: Path, golden: dict[str, Any], kernels: str
) -> None:
    engine = load(shared_data / "weights/stories260K-hf", kernels)
    engine.forward([Step(engine.new_session(512), golden["prompt_ids"])])
    np.testing.assert_allclose(engine.logits()[0], golden["logits_once_upon_last"], atol=1e-4)


@pytest.mark.parametrize("kernels", TABLES)
def test_rounded_activations_stay_within_bfloat16(shared_data: Path, kernels: str) -> None:
    """Against the same weights with float32 activations: 8 bits of mantissa, over five layers."""
    folder = shared_data / "weights/stories260K-hf-bf16"
    rows = []
    for table in (kernels, "generic"):
        engine = load(folder, table)
        engine.forward([Step(engine.new_session(512), [1, 403, 407, 261, 378], n_logits=5)])
        rows.append(engine.logits().copy())
    tolerance = 2e-3 if exact(kernels) else 0.15
    np.testing.assert_allclose(rows[0], rows[1], atol=tolerance)


SPEC = small_spec()
WEIGHTS = random_weights(SPEC)


@pytest.fixture
def engine() -> Engine:
    return native.load(SPEC, WEIGHTS, threads=2, shared_work=0)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of threads")
def test_the_threads_of_an_idle_engine_sleep() -> None:
    engine = native.load(SPEC, WEIGHTS, threads=5, shared_work=0)
    engine.forward([Step(engine.new_session(10), [1, 2, 3])])
    deadline = time.monotonic() + 30
    while (awake := _threads_awake()) and time.monotonic() < deadline:
        os.sched_yield()
    assert not awake
    engine.close()


def _threads_awake() -> list[str]:
    """Threads of this process that run, or would if they had a processor, but for the one that asks."""
    states = {
        task.name: (task / "stat").read_text().rpartition(")")[2].split()[0]
        for task in Path("/proc/self/task").iterdir()
    }
    return [name for name, state in states.items() if state == "R" and int(name) != threading.get_native_id()]


def test_a_failed_forward_changes_nothing(engine: Engine) -> None:
    session = engine.new_session(10)
    engine.forward([Step(session, [1, 2, 3])])
    before = engine.kv_pool
    for bad in ([], [SPEC.vocab_size], [-1], [2**40]):
        with pytest.raises(InvalidParameter):
            engine.forward([Step(session, [5]), Step(engine.new_session(5), bad)])
    with pytest.raises(ContextFull):
        engine.forward([Step(session, list(range(8)))])
    with pytest.raises(InvalidParameter, match="once in a batch"):
        engine.forward([Step(session, [5]), Step(session, [6])])
    assert session.position == 3
    assert engine.kv_pool == before


def test_a_full_pool_refuses_the_batch_and_keeps_the_sessions() -> None:
    block = native.kv_block_bytes(SPEC, WEIGHTS)
    engine = native.load(SPEC, WEIGHTS, kv_bytes=2 * block)
    session, other = engine.new_session(512), engine.new_session(512)
    engine.forward([Step(session, [1] * 64)])
    with pytest.raises(OutOfMemory, match="KV cache"):
        engine.forward([Step(session, [1]), Step(other, [1])])
    assert (session.position, other.position) == (64, 0)
    engine.forward([Step(session, [1])])
    assert engine.kv_pool.n_free == 0
    session.close()
    assert engine.kv_pool.n_free == 2


def test_a_cache_smaller_than_a_block_is_refused() -> None:
    with pytest.raises(OutOfMemory):
        native.load(SPEC, WEIGHTS, kv_bytes=native.kv_block_bytes(SPEC, WEIGHTS) - 1)


def test_positions_outside_a_session_are_refused(engine: Engine) -> None:
    session = engine.new_session(8)
    engine.forward([Step(session, [1, 2])])
    for position in (-1, 3):
        with pytest.raises(InvalidParameter):
            session.rewind(position)
        with pytest.raises(InvalidParameter):
            session.fork(position)


def test_a_context_outside_the_model_is_refused(engine: Engine) -> None:
    for context in (0, SPEC.max_context + 1):
        with pytest.raises(InvalidParameter, match="context"):
            engine.new_session(context)


@pytest.mark.parametrize(("argument", "value"), [("threads", 0), ("threads", 10**6), ("kernels", "sse9000")])
def test_unknown_choices_are_refused(argument: str, value: Any) -> None:
    with pytest.raises(InvalidParameter, match=argument):
        native.load(SPEC, WEIGHTS, **{argument: value})


def test_a_closed_engine_says_so(engine: Engine) -> None:
    session = engine.new_session(8)
    engine.close()
    engine.close()
    with pytest.raises(InvalidParameter, match="closed"):
        engine.forward([Step(session, [1])])
    session.close()


def test_inner_chunks_cost_no_logits(engine: Engine) -> None:
    session = engine.new_session(300)
    assert engine.forward([Step(session, [3] * 200, n_logits=0)]) == 0
    assert engine.logits().shape == (0, SPEC.vocab_size)
    assert engine.forward([Step(session, [3] * 20, n_logits=2)]) == 2


def test_weights_that_are_not_numbers_are_an_error_and_no_text() -> None:
    weights = random_weights(SPEC)
    down = weights.layers[1]["down"]
    spoiled = down.array.copy()
    spoiled[0, 0] = np.nan
    weights.layers[1]["down"] = tensor_of("down", "F32", spoiled)  # type: ignore[index]
    engine = native.load(SPEC, weights)
    engine.forward([Step(engine.new_session(8), [1])])
    with pytest.raises(NumericError):
        engine.sample([Draw(row=0, position=1, params=GREEDY)])


def test_the_core_checks_shapes_itself() -> None:
    """Whatever Python passes, sizes that do not fit are an error and not a crash."""
    weights = random_weights(SPEC)
    for slot in ("q", "k", "v", "o", "gate", "up", "down", "attn_norm"):
        wrong = random_weights(small_spec(hidden_size=SPEC.hidden_size + 1))
        layers = ({**weights.layers[0], slot: wrong.layers[0][slot]}, weights.layers[1])
        with pytest.raises(ValueError, match=slot):
            native.load(SPEC, type(weights)(outer=weights.outer, layers=layers))


_PEAK = """
import resource, sys
from influence.engines import native
from influence.engines.base import Step
from support.random_specs import Extras, random_weights, small_spec

spec = small_spec(vocab_size=512, hidden_size=1024, intermediate_size=4096, n_layers=8, n_heads=16,
                  n_kv_heads=4, head_dim=64, max_context=4096)
weights = random_weights(spec, Extras(dtype="BF16"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
engine = native.load(spec, weights, threads=2)
session = engine.new_session(200)
engine.forward([Step(session, [1] * 200)])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kv = (session.position // 64 + 1) * native.kv_block_bytes(spec, weights)
print((after - before) * 1024 - kv)
"""


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="sanitizers take memory of their own")
def test_the_model_is_never_copied() -> None:
    """Loading and a long prompt cost activations and KV only: here 150 MB of weights would show."""
    tests = Path(__file__).resolve().parent.parent
    environment = {"PYTHONPATH": f"{tests}:{tests.parent / 'src'}", "PATH": "/usr/bin:/bin"}
    out = subprocess.run(
        [sys.executable, "-c", _PEAK], env=environment, capture_output=True, text=True, check=True
    )
    assert int(out.stdout) < 110e6


def odd_models() -> list[tuple[ModelSpec, Extras]]:
    return [
        (small_spec(n_heads=34, n_kv_heads=2), Extras()),
        (small_spec(n_kv_heads=4), Extras(grouped_qkv=True, dtype="F16")),
        (small_spec(hidden_size=1, intermediate_size=1), Extras(tied=True)),
    ]


@pytest.mark.parametrize(("spec", "extras"), odd_models())
def test_one_long_step_equals_many_short_ones(spec: ModelSpec, extras: Extras) -> None:
    """More tokens than one pass holds (512), against one at a time."""
    engine = native.load(spec, random_weights(spec, extras), threads=2, kv_bytes=1 << 24, shared_work=0)
    token_ids = [i % spec.vocab_size for i in range(512)]
    session, other = engine.new_session(512), engine.new_session(512)
    engine.forward([Step(other, token_ids[:200], 0), Step(session, token_ids, n_logits=512)])
    rows = engine.logits().copy()
    for i in range(200, 512):
        engine.forward([Step(other, token_ids[i : i + 1])])
        np.testing.assert_array_equal(engine.logits()[0], rows[i])


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((3, 4), (4, 1)),
        ((2, 4), (5, 1)),
        ((1, 4), (99, 1)),
        ((2, 2, 2), (4, 2, 1)),
        ((9,), (1,)),
        ((3, 1), (4, 9)),
    ],
)
def test_weights_that_lie_within_their_memory_are_taken(
    shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    _native.Stored(bytes(4 * 12), "F32", shape, strides)


@pytest.mark.parametrize(
    ("shape", "strides", "why"),
    [
        ((4, 4), (4, 1), "beyond"),
        ((2, 4), (9, 1), "beyond"),
        ((2, 4), (2**62, 1), "beyond"),
        ((2**31, 1), (2**40, 1), "beyond"),
        ((0, 4), (4, 1), "empty"),
        ((2, 2), (-2, 1), "negative"),
        ((2, 2), (1, 2), "contiguous"),
        ((), (), "dimensions"),
    ],
)
def test_weights_that_do_not_are_refused(shape: tuple[int, ...], strides: tuple[int, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        _native.Stored(bytes(4 * 12), "F32", shape, strides)
