"""The generator over the native engine and the demo model: to the bit what each request gets alone.

Tokens, text, log probabilities and finish reasons of seeded requests of every
kind, whatever runs beside them, is cancelled beside them, or was kept before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence import demo as shipped
from influence.engines.base import Engine
from influence.engines.sampling import SamplingParams
from influence.engines.select import load_engine
from influence.generation.events import Completion, Finished, Stream, TextDelta
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from influence.generation.prompt_store import PromptStore
from influence.generation.structured import ConstraintSpec, ConstraintVocabulary, compile_constraint
from influence.models.model import open_model
from influence.text.tokenizer import Tokenizer
from influence.weights.digest import files_digest
from support.fake_clock import SteadyClock

STORY = "Once upon a time, there was a little girl named Lily. She loved to play in the park with her dog. "
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


@dataclass(frozen=True)
class Kind:
    """A request that the test knows by its name."""

    text: str
    sampling: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    constraint: ConstraintSpec | None = None

    def params(self, seed: int) -> GenerationParams:
        return GenerationParams(
            SamplingParams(**{"temperature": 0.8, "seed": seed, **self.sampling}),
            **{"max_tokens": 24, "n_logprobs": 2, **self.values},
        )


KINDS = {
    "greedy": Kind(STORY, {"temperature": 0.0}),
    "sampled": Kind(STORY * 6, {"top_p": 0.9, "top_k": 40}),
    "hot": Kind("Tom", {"temperature": 2.0, "min_p": 0.02}),
    "penalties": Kind(STORY + "Tom", {"repeat_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.2}),
    "bias": Kind(STORY, {"logit_bias": {5: 4.0, 300: -100.0}}),
    "copied": Kind(STORY * 4, {"temperature": 0.0}, {"max_tokens": 40}),
    "said again": Kind(STORY * 4, {"repeat_penalty": 1.02, "temperature": 0.5}, {"max_tokens": 40, "ignore_eos": True}),
    "stop": Kind(STORY, {"temperature": 0.0}, {"stop": (" the", ". ")}),
    "scored": Kind(STORY * 2, {}, {"prompt_logprobs": 2, "max_tokens": 3}),
    "only scored": Kind(STORY, {}, {"prompt_logprobs": 0, "max_tokens": 0}),
    "regex": Kind("A number: ", {}, {}, ConstraintSpec.regex(r"[0-9]{2,5}(\.[0-9]+)?")),
    "forced": Kind(STORY, {}, {"max_tokens": 90}, ConstraintSpec.regex("(" + STORY.replace(".", "[.]") + "){2}")),
    "schema": Kind(STORY, {}, {"max_tokens": 40}, ConstraintSpec.json_schema(SCHEMA)),
}  # fmt: skip


class Demo:
    """The demo model, and what each request gets alone, with nothing kept from others."""

    def __init__(self) -> None:
        model = open_model(shipped.folder())
        self.tokenizer = Tokenizer.load(shipped.folder())
        self.eos_ids = model.generation_config.eos_ids | self.tokenizer.eos_ids
        self.engine: Engine = load_engine(model, context=512, kv_bytes=32 << 20)
        vocabulary = ConstraintVocabulary(self.tokenizer, model.spec.vocab_size, self.eos_ids)
        self.grammars = {
            name: compile_constraint(kind.constraint, vocabulary)
            for name, kind in KINDS.items()
            if kind.constraint is not None
        }
        self.known: dict[tuple[str, int], Completion] = {}

    def generator(self, **options: Any) -> Generator:
        return Generator(self.engine, self.tokenizer, self.eos_ids, context=512, **options)

    def submit(self, generator: Generator, name: str, seed: int) -> Stream:
        kind, grammar = KINDS[name], self.grammars.get(name)
        return generator.submit(
            self.tokenizer.encode(kind.text),
            kind.params(seed),
            constraint=None if grammar is None else grammar.new(),
        )

    def alone(self, name: str, seed: int) -> Completion:
        if (name, seed) not in self.known:
            with self.generator(prefix_cache_blocks=0, draft="none") as generator:
                self.known[name, seed] = self.submit(generator, name, seed).collect()
        return self.known[name, seed]


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    made = Demo()
    yield made
    assert made.engine.kv_pool.n_free == made.engine.kv_pool.n_blocks
    made.engine.close()


def facts(completion: Completion) -> tuple[object, ...]:
    return (
        completion.text,
        completion.token_ids,
        completion.logprobs,
        completion.prompt_logprobs,
        completion.finish_reason,
        completion.stop_string,
        completion.statistics.prompt_tokens,
        completion.statistics.completion_tokens,
    )


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    asked=st.lists(st.tuples(st.sampled_from(list(KINDS)), st.integers(0, 1)), min_size=2, max_size=12),
    cancelled=st.sets(st.integers(0, 11), max_size=4),
    max_running=st.integers(1, 8),
    budget=st.sampled_from([1, 16, 200]),
    cache_blocks=st.sampled_from([0, None]),
    is_timed=st.booleans(),
)
def test_company_chunks_cancels_drafts_and_kept_prefixes_change_no_bit(
    demo: Demo,
    asked: list[tuple[str, int]],
    cancelled: set[int],
    max_running: int,
    budget: int,
    cache_blocks: int | None,
    is_timed: bool,
) -> None:
    expected = [demo.alone(name, seed) for name, seed in asked]
    options: dict[str, Any] = {"max_running": max_running, "tokens_per_step": max_running + budget}
    if not is_timed:  # then what pays is the same on every machine
        options["clock"] = lambda: 0.0
    with demo.generator(prefix_cache_blocks=cache_blocks, **options) as generator:
        streams = [demo.submit(generator, name, seed) for name, seed in asked]
        for i in cancelled & set(range(len(asked))):
            streams[i].cancel()
        for i, stream in enumerate(streams):
            completion = stream.collect()
            if i not in cancelled:
                assert facts(completion) == facts(expected[i])
            else:
                assert expected[i].text.startswith(completion.text.rstrip("\ufffd"))


@pytest.mark.parametrize("name", KINDS)
def test_streamed_text_is_the_text_of_all_tokens(demo: Demo, name: str) -> None:
    with demo.generator() as generator:
        events = list(demo.submit(generator, name, 3))
    deltas = [event for event in events if isinstance(event, TextDelta)]
    token_ids = [token_id for delta in deltas for token_id in delta.token_ids]
    prompt = demo.tokenizer.encode(KINDS[name].text)
    whole = demo.tokenizer.decode([*prompt, *token_ids])
    text = demo.tokenizer.decode(prompt) + "".join(delta.text for delta in deltas)
    end = events[-1]
    assert isinstance(end, Finished)
    if end.stop_string is None:
        assert text == whole
    else:
        assert whole.startswith(text + end.stop_string)


def test_n_choices_of_a_prompt_differ_by_their_seed_alone(demo: Demo) -> None:
    expected = [demo.alone("sampled", seed) for seed in range(6)]
    with demo.generator(max_running=8) as generator:
        streams = [demo.submit(generator, "sampled", seed) for seed in range(6)]
        completions = [stream.collect() for stream in streams]
        facts_after = generator.facts().loop
    assert [facts(c) for c in completions] == [facts(e) for e in expected]
    assert len({c.text for c in completions}) > 1
    n_prompt = completions[0].statistics.prompt_tokens
    assert facts_after.n_prompt_tokens == n_prompt + 5


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_bit(demo: Demo, threads: int) -> None:
    model = open_model(shipped.folder())
    engine = load_engine(model, threads=threads, context=512)
    with Generator(engine, demo.tokenizer, demo.eos_ids, context=512) as generator:
        for name in ("greedy", "sampled", "schema"):
            assert facts(demo.submit(generator, name, 0).collect()) == facts(demo.alone(name, 0))
    engine.close()


def test_prompts_from_the_disk_change_no_bit(demo: Demo, tmp_path: Path) -> None:
    for n_cached in (0, 128):  # the second as by a later process: another engine, nothing in memory
        model = open_model(shipped.folder())
        digest = files_digest(model.checkpoint.files)
        engine = load_engine(model, context=512, kv_bytes=8 << 20)
        with (
            PromptStore(tmp_path, engine, digest, max_bytes=1 << 30) as store,
            Generator(engine, demo.tokenizer, demo.eos_ids, context=512, prompt_store=store) as generator,
        ):
            for name, seed in (("sampled", 0), ("sampled", 1)):
                completion = demo.submit(generator, name, seed).collect()
                assert facts(completion) == facts(demo.alone(name, seed))
                assert completion.statistics.cached_tokens >= n_cached
        engine.close()


@pytest.mark.parametrize("name", ["copied", "said again", "forced", "penalties", "stop", "scored"])
@pytest.mark.parametrize("seed", [0, 1])
def test_drafts_change_no_bit(demo: Demo, name: str, seed: int) -> None:
    with demo.generator(clock=SteadyClock()) as generator:
        assert facts(demo.submit(generator, name, seed).collect()) == facts(demo.alone(name, seed))


def test_drafts_save_steps_where_the_text_repeats_itself(demo: Demo) -> None:
    with demo.generator(clock=SteadyClock()) as generator:
        statistics = demo.submit(generator, "forced", 0).collect().statistics
        found = generator.facts().loop
    assert statistics.accepted_tokens > statistics.completion_tokens / 2
    assert found.n_steps == 1 + statistics.completion_tokens - 1 - statistics.accepted_tokens
    assert found.n_drafted_tokens == statistics.drafted_tokens
    assert found.n_accepted_tokens == statistics.accepted_tokens


def test_an_engine_that_is_not_exact_to_the_bit_runs_no_drafts(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(demo.engine), "is_bit_exact", False)
    with demo.generator(clock=SteadyClock()) as generator:
        assert demo.submit(generator, "forced", 0).collect().statistics.drafted_tokens == 0
