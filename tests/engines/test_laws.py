"""The laws of the engine boundary: how tokens get in changes no logit.

The native engine keeps them to the bit, the reference and torch within rounding.
Hypothesis writes a small program of chunks, forks, rewinds and company, and the
logits are compared with those of every prompt run alone in one step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from influence.engines import native
from influence.engines.base import Engine, Session, Step
from influence.engines.packing import PackedFormat, pack_weights
from influence.engines.reference import ReferenceEngine
from influence.errors import ContextFull, InvalidParameter, OutOfMemory
from influence.models.binding import Weights
from influence.models.spec import ModelSpec, Rope
from support import torch_engines
from support.random_specs import Extras, extras, random_weights, small_spec, specs

LAW = settings(max_examples=25, deadline=None, derandomize=True)
KV_BYTES = 8 << 20  # holds every timeline that a program of check_forks can open, each in blocks of its own
Maker = Callable[[ModelSpec, Weights], Engine]


def _native(kernels: str, threads: int) -> Maker:
    return lambda spec, weights: native.load(
        spec, weights, kernels=kernels, threads=threads, kv_bytes=KV_BYTES, shared_work=0
    )


def _small_cache(kernels: str) -> Maker:
    return lambda spec, weights: native.load(
        spec, weights, kernels=kernels, threads=2, kv_bytes=KV_BYTES, kv_type="q8", shared_work=0
    )


def _packed(kernels: str, form: PackedFormat) -> Maker:
    def load(spec: ModelSpec, weights: Weights) -> Engine:
        small = pack_weights(weights, form, folder=None, fingerprint="", kernels=kernels, threads=1)
        return native.load(
            spec, weights, kernels=kernels, threads=2, packed=small, kv_bytes=KV_BYTES, shared_work=0
        )

    return load


FORMATS: tuple[PackedFormat, ...] = ("packed", "q8", "q4")
ENGINES: dict[str, Maker] = {name: _native(name, 2) for name in native.kernel_names()}
ENGINES |= {f"{name}-{form}": _packed(name, form) for name in native.kernel_names() for form in FORMATS}
ENGINES |= {f"{name}-kv-q8": _small_cache(name) for name in native.kernel_names()}
ENGINES["reference"] = lambda spec, weights: ReferenceEngine(spec, weights)
ENGINES |= torch_engines.makers()
ROUNDING = ("reference", *torch_engines.NAMES)  # engines that sum in another order from case to case

# One model with everything that depends on positions: a window shorter than the
# prompts, a layer without rope, two heads a group, blocks (64) crossed.
SPEC = small_spec(
    n_layers=3,
    ropes=(Rope(1e4, 8), Rope(1e2, 4)),
    layer_rope=(0, None, 1),
    layer_window=(None, 70, 5),
    attention_softcap=20.0,
)
WEIGHTS = random_weights(SPEC, Extras(biases=True))
BF16_WEIGHTS = random_weights(SPEC, Extras(biases=True, dtype="BF16"))


def assert_same(engine_name: str, actual: np.ndarray, expected: np.ndarray) -> None:
    if engine_name in ROUNDING:
        np.testing.assert_allclose(actual, expected, atol=2e-5)
    else:
        np.testing.assert_array_equal(actual, expected)


def whole(engine: Engine, token_ids: list[int]) -> np.ndarray:
    """Logits of every position, the prompt alone and in one step."""
    session = engine.new_session(512)
    engine.forward([Step(session, token_ids, n_logits=len(token_ids))])
    rows = engine.logits().copy()
    session.close()
    return rows


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


_LOADED: dict[str, Engine] = {}


def engine_of(name: str) -> Engine:
    if name not in _LOADED:
        _LOADED[name] = ENGINES[name](SPEC, BF16_WEIGHTS if name.endswith("-packed") else WEIGHTS)
    return _LOADED[name]


def tokens(n: int, seed: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, SPEC.vocab_size, n)]


# At the borders of tiles, of arranged groups and of blocks; hypothesis' own lists hardly ever fill a block.
LENGTHS = (1, 2, 3, 7, 15, 16, 17, 40, 63, 64, 65, 70, 100, 127, 128, 129, 150)


def prompts(max_size: int) -> st.SearchStrategy[list[int]]:
    return st.builds(tokens, st.sampled_from([n for n in LENGTHS if n <= max_size]), st.integers(0, 99))


@given(token_ids=prompts(150), cuts=st.lists(st.integers(1, 80), max_size=8))
@LAW
def check_chunks(name: str, token_ids: list[int], cuts: list[int]) -> None:
    engine = engine_of(name)
    expected = whole(engine, token_ids)
    session, rows, rest = engine.new_session(512), [], list(token_ids)
    while rest:
        n = cuts.pop() if cuts else len(rest)
        chunk, rest = rest[:n], rest[n:]
        engine.forward([Step(session, chunk, n_logits=len(chunk))])
        rows.append(engine.logits().copy())
    session.close()
    assert_same(name, np.concatenate(rows), expected)


def test_chunked_prefill_gives_the_same_logits(engine_name: str) -> None:
    check_chunks(engine_name)


@given(all_ids=st.lists(prompts(150), min_size=2, max_size=5))
@LAW
def check_company(name: str, all_ids: list[list[int]]) -> None:
    engine = engine_of(name)
    expected = np.concatenate([whole(engine, ids) for ids in all_ids])
    sessions = [engine.new_session(512) for _ in all_ids]
    n_rows = engine.forward([Step(s, ids, len(ids)) for s, ids in zip(sessions, all_ids, strict=True)])
    assert n_rows == sum(map(len, all_ids))
    assert_same(name, engine.logits(), expected)
    for session in sessions:
        session.close()


def test_company_in_a_batch_changes_no_logit(engine_name: str) -> None:
    check_company(engine_name)


@dataclass
class Timeline:
    session: Session
    token_ids: list[int] = field(default_factory=list)


actions = st.lists(
    st.tuples(
        st.sampled_from(["extend", "fork", "rewind"]),
        st.integers(0, 9),
        st.floats(0, 1),
        prompts(70),
    ),
    max_size=12,
)


def _play(
    engine: Engine, timelines: list[Timeline], program: list[tuple[str, int, float, list[int]]]
) -> None:
    for action, which, fraction, token_ids in program:
        timeline = timelines[which % len(timelines)]
        position = round(fraction * timeline.session.position)
        if action == "fork":
            timelines.append(Timeline(timeline.session.fork(position), timeline.token_ids[:position]))
        elif action == "rewind":
            timeline.session.rewind(position)
            del timeline.token_ids[position:]
        elif timeline.session.position + len(token_ids) < 500:
            engine.forward([Step(timeline.session, token_ids)])
            timeline.token_ids += token_ids


@given(program=actions)
@example(program=[("extend", 0, 1.0, [1]), *[("fork", 0, 1.0, [1])] * 11])  # the most blocks at once
@LAW
def check_forks(name: str, program: list[tuple[str, int, float, list[int]]]) -> None:
    engine = engine_of(name)
    free_before = engine.kv_pool.n_free
    timelines = [Timeline(engine.new_session(512))]
    _play(engine, timelines, program)
    steps = [Step(timeline.session, [7]) for timeline in timelines]
    engine.forward(steps)
    rows = engine.logits().copy()
    for row, timeline in zip(rows, timelines, strict=True):
        assert_same(name, row, whole(engine, [*timeline.token_ids, 7])[-1])
        timeline.session.close()
    assert engine.kv_pool.n_free == free_before


def test_forks_and_rewinds_change_no_logit_and_give_all_blocks_back(engine_name: str) -> None:
    check_forks(engine_name)


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_blocks_that_were_read_out_go_on_as_if_their_tokens_had_been_run(
    engine_name: str, n_blocks: int
) -> None:
    engine = engine_of(engine_name)
    free_before = engine.kv_pool.n_free
    token_ids = tokens(150, seed=2)
    first = engine.new_session(512)
    engine.forward([Step(first, token_ids, n_logits=0)])
    blocks = first.read_blocks(0, n_blocks)
    assert blocks.shape == (n_blocks, engine.kv_pool.block_bytes)
    np.testing.assert_array_equal(first.read_blocks(n_blocks - 1, 1), blocks[-1:])
    first.close()

    other = engine.new_session(512)
    other.append_blocks(blocks[:1])
    other.append_blocks(blocks[1:])
    begin = n_blocks * engine.kv_pool.block_size
    assert other.position == begin
    engine.forward([Step(other, token_ids[begin:], n_logits=1)])
    logits = engine.logits()[0].copy()
    assert_same(engine_name, logits, whole(engine, token_ids)[-1])
    other.close()
    assert engine.kv_pool.n_free == free_before


def test_blocks_that_are_not_filled_or_do_not_fit_are_refused(engine_name: str) -> None:
    engine = engine_of(engine_name)
    session, small = engine.new_session(512), engine.new_session(100)
    engine.forward([Step(session, [1] * 130, n_logits=0)])
    for first, n in ((0, 3), (2, 1), (-1, 1), (0, -1), (1 << 40, 1), (1, 1 << 60)):
        with pytest.raises(InvalidParameter):
            session.read_blocks(first, n)
    blocks = session.read_blocks(0, 2)
    with pytest.raises(ContextFull):
        small.append_blocks(blocks)
    with pytest.raises(InvalidParameter):
        small.append_blocks(blocks[:1, 1:].copy())
    with pytest.raises(InvalidParameter):
        session.append_blocks(blocks[:1])  # not at a block's beginning
    assert (small.position, session.position) == (0, 130)
    sessions = []
    with pytest.raises(OutOfMemory):
        for _ in range(engine.kv_pool.n_blocks):
            sessions.append(engine.new_session(512))
            sessions[-1].append_blocks(blocks)
    assert sessions[-1].position == 0
    for one in sessions:
        one.close()
    session.close()
    small.close()


@pytest.mark.parametrize("kernels", native.kernel_names())
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_the_number_of_threads_changes_no_bit(kernels: str, dtype: str) -> None:
    weights = random_weights(SPEC, Extras(biases=True, dtype=dtype))  # type: ignore[arg-type]
    token_ids = tokens(500, seed=1)
    rows = []
    for threads in (1, 2, 3, 5):
        engine = native.load(SPEC, weights, kernels=kernels, threads=threads, shared_work=0)
        rows.append(whole(engine, token_ids))
        engine.close()
    for other in rows[1:]:
        np.testing.assert_array_equal(other, rows[0])


@pytest.mark.parametrize("kernels", native.kernel_names())
def test_packed_bfloat16_gives_the_logits_of_the_stored_bit_for_bit(kernels: str) -> None:
    """Any spec, widths of one token to a prompt, any number of threads."""

    @given(spec=specs(), n_tokens=st.integers(1, 90), threads=st.integers(1, 3), seed=st.integers(0, 99))
    @settings(max_examples=40, deadline=None, derandomize=True)
    def check(spec: ModelSpec, n_tokens: int, threads: int, seed: int) -> None:
        weights = random_weights(spec, Extras(biases=True, dtype="BF16"), seed)
        token_ids = [int(i) for i in np.random.default_rng(seed).integers(0, spec.vocab_size, n_tokens)]
        small = pack_weights(weights, "packed", folder=None, fingerprint="", kernels=kernels, threads=1)
        rows = []
        for packed, n_threads in ((None, 2), (small, threads)):
            engine = native.load(spec, weights, kernels=kernels, threads=n_threads, packed=packed)
            rows.append(whole(engine, token_ids))
            engine.close()
        assert rows[0].tobytes() == rows[1].tobytes()

    check()


COMPARED: dict[str, Maker] = {f"native-{name}": _native(name, 2) for name in native.kernel_names()}
COMPARED |= torch_engines.makers()


@pytest.mark.parametrize("name", COMPARED)
def test_an_engine_agrees_with_the_reference_on_any_spec(name: str) -> None:
    @given(spec=specs(), tensors=extras(), n_tokens=st.integers(1, 90), seed=st.integers(0, 99))
    @settings(max_examples=60, deadline=None, derandomize=True)
    def check(spec: ModelSpec, tensors: Extras, n_tokens: int, seed: int) -> None:
        assume(torch_engines.can_run(name, spec))
        weights = random_weights(spec, tensors, seed)
        token_ids = [int(i) for i in np.random.default_rng(seed).integers(0, spec.vocab_size, n_tokens)]
        expected = whole(ReferenceEngine(spec, weights, dtype=np.float64), token_ids)
        engine = COMPARED[name](spec, weights)
        actual = whole(engine, token_ids)
        engine.close()
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(actual, expected, atol=2e-4 * scale)

    check()
