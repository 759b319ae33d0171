"""Which format a template shows, and what stands around calls in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from influence.text.tokenizer import Tokenizer
from influence.text.tool_calls import ToolCall
from influence.text.tool_formats import (
    GRANITE,
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL_NAMED,
    PHI,
    ToolFormat,
    arguments_json,
    tool_format,
)
from support import made_tokenizers

TEMPLATES = [
    ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", HERMES),
    ("Qwen-Qwen2.5-7B-Instruct", HERMES),
    ("Qwen-Qwen3-0.6B", HERMES),
    ("ibm-granite-granite-3.3-2B-Instruct", GRANITE),
    ("meta-llama-Llama-3.1-8B-Instruct", LLAMA3),
    ("mistralai-Mistral-Nemo-Instruct-2407", MISTRAL),
    ("chatml", None),
    ("google-gemma-2-2b-it", None),
    ("llama-2-chat", None),
    ("mistral-instruct", None),
    ("microsoft-Phi-3.5-mini-instruct", None),
    ("zephyr", None),
]


@pytest.mark.parametrize(("name", "expected"), TEMPLATES)
def test_the_format_of_published_templates(name: str, expected: ToolFormat | None, shared_data: Path) -> None:
    assert tool_format((shared_data / "chat-templates" / f"{name}.jinja").read_text()) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, None),
        ("", None),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}", MISTRAL_NAMED),
        ("<|tool|>{{ message['tools'] }}<|/tool|>", PHI),
        ("<|start_of_role|>... <tool_call>", HERMES),
        ("<tool_call>\n<function=name>", None),
        ("<tool_call>name\n<arg_key>", None),
    ],
)
def test_the_format_of_what_a_template_says(source: str | None, expected: ToolFormat | None) -> None:
    assert tool_format(source) == expected


@pytest.mark.parametrize(
    ("written_as", "expected"),
    [
        (LLAMA3, '{"name": "é", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}'),
        (MISTRAL, '[TOOL_CALLS][{"name": "é", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]'),
        (MISTRAL_NAMED, '[TOOL_CALLS]é[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}'),
        (
            HERMES,
            '<tool_call>\n{"name": "é", "arguments": {"a": 1}}\n</tool_call>\n'
            '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
        ),
        (GRANITE, '<|tool_call|>[{"name": "é", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]'),
        (
            PHI,
            '<|tool_call|>[{"name": "é", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]<|/tool_call|>',
        ),
    ],
)
def test_calls_are_written_as_the_family_writes_them(written_as: ToolFormat, expected: str) -> None:
    assert written_as.written([ToolCall("é", '{"a": 1}'), ToolCall("g", "{}")]) == expected


def test_marks_that_decoding_would_skip_are_named_and_others_are_not(tmp_path: Path) -> None:
    content = made_tokenizers.byte_level()
    content["added_tokens"] += [
        made_tokenizers.added_token(261, "[TOOL_CALLS]"),
        made_tokenizers.added_token(262, "<tool_call>", special=False),
    ]
    tokenizer = Tokenizer.load(made_tokenizers.write(tmp_path, content))
    assert MISTRAL.shown_ids(tokenizer) == {261}
    assert MISTRAL.mark_ids(tokenizer) == {"[TOOL_CALLS]": 261}
    assert HERMES.shown_ids(tokenizer) == frozenset()
    assert HERMES.mark_ids(tokenizer) == {"<tool_call>": 262}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"é": 1}, '{"é": 1}'),
        ('{"a": 1}', '{"a": 1}'),
        ("", None),
        ("[1]", None),
        ('{"a": NaN}', None),
        ("[" * 100_000, None),
        (3, None),
    ],
)
def test_arguments_are_an_object_or_its_text(given: object, expected: str | None) -> None:
    assert arguments_json(given) == expected
