"""Calls and tools in a conversation, as published templates want them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from influence.text.chat_template import ChatTemplate
from influence.text.tool_formats import GRANITE, HERMES, LLAMA3, MISTRAL, PHI
from influence.text.tool_messages import ToolHabits, fitted_messages

Load = Callable[[Path], ChatTemplate]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

USER = {"role": "user", "content": "Is it warm?"}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "which"}}},
    },
}


def calling(arguments: object, content: str | None = None) -> dict[str, Any]:
    call = {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


RESULT = {"role": "tool", "tool_call_id": "call00001", "content": "21 degrees"}


@pytest.fixture
def load() -> Iterator[Load]:
    templates = []

    def loaded(folder: Path) -> ChatTemplate:
        template = ChatTemplate.load(folder, SPECIAL)
        assert template is not None
        templates.append(template)
        return template

    yield loaded
    for template in templates:
        template.close()


def made(load: Load, folder: Path, source: str) -> ChatTemplate:
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    return load(folder)


def published(load: Load, folder: Path, shared_data: Path, name: str) -> ChatTemplate:
    return made(load, folder, (shared_data / "chat-templates" / f"{name}.jinja").read_text(encoding="utf-8"))


PUBLISHED = [
    ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", ToolHabits(HERMES, "object")),
    ("Qwen-Qwen2.5-7B-Instruct", ToolHabits(HERMES, "object")),
    ("Qwen-Qwen3-0.6B", ToolHabits(HERMES, "object")),
    ("ibm-granite-granite-3.3-2B-Instruct", ToolHabits(GRANITE, "unwritten")),
    ("meta-llama-Llama-3.1-8B-Instruct", ToolHabits(LLAMA3, "object")),
    ("mistralai-Mistral-Nemo-Instruct-2407", ToolHabits(MISTRAL, "object")),
]


@pytest.mark.parametrize(("name", "expected"), PUBLISHED)
def test_the_habits_of_published_templates(
    load: Load, tmp_path: Path, shared_data: Path, name: str, expected: ToolHabits
) -> None:
    assert published(load, tmp_path, shared_data, name).tool_habits == expected


def test_the_habits_of_models_that_read_tools_elsewhere(load: Load, shared_data: Path) -> None:
    tokenizers = shared_data / "tokenizers"
    assert load(tokenizers / "phi-4-mini").tool_habits == ToolHabits(PHI, "unwritten", tools_in_system=True)
    assert load(tokenizers / "smollm3").tool_habits == ToolHabits(HERMES, "unwritten")


@pytest.mark.parametrize("name", [name for name, _ in PUBLISHED])
def test_a_client_s_conversation_shows_the_call_and_its_result_in_every_template(
    load: Load, tmp_path: Path, shared_data: Path, name: str
) -> None:
    template = published(load, tmp_path, shared_data, name)
    messages = fitted_messages([USER, calling('{"city": "Zürich"}'), RESULT], [TOOL], template.tool_habits)
    rendered = template.render(messages, tools=[TOOL])
    assert '{"city": "Zürich"}' in rendered
    assert "21 degrees" in rendered
    assert "weather" in rendered


@pytest.mark.parametrize("arguments", [{"city": "Rome"}, '{"city": "Rome"}'])
def test_arguments_are_text_where_a_template_joins_them_to_text(
    load: Load, tmp_path: Path, arguments: object
) -> None:
    source = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
        "<tool_call>{{ c.function.name + ' ' + c.function.arguments }}{% endfor %}{% endfor %}"
    )
    template = made(load, tmp_path, source)
    assert template.tool_habits == ToolHabits(HERMES, "text")
    messages = fitted_messages([USER, calling(arguments)], None, template.tool_habits)
    assert template.render(messages).endswith('<tool_call>weather {"city": "Rome"}')


def test_calls_that_a_template_leaves_out_are_written_as_the_model_writes_them() -> None:
    messages = fitted_messages(
        [USER, calling({"city": "Rome"}, "A moment.")], None, ToolHabits(HERMES, "unwritten")
    )
    assert messages[1] == {
        "role": "assistant",
        "content": 'A moment.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    }


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_tools_go_into_the_system_message_where_a_template_reads_them_there(
    load: Load, shared_data: Path, system: str | None
) -> None:
    template = load(shared_data / "tokenizers" / "phi-4-mini")
    messages = [USER] if system is None else [{"role": "system", "content": system}, USER]
    rendered = template.render(fitted_messages(messages, [TOOL], template.tool_habits), tools=[TOOL])
    assert rendered.startswith(f'<|system|>{system or ""}<|tool|>[{{"name": "weather"')


def test_a_result_gets_the_name_of_its_call_and_keeps_its_own() -> None:
    own = {**RESULT, "name": "other"}
    messages = fitted_messages([USER, calling("{}"), RESULT, own], None, ToolHabits(HERMES))
    assert [message.get("name") for message in messages] == [None, None, "weather", "other"]


def test_arguments_that_are_no_object_stay_as_they_are() -> None:
    messages = fitted_messages([calling("no JSON")], None, ToolHabits(HERMES))
    assert messages[0]["tool_calls"][0]["function"]["arguments"] == "no JSON"


def test_what_has_nothing_to_do_with_tools_is_not_touched() -> None:
    messages = [
        USER,
        {"role": "assistant", "content": "Hi", "tool_calls": []},
        {"role": "user", "content": None},
    ]
    assert fitted_messages(messages, None, ToolHabits(HERMES, "unwritten")) == messages


@pytest.mark.parametrize(
    "message",
    [{"role": "assistant", "tool_calls": 3}, {"role": "assistant", "tool_calls": [3]}, "text", None],
)
def test_what_is_no_message_is_left_to_the_template(message: Any) -> None:
    assert fitted_messages([message], [TOOL], ToolHabits(HERMES)) == [message]
