"""Completions that keep to a schema, a pattern, a grammar: with the demo's tokenizer and random logits."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence import demo
from influence.engines.sampling import SamplingParams
from influence.errors import InvalidParameter, TokenizerError
from influence.generation import structured
from influence.generation.events import Completion
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from influence.generation.structured import (
    CompiledConstraint,
    ConstraintSpec,
    ConstraintVocabulary,
    GrammarState,
    compile_constraint,
)
from influence.text.tokenizer import Tokenizer
from support import made_tokenizers
from support.fake_engine import FakeEngine, fake_spec

TOKENIZER = Tokenizer.load(demo.folder())
(EOS,) = TOKENIZER.eos_ids
PADDED = 40  # rows of the model that no token has
VOCAB_SIZE = TOKENIZER.vocab_size + PADDED
VOCABULARY = ConstraintVocabulary(TOKENIZER, VOCAB_SIZE, TOKENIZER.eos_ids)

# Random text seldom closes what it opened: tokens that do are made likelier.
CLOSING = {token_id: 4.0 for token in '"}]' if (token_id := TOKENIZER.id_of(token)) is not None} | {EOS: 4.0}


def compiled(spec: ConstraintSpec, vocabulary: ConstraintVocabulary = VOCABULARY) -> CompiledConstraint:
    return compile_constraint(spec, vocabulary)


def of_schema(schema: object) -> CompiledConstraint:
    return compiled(ConstraintSpec.json_schema(schema))


def completions(
    source: CompiledConstraint, n: int = 1, *, max_tokens: int = 200, seed: int = 0
) -> list[Completion]:
    engine = FakeEngine(4096, 16, fake_spec(VOCAB_SIZE, 1024))
    with Generator(engine, TOKENIZER, TOKENIZER.eos_ids) as generator:
        streams = [
            generator.submit(
                [5], GenerationParams(sampling(seed + i), max_tokens=max_tokens), constraint=source.new()
            )
            for i in range(n)
        ]
        return [stream.collect() for stream in streams]


def sampling(seed: int) -> SamplingParams:
    return SamplingParams(temperature=1.0, logit_bias=CLOSING, seed=seed)


def spelt(state: GrammarState, text: str) -> list[int]:
    """The ids of a text, each of them allowed when its turn comes."""
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    for token_id in ids:
        assert state.allowed()[token_id], TOKENIZER.token(token_id)
        state.accept(token_id)
    return ids


# Schemas of a small language, each with values in abundance.
LEAVES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 12)),
    st.builds(
        lambda low, n: {"type": "integer", "minimum": low, "maximum": low + n},
        st.integers(-99, 99),
        st.integers(0, 50),
    ),
    st.just({"type": "number", "exclusiveMinimum": -1000, "maximum": 1000}),
    st.just({"type": "string", "pattern": "^[a-c]{2,4}$"}),
    st.just({"type": "string", "format": "date"}),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.sampled_from([1, "é\n", None, 2.5, [1], {"k": '"'}]), min_size=1),
    ),
    st.just({"const": {"x": [1, "two"]}}),
)


def _containers(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(_array, inner, st.integers(0, 2), st.integers(0, 3)),
        st.builds(
            _object,
            st.dictionaries(st.sampled_from(["a", "b c", "ключ", 'q"q']), inner, max_size=3),
            st.integers(0, 3),
        ),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda value: {"type": "object", "additionalProperties": value, "maxProperties": 3}, inner),
        st.builds(
            lambda a, b: {"type": "array", "prefixItems": [a, b], "items": False, "minItems": 1}, inner, inner
        ),
    )


def _array(items: dict[str, Any], least: int, more: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": least + more}


def _object(properties: dict[str, Any], n_required: int) -> dict[str, Any]:
    required = sorted(properties)[:n_required]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


SCHEMAS = st.recursive(LEAVES, _containers, max_leaves=6)


@settings(derandomize=True, deadline=None, max_examples=120)
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_a_completion_that_stopped_is_valid_json_of_its_schema(schema: dict[str, Any], seed: int) -> None:
    for completion in completions(of_schema(schema), 3, seed=seed):
        if completion.finish_reason == "stop":
            jsonschema.validate(json.loads(completion.text), schema, jsonschema.Draft202012Validator)
        else:
            assert completion.statistics.completion_tokens == 200


def test_most_random_completions_do_stop() -> None:
    schema = _object(
        {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer", "maximum": 99}}, 2
    )
    reasons = [completion.finish_reason for completion in completions(of_schema(schema), 20)]
    assert reasons.count("stop") >= 15


PATTERNS = [
    "[0-9]{3}-[0-9]{4}", "^(yes|no|maybe)$", "(a|b)*c", "[^x\n]{1,5}x", "(?i)abc", r"\d{1,3}(\.\d{1,3}){3}",
    "é+|猫", "(?s:.){3}", r"\{\"k\": [ab]{2}\}", "a/b", "[a-z]+(,[a-z]+){0,2}",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_completion_that_stopped_matches_its_pattern_whole(pattern: str) -> None:
    found = completions(compiled(ConstraintSpec.regex(pattern)), 12, max_tokens=80)
    stopped = [completion.text for completion in found if completion.finish_reason == "stop"]
    assert stopped
    for text in stopped:
        assert re.fullmatch(pattern, text), text


def test_json_object_gives_an_object() -> None:
    found = completions(compiled(ConstraintSpec.json_object()), 12)
    objects = [json.loads(completion.text) for completion in found if completion.finish_reason == "stop"]
    assert len(objects) > 3
    assert all(isinstance(value, dict) for value in objects)


def test_a_grammar_of_ones_own() -> None:
    source = compiled(
        ConstraintSpec.grammar('start: sum\nsum: NUMBER ("+" NUMBER){0,3}\nNUMBER: /[1-9][0-9]?/')
    )
    for completion in completions(source, 8):
        assert completion.finish_reason == "stop"
        assert re.fullmatch(r"\d{1,2}(\+\d{1,2}){0,3}", completion.text)


def test_the_end_is_allowed_exactly_where_the_text_may_end() -> None:
    state = compiled(ConstraintSpec.regex("ab?c*")).new()
    assert not state.allowed()[EOS]
    for text in ("a", "b", "c", "c"):
        spelt(state, text)
        assert state.allowed()[EOS]
        assert not state.is_complete
    state.accept(EOS)
    assert state.is_complete


def test_what_can_t_go_on_is_complete_without_an_end_token() -> None:
    state = of_schema(
        {
            "type": "object",
            "properties": {"a": {"type": "boolean"}},
            "required": ["a"],
            "additionalProperties": False,
        }
    ).new()
    spelt(state, '{"a": true')
    assert not state.is_complete
    spelt(state, "}")
    assert state.is_complete


def test_json_that_is_complete_at_the_last_token_stops_and_cut_short_says_length() -> None:
    source = of_schema({"const": "abcdef"})
    n_tokens = completions(source)[0].statistics.completion_tokens
    assert n_tokens > 1
    assert completions(source, max_tokens=n_tokens)[0].finish_reason == "stop"
    cut = completions(source, max_tokens=n_tokens - 1)[0]
    assert cut.finish_reason == "length"
    assert '"abcdef"'.startswith(cut.text)


def test_blanks_stand_only_where_one_line_of_json_has_them() -> None:
    blanks = [i for i in range(TOKENIZER.vocab_size) if TOKENIZER.decode([i]).isspace()]
    state = compiled(ConstraintSpec.json_object()).new()
    for text, may_follow in (
        ("{", False),
        ('"a"', False),
        (":", True),
        (" ", False),
        ("1,", True),
        (" ", False),
    ):
        spelt(state, text)
        allowed = [i for i in blanks if state.allowed()[i]]
        assert [TOKENIZER.decode([i]) for i in allowed] == ([" "] if may_follow else [])


@pytest.mark.parametrize("text", ['{"a": 1, "b": [1, 2]}', '{"a":1,"b":[1,2]}'])
def test_json_may_be_written_with_and_without_blanks(text: str) -> None:
    state = compiled(ConstraintSpec.json_object()).new()
    spelt(state, text)
    assert state.is_complete


def test_padded_rows_and_special_tokens_are_banned() -> None:
    allowed = compiled(ConstraintSpec.regex("(?s:.)*")).new().allowed()
    assert allowed.shape == (VOCAB_SIZE,)
    assert not allowed[TOKENIZER.vocab_size :].any()
    special = [i for i in range(TOKENIZER.vocab_size) if TOKENIZER.is_special(i)]
    assert [i for i in special if allowed[i]] == [EOS]


@pytest.mark.parametrize(("shown", "text"), [(True, "a<|user|>b"), (False, "ab")])
def test_a_special_token_that_a_grammar_asks_for_is_in_the_text_if_it_is_to_be_shown(
    shown: bool, text: str
) -> None:
    user_id = TOKENIZER.id_of("<|user|>")
    source = compiled(ConstraintSpec.grammar(f'start: "a" <[{user_id}]> "b"'))
    params = GenerationParams(sampling(0), shown_ids=frozenset({user_id}) if shown else frozenset())
    with Generator(
        FakeEngine(4096, 16, fake_spec(VOCAB_SIZE, 1024)), TOKENIZER, TOKENIZER.eos_ids
    ) as generator:
        assert generator.submit([5], params, constraint=source.new()).collect().text == text


def test_a_model_without_an_end_token_ends_where_nothing_may_follow() -> None:
    vocabulary = ConstraintVocabulary(TOKENIZER, VOCAB_SIZE, frozenset())
    state = compiled(ConstraintSpec.regex("ab?"), vocabulary).new()
    spelt(state, "a")
    assert not state.is_complete
    assert np.flatnonzero(state.allowed()).tolist() == TOKENIZER.encode("b", add_special_tokens=False)
    spelt(state, "b")
    assert state.is_complete


def test_an_end_token_beyond_the_vocabulary_is_no_end() -> None:
    vocabulary = ConstraintVocabulary(TOKENIZER, VOCAB_SIZE, frozenset({EOS, 10**6}))
    assert vocabulary.eos_ids == {EOS}


def test_a_model_smaller_than_its_tokenizer_gets_masks_of_its_own_size() -> None:
    vocabulary = ConstraintVocabulary(TOKENIZER, 300, frozenset({EOS}))
    assert compiled(ConstraintSpec.json_object(), vocabulary).new().allowed().shape == (300,)


@pytest.mark.parametrize("name", ["byte-level", "spm with strip", "spm without strip", "nested"])
def test_the_grammar_reads_a_token_as_the_detokenizer_writes_it(name: str, tmp_path: Path) -> None:
    folder = made_tokenizers.write(tmp_path, made_tokenizers.all_kinds()[name])
    tokenizer = Tokenizer.load(folder)
    source = compiled(
        ConstraintSpec.regex("(?s:.)*"), ConstraintVocabulary(tokenizer, tokenizer.vocab_size, frozenset())
    )
    for token_id in np.flatnonzero(source.new().allowed()):
        state = source.new()
        state.accept(int(token_id))
        visible = tokenizer.visible_token(int(token_id))
        chain = tokenizer.new_decoder_chain()
        chain.push("a")
        assert (
            source.vocabulary.tokens.decode_str([int(token_id)]) == chain.push(visible or "") + chain.flush()
        )


def test_a_tokenizer_whose_tokens_are_no_bytes_is_refused(tmp_path: Path) -> None:
    folder = made_tokenizers.write(tmp_path, made_tokenizers.all_kinds()["wordpiece"])
    with pytest.raises(TokenizerError, match="structured output"):
        ConstraintVocabulary(Tokenizer.load(folder), 20, frozenset())


def test_states_of_one_source_do_not_know_each_other() -> None:
    source = compiled(ConstraintSpec.regex("abc"))
    first, second = source.new(), source.new()
    spelt(first, "ab")
    spelt(second, "abc")
    spelt(first, "c")


def test_asking_twice_changes_nothing() -> None:
    state = compiled(ConstraintSpec.regex("[ab]{2}")).new()
    assert np.array_equal(state.allowed(), state.allowed())


def test_costly_masks_are_made_ahead_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = _object({"a": {"type": "string", "maxLength": 5}, "b": {"enum": ["x", "y"]}}, 2)
    expected = [completion.token_ids for completion in completions(of_schema(schema), 4)]
    monkeypatch.setattr(structured, "_COSTLY_S", -1.0)
    source = of_schema(schema)
    state = source.new()
    state.allowed()
    state.accept(spelt_id("{"))
    assert state._pending is not None
    assert [completion.token_ids for completion in completions(source, 4)] == expected


def spelt_id(text: str) -> int:
    (token_id,) = TOKENIZER.encode(text, add_special_tokens=False)
    return token_id


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ConstraintSpec.regex("["), "unclosed character class"),
        (ConstraintSpec.regex(r"(a)\1"), "backreferences"),
        (ConstraintSpec.regex(r"\bword"), r"without \b"),
        (ConstraintSpec.regex("(a{1000}){1000}"), "too many"),
        (ConstraintSpec.grammar('begin: "a"'), "no start rule"),
        (ConstraintSpec.grammar("start: <nope>"), "unknown special token"),
        (ConstraintSpec.grammar('start: %json {"$ref": "http://127.0.0.1:9/x"}'), "does not fetch"),
        (ConstraintSpec.json_schema({"oneOf": [{"type": "number"}, {"type": "integer"}]}), "use anyOf"),
        (ConstraintSpec.json_schema({"type": "string", "minLength": 2, "maxLength": 1}), "minLength"),
        (ConstraintSpec.json_schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}), "can satisfy"),
        (ConstraintSpec.json_schema({"properties": {f"p{i}": {"type": "string"} for i in range(1900)}, "type": "object"}), "items"),
    ],
)  # fmt: skip
def test_what_can_t_be_followed_is_refused_soon(spec: ConstraintSpec, said: str) -> None:
    started_s = time.process_time()
    with pytest.raises(InvalidParameter) as caught:
        compiled(spec)
    assert time.process_time() - started_s < 1
    assert said in caught.value.message
    assert caught.value.name == spec.kind
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("lark", ["", " \n", None, "x" * 70_000])
def test_no_grammar_or_one_too_large_is_refused(lark: object) -> None:
    with pytest.raises(InvalidParameter, match="grammar is"):
        ConstraintSpec.grammar(lark)


def test_a_dead_end_fails_its_own_request_and_no_other() -> None:
    source = of_schema({"const": "ab" * 40})
    source_of_all = compiled(ConstraintSpec.regex("(?s:.)*"))
    engine = FakeEngine(4096, 16, fake_spec(VOCAB_SIZE, 1024))
    with Generator(engine, TOKENIZER, TOKENIZER.eos_ids) as generator:
        good = generator.submit(
            [5], GenerationParams(sampling(1), max_tokens=20), constraint=source_of_all.new()
        )
        bad = generator.submit(
            [5], GenerationParams(sampling(1), max_tokens=20), constraint=_LeadsNowhere(source.new())
        )
        with pytest.raises(InvalidParameter, match="json_schema"):
            bad.collect()
        assert good.collect().finish_reason in ("stop", "length")
    assert engine.sessions == []


class _LeadsNowhere:
    """A grammar that is given a token that it never allowed."""

    def __init__(self, state: GrammarState) -> None:
        self._state = state

    def allowed(self) -> Any:
        return None

    def accept(self, token_id: int) -> None:
        self._state.accept(spelt_id("}"))

    @property
    def is_complete(self) -> bool:
        return self._state.is_complete


def test_a_pattern_that_grows_too_complex_on_the_way_ends_in_an_error() -> None:
    text = {"type": "string", "pattern": "^(a{1000}){1000}$"}
    state = of_schema({"type": "array", "prefixItems": [{"const": 1}, text], "minItems": 2}).new()
    spelt(state, '[1, "')
    with pytest.raises(InvalidParameter, match=r"json_schema is .* too many"):
        while not state.is_complete:
            state.accept(int(np.flatnonzero(state.allowed())[-1]))


def test_equal_specs_are_equal() -> None:
    assert ConstraintSpec.json_schema({"type": "object"}) == ConstraintSpec.json_schema(
        {"type": "object", "$comment": "c"}
    )
    assert hash(ConstraintSpec.regex("a")) == hash(ConstraintSpec.regex("a"))


def test_numbers_are_those_of_json() -> None:
    found = completions(of_schema({"type": "number"}), 20, max_tokens=30)
    texts = [completion.text for completion in found if completion.finish_reason == "stop"]
    assert texts
    assert all(re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", text) for text in texts)


@pytest.mark.parametrize("name", ["byte-level", "spm with strip", "spm without strip"])
def test_every_kind_of_tokenizer_writes_valid_json(name: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(made_tokenizers.write(tmp_path, made_tokenizers.all_kinds()[name]))
    schema = _object({"é": {"type": "string", "maxLength": 6}, "n": {"enum": ["猫", "a b", 7]}}, 2)
    vocabulary = ConstraintVocabulary(tokenizer, tokenizer.vocab_size, frozenset())
    source = compiled(ConstraintSpec.json_schema(schema), vocabulary)
    engine = FakeEngine(4096, 16, fake_spec(tokenizer.vocab_size, 1024))
    with Generator(engine, tokenizer, frozenset()) as generator:
        for seed in range(8):
            params = GenerationParams(SamplingParams(temperature=1.0, seed=seed), max_tokens=200)
            completion = generator.submit([5], params, constraint=source.new()).collect()
            assert completion.finish_reason == "stop"
            jsonschema.validate(json.loads(completion.text), schema)
