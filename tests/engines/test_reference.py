"""The reference engine: answers that can be read off, and the boundary kept to the letter."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from influence.engines.base import Step
from influence.engines.reference import ACTIVATIONS, ReferenceEngine, rotate, softcap
from influence.engines.sampling import Draw, SamplingParams
from influence.errors import ContextFull, InvalidParameter, NumericError, OutOfMemory
from influence.models.binding import Weights
from influence.models.model import open_model
from influence.models.spec import ModelSpec, Rope, RopeScaling
from support.random_specs import random_weights, small_spec
from support.tensors import tensor_of

Rows = npt.NDArray[np.float32]
GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture
def engine() -> ReferenceEngine:
    spec = small_spec()
    return ReferenceEngine(spec, random_weights(spec), kv_blocks=4)


def whole(engine: ReferenceEngine, token_ids: list[int], context: int = 512) -> Rows:
    session = engine.new_session(context)
    engine.forward([Step(session, token_ids, n_logits=len(token_ids))])
    session.close()
    return engine.logits()


# --- answers that can be read off

SIZE = 4  # of the vocabulary, the hidden state and the only head
ONE_HOT = np.eye(SIZE, dtype=np.float32)


def glass_model(*, scale: float, window: int | None = None, v: Rows = ONE_HOT) -> tuple[ModelSpec, Weights]:
    """One layer without norms, rope or MLP: x = e_token, plus what attention reads of `v @ e` of the others."""
    spec = small_spec(
        vocab_size=SIZE,
        hidden_size=SIZE,
        n_layers=1,
        n_heads=1,
        n_kv_heads=1,
        head_dim=SIZE,
        intermediate_size=1,
        gated_mlp=False,
        ropes=(),
        layer_rope=(None,),
        layer_window=(window,),
        attention_scale=scale,
    )
    arrays = {"q": ONE_HOT, "k": ONE_HOT, "v": v, "o": ONE_HOT}
    arrays |= {"up": np.zeros((1, SIZE), np.float32), "down": np.zeros((SIZE, 1), np.float32)}
    layer = {slot: tensor_of(slot, "F32", array) for slot, array in arrays.items()}
    outer = {
        "embed": tensor_of("embed", "F32", ONE_HOT),
        "final_norm": tensor_of("norm", "F32", np.ones(SIZE, np.float32)),
    }
    return spec, Weights(outer, (layer,))


def seen(spec: ModelSpec, weights: Weights, token_ids: list[int]) -> Rows:
    """The direction of the last hidden state; its length is lost in the final norm."""
    row = whole(ReferenceEngine(spec, weights), token_ids)[-1]
    return row / np.linalg.norm(row)


def direction(*hidden: float) -> Rows:
    vector = np.array(hidden, np.float32)
    return vector / np.linalg.norm(vector)


def test_attention_without_a_scale_is_the_mean_of_all_positions() -> None:
    # x = e3 + (e0 + e1 + e2 + e3) / 4
    found = seen(*glass_model(scale=0.0), [0, 1, 2, 3])
    np.testing.assert_allclose(found, direction(0.25, 0.25, 0.25, 1.25), atol=1e-6)


def test_a_window_of_two_sees_the_position_and_the_one_before() -> None:
    found = seen(*glass_model(scale=0.0, window=2), [0, 1, 2, 3])
    np.testing.assert_allclose(found, direction(0, 0, 0.5, 1.5), atol=1e-6)


def test_a_sharp_query_reads_the_one_key_that_it_matches() -> None:
    # Every token's value is the next token's one-hot; the query 2 finds the key 2 and reads a 3.
    following = np.roll(ONE_HOT, 1, axis=0)
    found = seen(*glass_model(scale=1e4, v=following), [0, 1, 2])
    np.testing.assert_allclose(found, direction(0, 0, 1, 1), atol=1e-6)


def test_no_position_sees_a_later_one() -> None:
    spec, weights = glass_model(scale=0.0)
    first = whole(ReferenceEngine(spec, weights), [0, 1, 2, 3])[0]
    np.testing.assert_array_equal(first, whole(ReferenceEngine(spec, weights), [0])[0])


def test_a_quarter_turn_moves_the_first_of_a_pair_to_the_second() -> None:
    head = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
    cos, sin = np.zeros((1, 2)), np.ones((1, 2))
    np.testing.assert_array_equal(rotate(head, cos, sin, False)[0, 0], [-3, -4, 1, 2, 5])
    np.testing.assert_array_equal(rotate(head, cos, sin, True)[0, 0], [-2, 1, -4, 3, 5])


def test_a_softcap_bends_only_what_is_large() -> None:
    x = np.array([-1e9, -0.001, 0.0, 0.001, 1e9])
    np.testing.assert_allclose(softcap(x, 30.0), [-30, -0.001, 0, 0.001, 30], atol=1e-9)
    assert softcap(x, None) is x


def test_activations_at_points_that_are_known() -> None:
    known = {
        "silu": {0.0: 0.0, 1.0: 1 / (1 + math.exp(-1)), -1e4: 0.0, 1e4: 1e4},
        "gelu": {0.0: 0.0, 1.0: 0.8413447460685429, -1.0: -0.15865525393145707, 50.0: 50.0},
        "gelu_tanh": {0.0: 0.0, 1.0: 0.8411919906082768, 50.0: 50.0},
        "relu": {-2.0: 0.0, 3.0: 3.0},
        "relu_squared": {-2.0: 0.0, 3.0: 9.0},
    }
    assert set(known) == set(ACTIVATIONS)
    for name, points in known.items():
        for x, y in points.items():
            assert ACTIVATIONS[name](np.array([x]))[0] == pytest.approx(y, abs=1e-12)  # type: ignore[index]


# --- real weights


def test_a_trained_model_gives_the_golden_tokens_and_logits(shared_data: Path) -> None:
    golden = json.loads((shared_data / "weights/stories260K-golden.json").read_text())
    model = open_model(shared_data / "weights/stories260K-hf")
    engine = ReferenceEngine(model.spec, model.weights, dtype=np.float64)
    last = whole(engine, golden["prompt_ids"])[-1]
    np.testing.assert_allclose(last, golden["logits_once_upon_last"], atol=2e-6)

    session = engine.new_session(model.spec.max_context)
    token_ids = golden["bos_only_200_new_tokens"][:1]
    while len(token_ids) < len(golden["bos_only_200_new_tokens"]):
        engine.forward([Step(session, token_ids[-1:])])
        [chosen] = engine.sample([Draw(0, session.position, GREEDY)])
        token_ids.append(chosen.token_id)
    assert token_ids == golden["bos_only_200_new_tokens"]


def test_float64_agrees_with_float32_and_keeps_its_digits() -> None:
    spec = small_spec(norm="layer", activation="gelu", qk_norm="head", logit_softcap=5.0)
    weights = random_weights(spec)
    single, double = ReferenceEngine(spec, weights), ReferenceEngine(spec, weights, dtype=np.float64)
    np.testing.assert_allclose(whole(single, [1, 2, 3]), whole(double, [1, 2, 3]), atol=1e-5)
    assert single.exact_logits.dtype == np.float32
    assert double.exact_logits.dtype == np.float64
    assert np.any(double.exact_logits != double.logits())


# --- ropes that depend on the context


def test_the_context_promised_fixes_the_rope_not_the_length_reached() -> None:
    scaling = RopeScaling("dynamic", factor=4.0, original_max_context=16)
    spec = small_spec(max_context=64, ropes=(Rope(1e4, 8, scaling=scaling),))
    engine = ReferenceEngine(spec, random_weights(spec))
    token_ids = list(range(12))
    short, long = whole(engine, token_ids, context=16), whole(engine, token_ids, context=64)
    assert np.abs(short - long).max() > 1e-3
    session = engine.new_session(64)
    for token_id, row in zip(token_ids, long, strict=True):
        engine.forward([Step(session, [token_id])])
        np.testing.assert_allclose(engine.logits()[0], row, atol=1e-5)


# --- the pool


def test_blocks_are_taken_as_positions_need_them_and_given_back(engine: ReferenceEngine) -> None:
    session = engine.new_session(256)
    assert engine.kv_pool.n_free == 4
    engine.forward([Step(session, [1] * 64)])
    assert engine.kv_pool.n_free == 3
    engine.forward([Step(session, [1])])
    assert engine.kv_pool.n_free == 2
    session.rewind(64)
    assert (engine.kv_pool.n_free, session.position) == (3, 64)
    session.rewind(0)
    assert engine.kv_pool.n_free == 4
    engine.forward([Step(session, [1] * 130)])
    session.close()
    session.close()
    assert engine.kv_pool.n_free == 4


def test_a_fork_shares_blocks_and_copies_the_one_that_it_writes(engine: ReferenceEngine) -> None:
    session = engine.new_session(256)
    engine.forward([Step(session, [1] * 100)])
    fork = session.fork(70)
    whole_blocks_only = session.fork(64)
    assert engine.kv_pool.n_free == 2
    engine.forward([Step(fork, [2])])
    assert engine.kv_pool.n_free == 1  # its own copy of the second block
    engine.forward([Step(session, [3])])
    assert engine.kv_pool.n_free == 1  # nobody else holds that block any more
    for each in (session, fork, whole_blocks_only):
        each.close()
    assert engine.kv_pool.n_free == 4


def test_a_fork_and_its_parent_do_not_see_each_other(engine: ReferenceEngine) -> None:
    session = engine.new_session(256)
    engine.forward([Step(session, [1, 2, 3])])
    fork = session.fork(2)
    engine.forward([Step(session, [4]), Step(fork, [5])])
    rows = engine.logits()
    np.testing.assert_allclose(rows[0], whole(engine, [1, 2, 3, 4])[-1], atol=1e-5)
    np.testing.assert_allclose(rows[1], whole(engine, [1, 2, 5])[-1], atol=1e-5)


def test_a_batch_that_does_not_fit_changes_nothing(engine: ReferenceEngine) -> None:
    first, second = engine.new_session(256), engine.new_session(256)
    engine.forward([Step(first, [1] * 128)])
    with pytest.raises(OutOfMemory, match="KV cache"):
        engine.forward([Step(first, [1]), Step(second, [1] * 128)])
    assert (first.position, second.position, engine.kv_pool.n_free) == (128, 0, 2)


# --- what is refused


def test_steps_that_make_no_sense_are_refused(engine: ReferenceEngine) -> None:
    session = engine.new_session(8)
    foreign = ReferenceEngine(engine.spec, random_weights(engine.spec)).new_session(8)
    for steps in (
        [Step(session, [])],
        [Step(session, [-1])],
        [Step(session, [engine.spec.vocab_size])],
        [Step(session, [1], n_logits=2)],
        [Step(session, [1], n_logits=-1)],
        [Step(session, [1]), Step(session, [2])],
        [Step(foreign, [1])],
    ):
        with pytest.raises(InvalidParameter):
            engine.forward(steps)
    assert session.position == 0


def test_a_context_is_kept(engine: ReferenceEngine) -> None:
    session = engine.new_session(3)
    engine.forward([Step(session, [1, 2])])
    with pytest.raises(ContextFull):
        engine.forward([Step(session, [3, 4])])
    engine.forward([Step(session, [3])])
    assert session.position == 3
    for context in (0, -1, engine.spec.max_context + 1):
        with pytest.raises(InvalidParameter, match="context"):
            engine.new_session(context)


def test_positions_outside_and_closed_sessions_are_refused(engine: ReferenceEngine) -> None:
    session = engine.new_session(8)
    engine.forward([Step(session, [1, 2])])
    for position in (-1, 3):
        with pytest.raises(InvalidParameter, match="position"):
            session.rewind(position)
        with pytest.raises(InvalidParameter, match="position"):
            session.fork(position)
    session.close()
    with pytest.raises(InvalidParameter, match="session"):
        engine.forward([Step(session, [1])])
    with pytest.raises(InvalidParameter, match="session"):
        session.fork(0)


def test_inner_chunks_give_no_rows(engine: ReferenceEngine) -> None:
    session, other = engine.new_session(16), engine.new_session(16)
    assert engine.forward([Step(session, [1, 2, 3], n_logits=0)]) == 0
    assert engine.logits().shape == (0, engine.spec.vocab_size)
    assert engine.forward([Step(session, [4, 5], n_logits=2), Step(other, [1])]) == 3


def test_nan_weights_are_an_error_and_no_token() -> None:
    spec = small_spec()
    weights = random_weights(spec)
    weights.outer["final_norm"].array[0] = np.nan
    engine = ReferenceEngine(spec, weights)
    session = engine.new_session(8)
    engine.forward([Step(session, [1])])
    with pytest.raises(NumericError, match="position 1"):
        engine.sample([Draw(0, session.position, GREEDY)])
