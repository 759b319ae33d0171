"""A model on several ranks gives the tokens of one. Laws and goldens: ../../test_laws.py and ../../test_golden.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from influence import demo
from influence.engines.base import Engine, Step
from influence.engines.sampling import Draw, SamplingParams
from influence.engines.torch import devices, placement
from influence.engines.torch.engine import TorchEngine
from influence.engines.torch.memory import Room
from influence.engines.torch.parallel import engine as parallel
from influence.engines.torch.parallel.commands import WeightsSource
from influence.engines.torch.parallel.engine import TeamEngine
from influence.engines.torch.quantize import MatrixFormat
from influence.errors import InvalidParameter
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from influence.generation.prompt_store import PromptStore
from influence.models.binding import Weights
from influence.models.model import Model, open_model
from influence.models.spec import ModelSpec
from influence.text.tokenizer import Tokenizer
from support.random_specs import Extras, random_weights, small_spec
from support.torch_engines import team_of

SPEC = small_spec(layer_window=(None, 9), attention_softcap=20.0)
WEIGHTS = random_weights(SPEC, Extras(biases=True))
WIDE = small_spec(hidden_size=64, n_heads=8, n_kv_heads=4, head_dim=16, intermediate_size=200)
STORY = "Once upon a time there was a cat who lived in a house. " * 6
MIXED = [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=1.0, seed=1),
    SamplingParams(temperature=1.3, top_k=9, top_p=0.9, min_p=0.01, seed=2),
]


def alone(spec: ModelSpec, weights: Weights, form: MatrixFormat = "stored") -> TorchEngine:
    return TorchEngine(spec, weights, placement.on_cpu(), n_blocks=lambda: 40, form=form)


@contextmanager
def shared(
    spec: ModelSpec, weights: Weights, form: MatrixFormat = "stored", n_ranks: int = 2
) -> Iterator[TeamEngine]:
    engine = TeamEngine(spec, weights, team_of(n_ranks), Room(512, n_sessions=5), form)
    yield engine
    engine.close()


@contextmanager
def shared_model(model: Model, n_sessions: int = 1) -> Iterator[TeamEngine]:
    """A model that each rank opens for itself."""
    room, source = Room(512, n_sessions), WeightsSource.of(model)
    engine = TeamEngine(model.spec, model.weights, team_of(2), room, source=source)
    yield engine
    engine.close()


def prompt(n: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, SPEC.vocab_size, n)]


def rows_of(engine: Engine, token_ids: list[int]) -> np.ndarray:
    session = engine.new_session(512)
    engine.forward([Step(session, token_ids, len(token_ids))])
    rows = engine.logits().copy()
    session.close()
    return rows


def run_of(engine: Engine, n: int) -> list[list[int]]:
    """Tokens of a run ahead of three sequences, which cross blocks at different steps."""
    steps = []
    for seed in range(3):
        session = engine.new_session(512)
        engine.forward([Step(session, prompt(60 + seed, seed=seed), 0)])
        steps.append(Step(session, [seed]))
    draws = [
        Draw(row, step.session.position + 1, params, n_logprobs=-1)
        for row, (step, params) in enumerate(zip(steps, MIXED, strict=True))
    ]
    run = engine.decode_ahead(steps, draws)
    assert run is not None
    found = []
    for _ in range(n - 1):
        run.launch()
        found.append([sample.token_id for sample in run.take()])
    return [*found, [sample.token_id for sample in run.take()]]


def test_a_run_ahead_gives_the_tokens_of_one_rank() -> None:
    with shared(SPEC, WEIGHTS) as engine:
        assert run_of(engine, 12) == run_of(alone(SPEC, WEIGHTS), 12)


def test_a_run_that_another_step_ended_is_refused_and_the_ranks_stay_in_step() -> None:
    with shared(SPEC, WEIGHTS) as engine:
        session, other = engine.new_session(64), engine.new_session(64)
        run = engine.decode_ahead([Step(session, [1])], [Draw(0, 1, MIXED[0], n_logprobs=-1)])
        assert run is not None
        engine.forward([Step(other, [1])])
        with pytest.raises(InvalidParameter, match="run"):
            run.launch()
        assert len(run.take()) == 1
        np.testing.assert_allclose(
            rows_of(engine, prompt(70)), rows_of(alone(SPEC, WEIGHTS), prompt(70)), atol=2e-5
        )


@pytest.mark.parametrize("form", ["q8", "q4"])
def test_weights_of_few_bits_are_those_of_one_rank(form: MatrixFormat) -> None:
    """Groups of other weights would have other scales, and errors of more than a hundredth."""
    weights = random_weights(WIDE, Extras(biases=True, tied=True))
    with shared(WIDE, weights, form) as engine:
        assert engine.description == f"torch cpu, {form} weights, tensor parallel on 2"
        expected = rows_of(alone(WIDE, weights, form), prompt(70))
        np.testing.assert_allclose(rows_of(engine, prompt(70)), expected, atol=1e-4)


def test_packed_weights_are_the_stored_ones_bit_for_bit() -> None:
    weights = random_weights(WIDE, Extras(biases=True, dtype="BF16"))
    with shared(WIDE, weights) as stored, shared(WIDE, weights, "packed") as packed:
        np.testing.assert_array_equal(rows_of(packed, prompt(70)), rows_of(stored, prompt(70)))


@pytest.mark.parametrize("parallel_block", [False, True])
def test_four_ranks_share_two_kv_heads_and_norm_queries_over_all_of_them(parallel_block: bool) -> None:
    spec = small_spec(n_heads=8, qk_norm="full", norm="layer", parallel_block=parallel_block)
    weights = random_weights(spec, Extras(biases=True))
    with shared(spec, weights, n_ranks=4) as engine:
        expected = rows_of(alone(spec, weights), prompt(70))
        np.testing.assert_allclose(rows_of(engine, prompt(70)), expected, atol=2e-5)


def test_a_block_is_what_all_ranks_hold_of_it_and_the_cache_is_as_large_as_the_least_room() -> None:
    one = alone(SPEC, WEIGHTS)
    with shared(SPEC, WEIGHTS) as engine:
        assert engine.kv_pool.block_bytes == one.kv_pool.block_bytes
        assert (engine.kv_pool.n_blocks, engine.spec) == (40, SPEC)
        assert engine.kv_identity != one.kv_identity


def test_two_models_on_one_team_do_not_disturb_each_other() -> None:
    other = small_spec(n_layers=1, layer_rope=(0,), layer_window=(None,))
    other_weights = random_weights(other, seed=1)
    with shared(SPEC, WEIGHTS) as first, shared(other, other_weights) as second:
        rows = rows_of(first, prompt(9)), rows_of(second, prompt(9)), rows_of(first, prompt(9))
    np.testing.assert_array_equal(rows[0], rows[2])
    np.testing.assert_allclose(rows[1], rows_of(alone(other, other_weights), prompt(9)), atol=2e-5)


def test_what_can_not_be_cut_is_refused_before_a_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "Team", None)
    model = open_model(demo.folder())
    devices_of_no_use = [parallel.RankDevice("cpu")] * 7
    with pytest.raises(InvalidParameter, match="tensor_parallel is 7, but must be 2"):
        parallel.load_on_ranks(model, devices_of_no_use, Room(64))


def texts(engine: Engine, tokenizer: Tokenizer, store: PromptStore | None = None) -> list[list[int]]:
    """Token ids of requests of several kinds that run at once, and of one whose prompt was kept."""
    kinds = [*MIXED, SamplingParams(temperature=0.8, repeat_penalty=1.2, seed=3)]
    story = tokenizer.encode(STORY)
    with Generator(engine, tokenizer, tokenizer.eos_ids, context=512, prompt_store=store) as generator:
        streams = [
            generator.submit(story[: 40 + 9 * i], GenerationParams(kind, max_tokens=20))
            for i, kind in enumerate(kinds)
        ]
        found = [list(stream.collect().token_ids) for stream in streams]
        again = generator.submit(story, GenerationParams(MIXED[0], max_tokens=8)).collect()
        assert again.statistics.cached_tokens > 0
    return [*found, list(again.token_ids)]


def test_the_storyteller_tells_on_two_ranks_what_it_tells_on_one() -> None:
    model, tokenizer = open_model(demo.folder()), Tokenizer.load(demo.folder())
    one = devices.load_on(model, placement.on_cpu(), Room(512, 6))
    with shared_model(model, 6) as engine:
        assert texts(engine, tokenizer) == texts(one, tokenizer)


def test_a_real_model_says_on_two_ranks_what_it_says_on_one(shared_data: Path) -> None:
    folder = shared_data / "weights" / "stories260K-hf"
    model, tokenizer = open_model(folder), Tokenizer.load(folder)
    one = devices.load_on(model, placement.on_cpu(), Room(512, 6))
    with shared_model(model, 6) as engine:
        assert texts(engine, tokenizer) == texts(one, tokenizer)


def test_prompts_on_disk_serve_a_later_team_of_as_many_ranks(tmp_path: Path) -> None:
    model, tokenizer = open_model(demo.folder()), Tokenizer.load(demo.folder())
    story = tokenizer.encode(STORY)

    def n_cached(engine: Engine) -> int:
        with (
            PromptStore(tmp_path, engine, "digest", max_bytes=1 << 30) as store,
            Generator(engine, tokenizer, tokenizer.eos_ids, prompt_store=store) as generator,
        ):
            completion = generator.submit(story, GenerationParams(MIXED[0], max_tokens=1)).collect()
            return completion.statistics.cached_tokens

    with shared_model(model) as first:
        assert n_cached(first) == 0
    with shared_model(model) as second:
        assert n_cached(second) >= 64
    assert n_cached(devices.load_on(model, placement.on_cpu(), Room(512))) == 0
