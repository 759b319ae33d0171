"""Forced calls: whatever the model would rather say, its parser finds calls that are true to their schemas."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from influence import demo
from influence.engines.sampling import SamplingParams
from influence.errors import InvalidParameter
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from influence.generation.structured import ConstraintVocabulary, compile_constraint
from influence.generation.tool_constraint import MAX_FORCED_CALLS, tool_constraint
from influence.text.tokenizer import Tokenizer
from influence.text.tool_calls import ToolCallParser, ToolCallPart
from influence.text.tool_formats import FORMATS, HERMES, LLAMA3, MISTRAL, ToolFormat
from support.fake_engine import FakeEngine, fake_spec

TOKENIZER = Tokenizer.load(demo.folder())
VOCABULARY = ConstraintVocabulary(TOKENIZER, TOKENIZER.vocab_size, TOKENIZER.eos_ids)
CLOSING = {token_id: 4.0 for token in '"}]' if (token_id := TOKENIZER.id_of(token)) is not None}

TOOLS: dict[str, dict[str, Any]] = {
    "weather": {
        "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"$ref": "#/$defs/few"}},
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"few": {"type": "integer", "minimum": 1, "maximum": 9}},
    },
    "we": {"type": "object", "properties": {"x": {"enum": ["a", 'b"']}}, "required": ["x"], "additionalProperties": False},
    'näme "1"': {"type": "object", "additionalProperties": False},
}  # fmt: skip


def replies(written_as: ToolFormat, n: int = 12, **options: Any) -> list[list[Any]]:
    """Calls of random replies that stopped: (name, arguments) each."""
    source = compile_constraint(tool_constraint(written_as, TOOLS, mark_ids={}, **options), VOCABULARY)
    found = []
    with Generator(
        FakeEngine(4096, 16, fake_spec(TOKENIZER.vocab_size, 1024)), TOKENIZER, TOKENIZER.eos_ids
    ) as generator:
        for seed in range(n):
            sampling = SamplingParams(temperature=1.0, logit_bias=CLOSING, seed=seed)
            params = GenerationParams(sampling, max_tokens=600)
            completion = generator.submit([5], params, constraint=source.new()).collect()
            if completion.finish_reason == "stop":
                parser = ToolCallParser(written_as)
                found.append([*parser.push(completion.text), *parser.finish()])
    assert len(found) >= n // 2
    return found


def check(parts: list[Any]) -> None:
    for part in parts:
        assert isinstance(part, ToolCallPart), part
        jsonschema.validate(json.loads(part.call.arguments_json), TOOLS[part.call.name])


@pytest.mark.parametrize(
    "written_as", [one for one in FORMATS if one.shape != "named"], ids=lambda one: one.name
)
@pytest.mark.parametrize("is_parallel", [False, True])
def test_a_forced_reply_is_nothing_but_calls(written_as: ToolFormat, is_parallel: bool) -> None:
    found = replies(written_as, is_parallel=is_parallel)
    for parts in found:
        check(parts)
        assert 1 <= len(parts) <= (MAX_FORCED_CALLS if is_parallel and written_as is not LLAMA3 else 1)
    assert len({part.call.name for parts in found for part in parts}) > 1


def test_calls_by_name_are_forced_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TOOLS, 'näme "1"')
    (named,) = (one for one in FORMATS if one.shape == "named")
    for parts in replies(named, is_parallel=True):
        check(parts)


def test_marks_that_are_tokens_are_chosen_as_tokens() -> None:
    mark = next(
        i for i in range(TOKENIZER.vocab_size) if TOKENIZER.is_special(i) and i not in TOKENIZER.eos_ids
    )
    spec = tool_constraint(MISTRAL, TOOLS, mark_ids={"[TOOL_CALLS]": mark})
    state = compile_constraint(spec, VOCABULARY).new()
    assert state.allowed().nonzero()[0].tolist() == [mark]


def test_a_tool_s_schema_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidParameter) as caught:
        tool_constraint(HERMES, {"f": {"properties": {"a": {"not": {}}}}}, mark_ids={})
    assert caught.value.name == "tools/f/parameters/properties/a/not"
    with pytest.raises(InvalidParameter, match="arguments have names"):
        tool_constraint(HERMES, {"f": {"type": "string"}}, mark_ids={})
    with pytest.raises(InvalidParameter, match="at least one tool"):
        tool_constraint(HERMES, {}, mark_ids={})
