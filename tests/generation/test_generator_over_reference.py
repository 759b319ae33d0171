"""The generator over a real engine: the golden text, and laws that hold only if sessions are used rightly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from influence.engines.reference import ReferenceEngine
from influence.engines.sampling import SamplingParams
from influence.generation.events import Completion
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from influence.models.model import open_model
from influence.models.spec import Rope, RopeScaling
from influence.text.tokenizer import Tokenizer
from support.fake_engine import FakeDetokenizer
from support.random_specs import random_weights, small_spec


def greedy(max_tokens: int, **values: object) -> GenerationParams:
    return GenerationParams(SamplingParams(temperature=0.0), max_tokens, **values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> Iterator[tuple[Generator, Tokenizer]]:
    folder = shared_data / "weights" / "stories260K-hf"
    model, tokenizer = open_model(folder), Tokenizer.load(folder)
    engine = ReferenceEngine(model.spec, model.weights)
    eos_ids = model.generation_config.eos_ids | tokenizer.eos_ids
    with Generator(engine, tokenizer, eos_ids, tokens_per_step=64, max_running=8) as generator:
        yield generator, tokenizer
    assert engine.kv_pool.n_free == engine.kv_pool.n_blocks
    model.checkpoint.close()


def test_the_golden_tokens_come_out(stories: tuple[Generator, Tokenizer], shared_data: Path) -> None:
    golden = json.loads((shared_data / "weights" / "stories260K-golden.json").read_text())
    generator, _ = stories
    whole = golden["bos_only_200_new_tokens"]
    completion = generator.submit(whole[:1], greedy(200, ignore_eos=True)).collect()
    assert [*whole[:1], *completion.token_ids] == whole
    assert completion.text.strip() == golden["text_bos_only_200"].strip()


def test_streamed_pieces_are_whole_characters_and_join_to_what_decode_gives(
    stories: tuple[Generator, Tokenizer],
) -> None:
    generator, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time, Zoë")
    completion = generator.submit(prompt, GenerationParams(SamplingParams(1.5, seed=3), 60)).collect()
    whole = tokenizer.decode([*prompt, *completion.token_ids])
    assert whole == tokenizer.decode(prompt) + completion.text
    assert completion.statistics.prompt_tokens == len(prompt)


def run_all(engine: ReferenceEngine, together: bool, **options: int) -> list[Completion]:
    shared = [i * 5 % 31 for i in range(40)]
    prompts = [[*shared[: 9 * i], 1 + i, 2, 3] for i in range(5)]
    params = [GenerationParams(SamplingParams(1.0, seed=i, repeat_penalty=1.1), 20) for i in range(5)]
    options = {"max_running": 4, "tokens_per_step": 8, **options}
    with Generator(engine, None, frozenset(), new_detokenizer=FakeDetokenizer, **options) as generator:  # type: ignore[arg-type]
        submit = generator.submit
        if together:
            streams = [submit(p, asked) for p, asked in zip(prompts, params, strict=True)]
            return [stream.collect() for stream in streams]
        return [submit(p, asked).collect() for p, asked in zip(prompts, params, strict=True)]


SCALED = Rope(10000.0, 8, scaling=RopeScaling("dynamic", 2.0, original_max_context=64))


@pytest.mark.parametrize("rope", [Rope(10000.0, 8), SCALED], ids=["plain", "dynamic"])
def test_company_chunks_and_common_prefixes_change_no_token(rope: Rope) -> None:
    spec = small_spec(vocab_size=32, max_context=128, ropes=(rope,))
    engine = ReferenceEngine(spec, random_weights(spec), dtype="float64")
    alone = run_all(engine, together=False, prefix_cache_blocks=0)
    assert {completion.statistics.cached_tokens for completion in alone} == {0}
    for completions in (
        run_all(engine, together=True),
        run_all(engine, together=True, prefix_cache_blocks=0, tokens_per_step=1000),
        (kept := run_all(engine, together=False)),
    ):
        assert [c.token_ids for c in completions] == [c.token_ids for c in alone]
        assert [c.text for c in completions] == [c.text for c in alone]
    assert max(completion.statistics.cached_tokens for completion in kept) >= 27
    assert engine.kv_pool.n_free == engine.kv_pool.n_blocks
