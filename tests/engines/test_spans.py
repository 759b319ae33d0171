"""Attention far from the beginning: positions are shared out to threads in spans of 512."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from influence.engines import native
from influence.engines.base import Step
from influence.engines.reference import ReferenceEngine
from influence.models.spec import ModelSpec, Rope
from support.random_specs import Extras, random_weights, small_spec

Logits = npt.NDArray[np.float32]

# Three heads a group; a window within a span, one that reaches over two borders, one layer without any.
SPEC = small_spec(
    n_layers=3,
    n_heads=6,
    n_kv_heads=2,
    max_context=2048,
    ropes=(Rope(1e4, 8),),
    layer_rope=(0, 0, 0),
    layer_window=(None, 70, 900),
)
WEIGHTS = random_weights(SPEC, Extras())
TOKEN_IDS = [int(i) for i in np.random.default_rng(3).integers(0, SPEC.vocab_size, 1300)]
# A span's last position, its first, and others within.
ENDS = [511, 512, 513, 700, 1023, 1024, 1025, 1299]

each_table = pytest.mark.parametrize("kernels", native.kernel_names())
each_cache = pytest.mark.parametrize("kv_type", ["f32", "f16", "q8"])


def in_one_step(engine: native.NativeEngine) -> Logits:
    """Logits of the positions ENDS."""
    session = engine.new_session(2048)
    engine.forward([Step(session, TOKEN_IDS, n_logits=len(TOKEN_IDS))])
    rows = engine.logits()[ENDS].copy()
    session.close()
    return rows


def one_by_one(engine: native.NativeEngine) -> Logits:
    """The same, each decoded alone after everything before it."""
    session, rows = engine.new_session(2048), []
    for end in ENDS:
        if session.position < end:
            engine.forward([Step(session, TOKEN_IDS[session.position : end], n_logits=0)])
        engine.forward([Step(session, [TOKEN_IDS[end]])])
        rows.append(engine.logits()[0].copy())
    session.close()
    return np.stack(rows)


def together(engine: native.NativeEngine) -> Logits:
    """The same, decoded in one batch of sessions that lie far apart: forks of one."""
    whole = engine.new_session(2048)
    engine.forward([Step(whole, TOKEN_IDS, n_logits=0)])
    sessions = [whole.fork(end) for end in ENDS]
    engine.forward([Step(s, [TOKEN_IDS[end]]) for s, end in zip(sessions, ENDS, strict=True)])
    rows = engine.logits().copy()
    for session in (whole, *sessions):
        session.close()
    return rows


@each_table
@each_cache
def test_however_spans_are_shared_out_no_bit_changes(kernels: str, kv_type: native.KvType) -> None:
    expected = None
    for threads in (1, 2, 5):
        engine = native.load(
            SPEC,
            WEIGHTS,
            kernels=kernels,
            threads=threads,
            kv_type=kv_type,
            kv_bytes=1 << 26,
            shared_work=0,
        )
        for run in (in_one_step, one_by_one, together):
            rows = run(engine)
            expected = rows if expected is None else expected
            np.testing.assert_array_equal(rows, expected, err_msg=f"{threads} threads, {run.__name__}")
        engine.close()


@pytest.fixture(scope="module")
def expected() -> npt.NDArray[np.float64]:
    """Logits of the positions ENDS, by the reference."""
    reference = ReferenceEngine(SPEC, WEIGHTS, dtype=np.float64)
    session = reference.new_session(2048)
    reference.forward([Step(session, TOKEN_IDS, n_logits=len(TOKEN_IDS))])
    return reference.logits()[ENDS]


@each_table
def test_logits_far_from_the_beginning_agree_with_the_reference(
    kernels: str, expected: npt.NDArray[np.float64]
) -> None:
    engine = native.load(SPEC, WEIGHTS, kernels=kernels, threads=2, shared_work=0)
    np.testing.assert_allclose(one_by_one(engine), expected, atol=2e-4)
    engine.close()


def test_more_heads_to_a_group_than_one_call_takes_are_cut() -> None:
    wide: ModelSpec = small_spec(n_heads=20, n_kv_heads=1, max_context=2048)
    weights = random_weights(wide, Extras())
    one, two = (native.load(wide, weights, threads=n, shared_work=0) for n in (1, 2))
    for engine in (one, two):
        session = engine.new_session(2048)
        engine.forward([Step(session, TOKEN_IDS[:600], n_logits=0)])
        engine.forward([Step(session, [7])])
    np.testing.assert_array_equal(one.logits(), two.logits())
