"""Tools of requests, as templates take them and as schemas hold their calls."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from influence import demo
from influence.generation.prompt import build_chat_prompt
from influence.server.errors import ApiError
from influence.server.openai_messages import AssistantCall, CalledFunction, ChatMessage, template_messages
from influence.server.replies import ForcedCallReader
from influence.server.tool_use import Tool, ToolUse, template_call_id, tool_use
from influence.text.chat_template import ChatTemplate, _Source
from influence.text.tokenizer import Tokenizer
from influence.text.tool_calls import TextPart, ToolCallPart, tool_format
from support.scripted import scripted_service

TREE = {
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/Node"}},
    "required": ["root"],
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
}
TOOLS = (Tool("plant", None, TREE), Tool("water", "Water it.", {}))
CONVERSATION = [
    ChatMessage("user", "Plant a tree."),
    ChatMessage(
        "assistant",
        tool_calls=[AssistantCall(CalledFunction("plant", '{"root": {}}'), "call_of_a_client-1")],
    ),
    ChatMessage("tool", "planted", tool_call_id="call_of_a_client-1"),
]


def test_an_id_is_one_that_every_template_takes() -> None:
    made = template_call_id("call_0123456789abcdef")
    assert len(made) == 9
    assert made.isalnum()
    assert made == template_call_id("call_0123456789abcdef") != template_call_id("call_x")
    assert template_call_id("abcDEF123") == "abcDEF123"


def test_every_template_with_tools_takes_a_conversation_with_calls(shared_data: Path) -> None:
    tokenizer = Tokenizer.load(demo.folder())
    taken = []
    for path in sorted((shared_data / "chat-templates").glob("*.jinja")):
        text = path.read_text()
        if tool_format(text) is None:
            continue
        template = ChatTemplate({"default": _Source(path, text)}, {"bos_token": "<s>", "eos_token": "</s>"})
        try:
            tools = [tool.for_template() for tool in TOOLS]
            messages = template_messages(CONVERSATION)
            rendered = build_chat_prompt(tokenizer, template, messages, tools=tools).text
        finally:
            template.close()
        assert "planted" in rendered, path.name
        taken.append(path.name)
    assert len(taken) >= 4


@pytest.mark.parametrize("parallel", [True, False])
def test_the_schema_of_forced_calls_takes_calls_and_nothing_else(parallel: bool) -> None:
    schema = ToolUse(TOOLS, "required", parallel)._schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    def takes(call: object) -> bool:
        return validator.is_valid([call] if parallel else call)

    assert takes({"name": "plant", "arguments": {"root": {"next": {"next": {}}}}})
    assert takes({"name": "water", "arguments": {}})
    assert not takes({"name": "plant", "arguments": {}})
    assert not takes({"name": "plant", "arguments": {"root": {"next": 5}}})
    assert not takes({"name": "water", "arguments": {"much": True}})
    assert not takes({"name": "burn", "arguments": {}})


@pytest.mark.parametrize(
    ("tools", "place"),
    [
        ([Tool("", None, {})], "tools[0]"),
        ([Tool("a", None, {}), Tool("a", None, {})], "tools[1]"),
        ([Tool(f"t{i}", None, {}) for i in range(129)], "tools"),
    ],
)
def test_tools_that_can_not_be_told_apart_are_refused(tools: list[Tool], place: str) -> None:
    with scripted_service() as (service, _), pytest.raises(ApiError) as caught:
        tool_use(service, tools, "auto")
    assert caught.value.param == place


def test_forced_calls_are_read_however_their_text_is_cut() -> None:
    text = ' [ {"name": "f", "arguments": {"a": "}]\\"{", "b": [{}]}},\n{"name":"g","arguments":{}} ]'
    for size in (1, 2, 3, 7, len(text)):
        reader = ForcedCallReader()
        parts = [part for at in range(0, len(text), size) for part in reader.push(text[at : at + size])]
        assert [part.call.name for part in parts if isinstance(part, ToolCallPart)] == ["f", "g"]
        assert reader.finish() == []


def test_a_forced_call_that_was_cut_off_comes_back_as_text() -> None:
    reader = ForcedCallReader()
    assert reader.push('[{"name": "f", "argu') == []
    assert reader.finish() == [TextPart('{"name": "f", "argu')]
