"""What is torch's own: dtypes, passes, padded buckets, formats, and Metal's choices. The laws are in ../test_laws.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from influence.engines.base import Step
from influence.engines.reference import ReferenceEngine
from influence.engines.sampling import Draw, SamplingParams
from influence.engines.torch import batching, placement
from influence.engines.torch.decoding import bucket_for, width_for
from influence.engines.torch.engine import TorchEngine
from influence.engines.torch.quantize import MatrixFormat
from influence.errors import NumericError
from influence.models.binding import Weights
from influence.models.spec import Rope, RopeScaling
from influence.weights.tensor import DType
from support.random_specs import Extras, random_weights, small_spec

SPEC = small_spec(attention_softcap=20.0, layer_window=(None, 9))
GREEDY = SamplingParams(temperature=0)


def engine_of(weights: Weights, form: MatrixFormat = "stored", n_blocks: int = 40) -> TorchEngine:
    return TorchEngine(SPEC, weights, placement.on_cpu(), n_blocks=lambda: n_blocks, form=form)


def prompt(n: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, SPEC.vocab_size, n)]


def rows_of(engine: TorchEngine, token_ids: list[int]) -> np.ndarray:
    engine.forward([Step(engine.new_session(512), token_ids, len(token_ids))])
    return engine.logits().copy()


@pytest.mark.parametrize(("dtype", "tolerance"), [("F16", 0.02), ("BF16", 0.1)])
def test_half_precision_gives_the_logits_within_its_rounding(dtype: DType, tolerance: float) -> None:
    weights = random_weights(SPEC, Extras(biases=True, dtype=dtype))
    expected = ReferenceEngine(SPEC, weights)
    session = expected.new_session(512)
    expected.forward([Step(session, prompt(80), 80)])
    np.testing.assert_allclose(rows_of(engine_of(weights), prompt(80)), expected.logits(), atol=tolerance)


def test_logits_are_not_rounded_to_the_weights_dtype() -> None:
    rows = rows_of(engine_of(random_weights(SPEC, Extras(dtype="BF16"))), prompt(8))
    rounded = torch.from_numpy(rows).bfloat16().float().numpy()
    assert (rows != rounded).mean() > 0.9


@pytest.mark.parametrize(("form", "tolerance"), [("packed", 0.0), ("q8", 0.1), ("q4", 1.2)])
def test_weights_of_few_bits_give_nearly_the_same_logits(form: MatrixFormat, tolerance: float) -> None:
    weights = random_weights(SPEC, Extras(dtype="BF16"))
    stored, small = engine_of(weights), engine_of(weights, form)
    np.testing.assert_allclose(rows_of(small, prompt(70)), rows_of(stored, prompt(70)), atol=tolerance)
    assert small.description == f"torch cpu, {form} weights"
    assert small.kv_identity != stored.kv_identity


def test_a_step_s_bytes_are_those_of_the_matrices_as_they_are_held() -> None:
    weights = random_weights(SPEC, Extras(dtype="BF16"))
    matrices = [t for slots in weights.layers for t in slots.values() if t.array.ndim > 1]
    stored = engine_of(weights)
    head = weights.outer.get("lm_head", weights.outer["embed"])
    assert stored.step_bytes == sum(t.size_bytes for t in [*matrices, head])
    assert engine_of(weights, "q4").step_bytes < engine_of(weights, "q8").step_bytes


def test_a_long_prompt_goes_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(SPEC)
    whole = rows_of(engine_of(weights), prompt(150))
    monkeypatch.setattr(batching, "PASS_TOKENS", 40)
    engine = engine_of(weights)
    first, second = engine.new_session(512), engine.new_session(512)
    n_rows = engine.forward([Step(first, prompt(30), 30), Step(second, prompt(150), 120)])
    assert n_rows == 150
    np.testing.assert_allclose(engine.logits()[30:], whole[30:], atol=2e-5)
    np.testing.assert_allclose(engine.logits()[:30], whole[:30], atol=2e-5)


@pytest.mark.parametrize("n", [1, 3, 5, 17])
def test_a_bucket_s_empty_rows_change_nothing(n: int) -> None:
    engine = engine_of(random_weights(SPEC), n_blocks=60)
    sessions = [engine.new_session(512) for _ in range(n)]
    for seed, session in enumerate(sessions):
        engine.forward([Step(session, prompt(60 + seed, seed), 0)])
    engine.forward([Step(session, [seed]) for seed, session in enumerate(sessions)])
    rows = engine.logits().copy()
    assert len(rows) == n
    for seed, row in enumerate(rows):
        alone = rows_of(engine, [*prompt(60 + seed, seed), seed])[-1]
        np.testing.assert_allclose(row, alone, atol=2e-5)


def test_buckets_and_widths() -> None:
    assert [bucket_for(n) for n in (1, 2, 3, 8, 9, 16, 17, 64)] == [1, 2, 4, 8, 16, 16, 32, 64]
    assert [width_for(n) for n in (1, 4, 5, 8, 9)] == [4, 4, 8, 8, 16]


def test_a_rope_that_depends_on_the_context_is_each_session_s_own() -> None:
    scaling = RopeScaling("dynamic", factor=4.0, original_max_context=32)
    spec = small_spec(ropes=(Rope(1e4, 8, scaling=scaling),))
    weights = random_weights(spec)
    engine = TorchEngine(spec, weights, placement.on_cpu(), n_blocks=lambda: 40)
    reference = ReferenceEngine(spec, weights)
    for one in (engine, reference):
        sessions = [one.new_session(context) for context in (100, 400)]
        one.forward([Step(session, prompt(50), 0) for session in sessions])
        one.forward([Step(session, [3]) for session in sessions])
    assert not np.allclose(engine.logits()[0], engine.logits()[1], atol=1e-3)
    np.testing.assert_allclose(engine.logits(), reference.logits(), atol=2e-5)


def test_what_another_left_in_a_block_is_never_seen() -> None:
    """Not even NaN, which a weight of zero would not take away."""
    engine = engine_of(random_weights(SPEC), n_blocks=2)
    session = engine.new_session(128)
    engine.forward([Step(session, prompt(20), 0)])
    engine._kv[:, :, :, 21:] = torch.nan
    engine._kv[:, :, 1:] = torch.nan
    engine.forward([Step(session, [1])])
    assert np.isfinite(engine.logits()).all()


def test_a_row_that_is_no_number_is_an_error_with_its_position() -> None:
    weights = random_weights(SPEC)
    weights.outer["final_norm"].array[0] = np.nan
    engine = engine_of(weights)
    engine.forward([Step(engine.new_session(8), [1, 2])])
    with pytest.raises(NumericError, match="position 2"):
        engine.sample([Draw(0, 2, GREEDY, n_logprobs=-1)])
    with pytest.raises(NumericError, match="position 2"):
        engine.sample([Draw(0, 2, GREEDY, n_logprobs=0)])


def test_a_step_has_as_many_tokens_as_the_placement_says() -> None:
    where = replace(placement.on_cpu(), tokens_per_step=700)
    assert TorchEngine(SPEC, random_weights(SPEC), where, n_blocks=lambda: 1).tokens_per_step == 700


def test_whichever_thread_runs_the_engine_its_launches_go_to_the_engine_s_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each thread has a current device of its own, and the generator's is not the one that loaded the model."""
    taken: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    placement.Placement("the second GPU", torch.device("cuda", 1)).take()
    assert taken == [torch.device("cuda", 1)]
    engine = engine_of(random_weights(SPEC))
    monkeypatch.setattr(placement.Placement, "take", lambda self: taken.append("took it"))
    session = engine.new_session(64)
    engine.forward([Step(session, [1])])
    engine.sample([Draw(0, 1, GREEDY, n_logprobs=-1)])
    run = engine.decode_ahead([Step(session, [1])], [Draw(0, 2, GREEDY, n_logprobs=-1)])
    assert run is not None
    run.launch()
    assert taken[1:] == ["took it"] * 5  # forward, sample, begin, two steps


def test_metal_chooses_on_the_host_and_asks_for_nothing_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Event", "Stream", "CUDAGraph", "graph", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, None)
    metal = placement.on_metal(torch.device("cpu"))
    assert not metal.samples_on_device and not metal.pins_memory and metal.graph is placement.run_eagerly
    engine = TorchEngine(SPEC, random_weights(SPEC), metal, n_blocks=lambda: 10)
    monkeypatch.setattr("influence.engines.torch.engine.outcomes", None)
    session = engine.new_session(128)
    engine.forward([Step(session, prompt(20))])
    [sample] = engine.sample([Draw(0, 20, SamplingParams(top_p=0.9), n_logprobs=-1)])
    engine.forward([Step(session, [sample.token_id])])
    assert engine.sample([Draw(0, 21, GREEDY, n_logprobs=2)])[0].logprob is not None
