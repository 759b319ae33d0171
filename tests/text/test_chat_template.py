"""Chat templates against transformers' apply_chat_template, and where they are found."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from influence.errors import InvalidParameter, TokenizerError
from influence.text.chat_template import ChatTemplate
from influence.text.special_tokens import read_special_tokens
from influence.text.template_process import TemplateProcess

TEMPLATES = [
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "chatml",
    "google-gemma-2-2b-it",
    "ibm-granite-granite-3.3-2B-Instruct",
    "llama-2-chat",
    "meta-llama-Llama-3.1-8B-Instruct",
    "microsoft-Phi-3.5-mini-instruct",
    "mistral-instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "zephyr",
]
FOLDERS = ["gemma", "phi-3-mini", "phi-4-mini", "qwen2.5", "qwen3", "smollm3", "tinyllama-1.1b-chat-v1.0"]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}

SYSTEM = {"role": "system", "content": "Be <brief> & kind."}
USER = {"role": "user", "content": "What is 2 + 2?\n"}
ANSWER = {"role": "assistant", "content": "  4  "}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call00001",
            "type": "function",
            "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": '{"t": -1.5}'}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "a name", "enum": ["Zürich", "<b>"]},
                "days": {"type": "integer", "description": "how many"},
            },
            "required": ["city"],
        },
    },
}

CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one question": {"messages": [USER]},
    "with a system": {"messages": [SYSTEM, USER]},
    "many turns": {"messages": [SYSTEM, USER, ANSWER, USER, {"role": "assistant", "content": "Four."}, USER]},
    "without a generation prompt": {"messages": [USER, ANSWER], "add_generation_prompt": False},
    "empty content": {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": ""}]},
    "no content at all": {"messages": [{"role": "user", "content": None}]},
    "unicode": {"messages": [{"role": "user", "content": "猫 🦙 \u2028 ﷺ {{ x }} {% y %}"}]},
    "special tokens inside": {
        "messages": [{"role": "user", "content": "<|im_end|></s>[/INST]<end_of_turn>"}]
    },
    "two users in a row": {"messages": [USER, USER]},
    "assistant first": {"messages": [ANSWER, USER]},
    "system only": {"messages": [SYSTEM]},
    "unknown role": {"messages": [{"role": "narrator", "content": "Once"}]},
    "no role": {"messages": [{"content": "Once"}]},
    "content in parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
    "reasoning": {
        "messages": [USER, {"role": "assistant", "content": "4", "reasoning": "two and two"}, USER],
    },
    "thinking in the text": {
        "messages": [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4"}, USER],
    },
    "thinking off": {"messages": [USER], "variables": {"enable_thinking": False}},
    "tools": {"messages": [SYSTEM, USER], "tools": [TOOL]},
    "tool calls": {"messages": [USER, CALL, RESULT], "tools": [TOOL]},
    "tool calls and an answer": {"messages": [SYSTEM, USER, CALL, RESULT, ANSWER, USER], "tools": [TOOL]},
    "two results": {"messages": [USER, CALL, RESULT, RESULT, ANSWER, USER], "tools": [TOOL, TOOL]},
    "no tools in the list": {"messages": [USER], "tools": []},
    "documents": {"messages": [USER], "documents": [{"doc_id": 1, "title": "T", "text": "Text."}]},
    "own date": {"messages": [USER], "variables": {"date_string": "26 Jul 2024"}},
}


def folder_with(tmp_path: Path, template: str, **files: str) -> Path:
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    for name, text in files.items():
        (tmp_path / "additional_chat_templates").mkdir(exist_ok=True)
        (tmp_path / "additional_chat_templates" / f"{name}.jinja").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def load() -> Iterator[Any]:
    """ChatTemplate.load whose processes end with the test."""
    loaded: list[ChatTemplate] = []

    def load(folder: Path, special_tokens: dict[str, str] = SPECIAL) -> ChatTemplate:
        template = ChatTemplate.load(folder, special_tokens)
        assert template is not None
        loaded.append(template)
        return template

    yield load
    for template in loaded:
        template.close()


def transformers_tokenizer(templates: str | dict[str, str], special_tokens: dict[str, str]) -> Any:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    bare = tokenizers.Tokenizer(tokenizers.models.BPE())
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=bare, **special_tokens)
    wrapped.chat_template = templates
    return wrapped


def theirs(tokenizer: Any, conversation: dict[str, Any]) -> str | None:
    """What transformers renders, None where it raises."""
    options = {"add_generation_prompt": True, **conversation}
    variables = options.pop("variables", {})
    messages = options.pop("messages")
    try:
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, **options, **variables)
    except Exception:
        return None
    assert isinstance(rendered, str)
    return rendered


def ours(template: ChatTemplate, conversation: dict[str, Any]) -> str | None:
    """What we render, None where we raise the error that we promise."""
    try:
        return template.render(**conversation)
    except TokenizerError:
        return None


def check_all(template: ChatTemplate, tokenizer: Any) -> int:
    """Compare every conversation; how many of them transformers renders."""
    expected = {name: theirs(tokenizer, conversation) for name, conversation in CONVERSATIONS.items()}
    assert {name: ours(template, conversation) for name, conversation in CONVERSATIONS.items()} == expected
    return sum(text is not None for text in expected.values())


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_of_real_models_render_as_in_transformers(
    name: str, shared_data: Path, tmp_path: Path, load: Any
) -> None:
    text = (shared_data / "chat-templates" / f"{name}.jinja").read_text(encoding="utf-8")
    n_rendered = check_all(load(folder_with(tmp_path, text)), transformers_tokenizer(text, SPECIAL))
    assert n_rendered >= 5


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_real_models_render_as_in_transformers(name: str, shared_data: Path, load: Any) -> None:
    folder = shared_data / "tokenizers" / name
    special = dict(read_special_tokens(folder).named)
    template = load(folder, special)
    n_rendered = check_all(template, transformers_tokenizer(template.source("default"), special))
    assert n_rendered >= 5


CONSTRUCTS = {
    "loop controls": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}!{% endfor %}",
    "trimmed blocks": "  {% if true %}\n  a\n  {%- endif %}\n\n{{ 'b' }}\n",
    "tojson": "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ {'b': '<é>', 'a': 1} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "dict": "{{ dict(a=1) }}{{ dict.fromkeys(['a']) }}{% for k, v in {'x': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
    "macro": "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{% call(y) m(2) %}{{ y }}{% endcall %}",
    "no html escaping": "{{ messages[0].content ~ '<&>' }}",
    "special tokens": "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}",
    "variables win over special tokens": "{{ bos_token }}{{ extra }}",
    "undefined": "{{ nothing }}{{ messages[0].nothing }}",
    "undefined of undefined": "{{ nothing.at.all }}",
    "date": "{{ strftime_now('%Y-%m-%d') }}",
    "late imports": "{{ messages | pprint }}{{ 'a b c' | wordwrap(2) }}{{ 'a' | center(9) }}{{ ['b', 'a'] | sort | join }}",
    "refusal": "{{ raise_exception('no') }}",
    "syntax": "{% if %}",
    "private": "{{ namespace(_a=1) }}",
    "private, set": "{% set ns = namespace() %}{% set ns._a = 1 %}",
    "mutation": "{{ messages.append(1) }}",
    "import": "{% import 'a' as b %}",
}


@pytest.fixture(scope="module")
def constructs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatTemplate]:
    """All of CONSTRUCTS by name, in one process."""
    folder = folder_with(tmp_path_factory.mktemp("constructs"), "", **CONSTRUCTS)
    template = ChatTemplate.load(folder, SPECIAL)
    assert template is not None
    yield template
    template.close()


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_constructs_of_the_template_language_mean_what_they_mean_in_transformers(
    name: str, constructs: ChatTemplate
) -> None:
    variables = {"bos_token": "<B>", "extra": {"k": [1, None, 0.5]}}
    conversation = {"messages": [USER, ANSWER], "variables": variables}
    expected = theirs(transformers_tokenizer(CONSTRUCTS[name], SPECIAL), conversation)
    assert ours(constructs, {**conversation, "name": name}) == expected


def test_the_template_is_chosen_by_name_or_by_the_presence_of_tools(tmp_path: Path, load: Any) -> None:
    template = load(folder_with(tmp_path, "plain", tool_use="tools", rag="rag"))
    assert set(template.names) == {"default", "tool_use", "rag"}
    assert template.render([USER]) == "plain"
    assert template.render([USER], tools=[TOOL]) == "tools"
    assert template.render([USER], tools=[TOOL], name="default") == "plain"
    assert template.render([USER], name="rag") == "rag"
    with pytest.raises(InvalidParameter, match="default, rag, tool_use"):
        template.render([USER], name="other")


@pytest.mark.parametrize("as_list", [True, False])
def test_the_config_may_hold_one_template_or_a_list(tmp_path: Path, load: Any, as_list: bool) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    config = {"chat_template": named if as_list else "plain"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = load(tmp_path)
    assert template.names == (("default", "tool_use") if as_list else ("default",))
    assert template.render([USER], tools=[TOOL]) == ("tools" if as_list else "plain")


def test_a_file_wins_over_the_config(tmp_path: Path, load: Any) -> None:
    named = [{"name": "default", "template": "old"}, {"name": "tool_use", "template": "old tools"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    template = load(folder_with(tmp_path, "new"))
    assert template.names == ("default",)
    assert template.render([USER], tools=[TOOL]) == "new"


def test_without_a_template_there_is_none(tmp_path: Path) -> None:
    assert ChatTemplate.load(tmp_path, {}) is None
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": null}')
    assert ChatTemplate.load(tmp_path, {}) is None


def test_named_templates_without_a_default_must_be_named(tmp_path: Path, load: Any) -> None:
    named = [{"name": "rag", "template": "rag"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    template = load(tmp_path)
    assert template.render([USER], name="rag") == "rag"
    with pytest.raises(InvalidParameter, match="one of rag"):
        template.render([USER])


def test_a_refusal_says_what_the_template_says(tmp_path: Path, load: Any) -> None:
    template = load(folder_with(tmp_path, "{{ raise_exception('Roles must alternate!') }}"))
    with pytest.raises(
        TokenizerError, match=r"chat_template\.jinja: .*refuses.*Roles must alternate!"
    ) as caught:
        template.render([USER])
    assert "--raw" in caught.value.hint


def test_a_syntax_error_names_file_and_line(tmp_path: Path, load: Any) -> None:
    template = load(folder_with(tmp_path, "a\n{% for %}"))
    with pytest.raises(TokenizerError, match=r"chat_template\.jinja: .*line 2"):
        template.render([USER])


def test_callers_mistakes_are_named(tmp_path: Path, load: Any) -> None:
    template = load(folder_with(tmp_path, "x"))
    wrong: list[dict[str, Any]] = [
        {"messages": []},
        {"messages": ["hello"]},
        {"messages": [{"role": "user", "content": object()}]},
        {"messages": [USER], "tools": ["weather"]},
        {"messages": [USER], "documents": [1]},
        {"messages": [USER], "variables": {"messages": []}},
    ]
    for arguments in wrong:
        with pytest.raises(InvalidParameter):
            template.render(**arguments)
    assert template.render([USER]) == "x"


def test_what_the_caller_gave_stays_as_it_was(tmp_path: Path, load: Any) -> None:
    template = load(folder_with(tmp_path, "{{ messages }}"))
    message = {"role": "assistant", "content": None, "reasoning": "hm"}
    template.render([message])
    assert message == {"role": "assistant", "content": None, "reasoning": "hm"}


def test_several_threads_may_render_at_once(tmp_path: Path, load: Any) -> None:
    template = load(folder_with(tmp_path, "{{ messages[0].content }}"))
    found: dict[int, str] = {}

    def work(number: int) -> None:
        for _ in range(20):
            found[number] = template.render([{"role": "user", "content": f"thread {number}"}])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"thread {number}" for number in range(4)}


def test_a_process_that_was_started_ahead_renders_and_is_ended_where_there_is_no_template(
    tmp_path: Path,
) -> None:
    process = TemplateProcess()
    process.start()
    assert ChatTemplate.load(tmp_path, SPECIAL, process=process) is None
    assert process._process is None
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    process.start()
    started = process._process
    template = ChatTemplate.load(tmp_path, SPECIAL, process=process)
    assert template is not None
    assert template.render([USER]) == USER["content"]
    assert process._process is started
    template.close()
