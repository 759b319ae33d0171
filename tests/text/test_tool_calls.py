"""Calls in replies: each family's way of writing them, however the text is cut, and what is none."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.text.tool_calls import MAX_CALLS, TextPart, ToolCall, ToolCallParser, ToolCallPart
from influence.text.tool_formats import (
    FORMATS,
    GRANITE,
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL_NAMED,
    PHI,
    ToolFormat,
)

Found = tuple[str, list[tuple[str, object]]]  # the text, and of each call its name and arguments


def parse(written_as: ToolFormat, pieces: Sequence[str]) -> list[object]:
    """The parts in order, neighbouring texts joined, arguments as values."""
    parser = ToolCallParser(written_as)
    parts = [part for piece in pieces for part in parser.push(piece)] + parser.finish()
    joined: list[object] = []
    for part in parts:
        if isinstance(part, ToolCallPart):
            joined.append((part.call.name, json.loads(part.call.arguments_json)))
        elif joined and isinstance(joined[-1], str):
            joined[-1] += part.text
        else:
            joined.append(part.text)
    return joined


PARIS = ("weather", {"city": "Paris"})
CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'
LLAMA_CALL = '{"name": "weather", "parameters": {"city": "Paris"}}'

CASES: list[tuple[ToolFormat, str, list[object]]] = [
    (HERMES, f"<tool_call>\n{CALL}\n</tool_call>", [PARIS]),
    (HERMES, f"I'll look.\n<tool_call>{CALL}</tool_call>", ["I'll look.", PARIS]),
    (HERMES, f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>\n", [PARIS, PARIS]),
    (HERMES, f"<tool_call>\n{CALL}", [PARIS]),
    (HERMES, f"<tool_call>{CALL}</tool_call> There it is.", [PARIS, "There it is."]),
    (HERMES, "<tool_call>\n" + '{"name": "now"}' + "\n</tool_call>", [("now", {})]),
    (HERMES, '<tool_call>{"arguments": "{\\"a\\": [1]}", "name": "f"}</tool_call>', [("f", {"a": [1]})]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"t": "</tool_call>}\\" {"}}</tool_call>', [("f", {"t": '</tool_call>}" {'})]),
    (HERMES, CALL, [CALL]),
    (LLAMA3, LLAMA_CALL, [PARIS]),
    (LLAMA3, f"\n\n{LLAMA_CALL}", [PARIS]),
    (LLAMA3, f"<|python_tag|>{LLAMA_CALL}", [PARIS]),
    (LLAMA3, f"{LLAMA_CALL}; {LLAMA_CALL}", [PARIS, PARIS]),
    (LLAMA3, f"<|python_tag|>{LLAMA_CALL}; {LLAMA_CALL}", [PARIS, PARIS]),
    (LLAMA3, '{"type": "function", "function": {"name": "f", "parameters": {}}}', [("f", {})]),
    (LLAMA3, f"Here: {LLAMA_CALL}", [f"Here: {LLAMA_CALL}"]),
    (LLAMA3, '{"name": "Ada", "age": 36}', ['{"name": "Ada", "age": 36}']),
    (MISTRAL, f"[TOOL_CALLS][{CALL}]", [PARIS]),
    (MISTRAL, f'[TOOL_CALLS] [{CALL[:-1]}, "id": "abcdefghi"}}, {CALL}]', [PARIS, PARIS]),
    (MISTRAL_NAMED, '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}', [PARIS]),
    (MISTRAL_NAMED, '[TOOL_CALLS]weather[CALL_ID]x1[ARGS]{"city": "Paris"}[TOOL_CALLS]now[ARGS]{}', [PARIS, ("now", {})]),
    (MISTRAL, 'Sure.[TOOL_CALLS]weather{"city": "Paris"}', ["Sure.", PARIS]),
    (GRANITE, f"<|tool_call|>[{CALL}]", [PARIS]),
    (GRANITE, f"<tool_call>[{CALL}, {CALL}]", [PARIS, PARIS]),
    (PHI, f"<|tool_call|>[{CALL}]<|/tool_call|>", [PARIS]),
    (PHI, f"functools[{CALL}]", [PARIS]),
    (PHI, "import functools\n", ["import functools\n"]),
    (PHI, "functools[1]", ["functools[1]"]),
]  # fmt: skip

NONE = [
    (HERMES, "a < b, <tool_ and <tool_call"),
    (HERMES, "  plain text \n"),
    (HERMES, "<tool_call>\nget_weather(city)\n</tool_call>"),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1}'),
    (HERMES, '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
    (HERMES, '<tool_call>{"name": "f", "arguments": "no"}</tool_call>'),
    (HERMES, '<tool_call>{"name": 3, "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "", "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": <b>}}</tool_call>'),
    (HERMES, "<tool_call>[]</tool_call>"),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>'),
    (HERMES, '<tool_call>[{"name": "f"}, 3]</tool_call>'),
    (HERMES, "<tool_call>" + "[" * 5000),
    (LLAMA3, '<|python_tag|>weather.call(city="Paris")'),
    (LLAMA3, '{"name": "f", "parameters": {"a": 1}'),
    (MISTRAL_NAMED, "[TOOL_CALLS]weather[ARGS]Paris"),
    (MISTRAL_NAMED, '[TOOL_CALLS]weather[ARGS]{"a": NaN:}'),
    (MISTRAL, "[TOOL_CALLS]" + "x" * 700),
]


@pytest.mark.parametrize(("written_as", "text", "expected"), CASES)
def test_a_call_is_found(written_as: ToolFormat, text: str, expected: list[object]) -> None:
    assert parse(written_as, [text]) == expected


@pytest.mark.parametrize(("written_as", "text"), NONE)
def test_what_is_no_call_comes_back_as_text(written_as: ToolFormat, text: str) -> None:
    assert parse(written_as, [text]) == [text]
    assert parse(written_as, list(text)) == [text]


@pytest.mark.parametrize(("written_as", "text", "expected"), CASES)
def test_every_cut_in_two_and_single_characters_give_the_same(
    written_as: ToolFormat, text: str, expected: list[object]
) -> None:
    for at in range(len(text) + 1):
        assert parse(written_as, [text[:at], text[at:]]) == expected
    assert parse(written_as, list(text)) == expected


FRAGMENTS = [
    CALL, LLAMA_CALL, "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|tool_call|>", "<|/tool_call|>",
    "<|python_tag|>", "functools[", "functools", "f", "{", "}", "[", "]", '"', "\\", ";", " ", "\n", ",", "é", "<", "NaN", "{}",
    '"name": ', '"arguments": {}', "[CALL_ID]",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)


@settings(derandomize=True, deadline=None, max_examples=600)
@given(written_as=st.sampled_from(FORMATS), text=TEXTS, cuts=st.lists(st.integers(0, 400), max_size=8))
def test_any_text_cut_anywhere_gives_the_same_parts(
    written_as: ToolFormat, text: str, cuts: list[int]
) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    whole = parse(written_as, [text])
    assert parse(written_as, pieces) == whole
    assert parse(written_as, list(text)) == whole
    if all(isinstance(part, str) for part in whole):
        assert "".join(str(part) for part in whole) == text, "nothing is lost where there is no call"


ARGUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('a"\\{}[]<>é/ \n', max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
CALLS = st.lists(
    st.tuples(st.sampled_from(["f", "get_weather", "a.b-c"]), st.dictionaries(st.text(max_size=4), ARGUMENTS, max_size=3)),
    min_size=1,
    max_size=4,
)  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=200)
@given(written_as=st.sampled_from(FORMATS), calls=CALLS, before=st.sampled_from(["", "I see.", "<", "{x"]))
def test_what_a_format_writes_is_read_back(
    written_as: ToolFormat, calls: list[tuple[str, dict[str, object]]], before: str
) -> None:
    written = written_as.written([ToolCall(name, json.dumps(arguments)) for name, arguments in calls])
    if before and written_as is LLAMA3:
        written = f"<|python_tag|>{written}"  # a bare call stands alone
    assert parse(written_as, [before + written]) == [*([before] if before else []), *calls]


def test_text_is_told_as_soon_as_it_can_be_no_call() -> None:
    parser = ToolCallParser(HERMES)
    assert parser.push("The result") == [TextPart("The result")]
    assert parser.push(" <tool") == []
    assert parser.push("box>") == [TextPart(" <toolbox>")]


def test_a_call_is_told_with_its_last_character() -> None:
    parser = ToolCallParser(HERMES)
    assert parser.push(f"<tool_call>{CALL[:-1]}") == []
    assert parser.push("}") == [ToolCallPart(ToolCall("weather", '{"city": "Paris"}'))]


def test_after_too_many_calls_the_rest_is_text() -> None:
    one = f"<tool_call>{CALL}</tool_call>"
    parts = parse(HERMES, [one * (MAX_CALLS + 2)])
    assert parts[:MAX_CALLS] == [PARIS] * MAX_CALLS
    assert "".join(map(str, parts[MAX_CALLS:])) == one * 2


def test_a_call_without_an_end_is_text_and_soon_so() -> None:
    text = '<tool_call>{"' * 20_000
    started_s = time.perf_counter()
    assert parse(HERMES, [text]) == [text]
    assert time.perf_counter() - started_s < 1


def test_a_call_beyond_the_limit_of_size_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence.text.tool_calls.MAX_CALL_CHARACTERS", 100)
    text = '<tool_call>{"name": "f", "arguments": {"a": "' + "x" * 100 + '"}}</tool_call>'
    assert parse(HERMES, [text]) == parse(HERMES, list(text)) == [text]
