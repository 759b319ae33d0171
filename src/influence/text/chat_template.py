"""Messages into the one string that a chat model was trained on.

    folder/
      chat_template.jinja                     the template "default"
      additional_chat_templates/NAME.jinja    more, by name ("tool_use", "rag")
      tokenizer_config.json                   "chat_template": a string, or a list of {"name", "template"};
                                              counts only if none of the files above is there

Rendered as transformers' `apply_chat_template` does (tokenization_utils_base.py
and utils/chat_template_utils.py, version 5), in a process with limits on time
and memory (template_process.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from influence.dataclass import dataclass
from influence.errors import InvalidParameter, TokenizerError
from influence.text.model_files import read_json_object, read_text
from influence.text.special_tokens import CONFIG_MAX_BYTES
from influence.text.template_process import RenderingFailed, TemplateProcess

if TYPE_CHECKING:
    from influence.text.tool_messages import ToolHabits

_MAX_FILES = 64
_OWN_VARIABLES = ("messages", "tools", "documents", "add_generation_prompt")
_REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")

_HINT_MESSAGES = "change the messages as the template asks, or give a plain prompt with --raw"
_HINT_TEMPLATE = "the template is broken or hostile: give a plain prompt with --raw"


@dataclass(frozen=True)
class _Source:
    path: Path
    text: str


class ChatTemplate:
    """A model's chat templates, one or several by name; usable from several threads."""

    def __init__(
        self,
        sources: Mapping[str, _Source],
        special_tokens: Mapping[str, str],
        *,
        limit_s: float = 1.0,
        max_characters: int = 4 << 20,
        process: TemplateProcess | None = None,
    ) -> None:
        self._sources = dict(sources)
        self._special_tokens = dict(special_tokens)
        self._limit_s = limit_s
        self._max_characters = max_characters
        self._process = process or TemplateProcess()

    @classmethod
    def load(
        cls,
        folder: Path,
        special_tokens: Mapping[str, str],
        *,
        limit_s: float = 1.0,
        max_characters: int = 4 << 20,
        process: TemplateProcess | None = None,
    ) -> ChatTemplate | None:
        """The folder's templates, None if it has none.

        `limit_s` is the processor time of one rendering, `max_characters` what it may
        write beyond its input's size. `process` renders, if one was started
        before; it is closed where there is no template. Raises TokenizerError for files that
        can't be understood; a template's own errors show when it is rendered.
        """
        sources = _from_files(folder) or _from_config(folder / "tokenizer_config.json")
        if not sources:
            if process is not None:
                process.close()
            return None
        return cls(sources, special_tokens, limit_s=limit_s, max_characters=max_characters, process=process)

    @property
    def names(self) -> tuple[str, ...]:
        """The templates' names; a single one is "default"."""
        return tuple(self._sources)

    def source(self, name: str) -> str:
        """The template's text."""
        return self._source_of(name).text

    @cached_property
    def tool_habits(self) -> ToolHabits:
        """What the template for tools does with them; found by rendering examples, at the first use."""
        from influence.text.tool_formats import tool_format
        from influence.text.tool_messages import tool_habits

        return tool_habits(self.render, tool_format(self.source(self._default_name(()))))

    def warm_up(self) -> None:
        """Start the rendering process now, so that the first `render` need not wait for it."""
        self._process.start()

    def close(self) -> None:
        """End the rendering process; a later `render` starts another."""
        self._process.close()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        name: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as text, special tokens written out.

        `tools` are JSON schemas; `variables` are the template's own switches
        ("enable_thinking"). Without a name, "tool_use" is taken for tools if
        there is one, else "default". Raises InvalidParameter for arguments that
        no template could take, TokenizerError if this one refuses or fails.
        """
        source = self._source_of(name or self._default_name(tools))
        own = {
            "messages": [_message(index, message) for index, message in enumerate(_nonempty(messages))],
            "tools": _mappings("tools", tools),
            "documents": _mappings("documents", documents),
            "add_generation_prompt": add_generation_prompt,
        }
        return self._render(source, {**self._special_tokens, **_checked(variables or {}), **own})

    def _default_name(self, tools: object) -> str:
        if tools is not None and "tool_use" in self._sources:
            return "tool_use"
        return "default"

    def _source_of(self, name: str) -> _Source:
        if name not in self._sources:
            raise InvalidParameter("chat template", name, f"one of {', '.join(sorted(self._sources))}")
        return self._sources[name]

    def _render(self, source: _Source, variables: Mapping[str, Any]) -> str:
        try:
            reply = self._process.render(
                source.text, variables, max_characters=self._max_characters, limit_s=self._limit_s
            )
        except RenderingFailed as error:
            raise _failed(source.path, error.reason, "", self._limit_s) from error
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidParameter("messages", str(error), "plain JSON values") from error
        if "failure" in reply:
            raise _failed(source.path, reply["failure"], reply["message"], self._limit_s)
        text: str = reply["text"]
        return text


def _failed(path: Path, reason: str, message: str, limit_s: float) -> TokenizerError:
    if reason == "refused":
        return TokenizerError(
            path, f"the chat template refuses these messages: {message}", hint=_HINT_MESSAGES
        )
    problem = {
        "broken": f"the chat template fails: {message}",
        "time": f"the chat template takes more than {limit_s:g} s",
        "memory": "the chat template takes too much memory",
        "size": "the chat template writes too much text",
    }.get(reason, "the chat template ended the process that renders it")
    return TokenizerError(path, problem, hint=_HINT_TEMPLATE)


def _from_files(folder: Path) -> dict[str, _Source]:
    paths = {"default": folder / "chat_template.jinja"}
    more = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    if len(more) > _MAX_FILES:
        raise TokenizerError(more[0].parent, f"holds {len(more)} templates, more than {_MAX_FILES}")
    paths |= {path.name.removesuffix(".jinja"): path for path in more}
    texts = {name: read_text(path, CONFIG_MAX_BYTES) for name, path in paths.items()}
    return {name: _Source(paths[name], text) for name, text in texts.items() if text is not None}


def _from_config(path: Path) -> dict[str, _Source]:
    stated = read_json_object(path, CONFIG_MAX_BYTES).get("chat_template")
    if stated is None:
        return {}
    if isinstance(stated, str):
        return {"default": _Source(path, stated)}
    named = _pairs(path, stated)
    return {name: _Source(path, text) for name, text in named.items()}


def _pairs(path: Path, stated: object) -> dict[str, str]:
    if isinstance(stated, list):
        entries = [entry if isinstance(entry, dict) else {} for entry in stated]
        pairs = [(entry.get("name"), entry.get("template")) for entry in entries]
    else:
        pairs = list(stated.items()) if isinstance(stated, dict) else [(None, None)]
    named = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if len(named) != len(pairs):
        raise TokenizerError(path, "chat_template must be a string or a list of {name, template}")
    return named


def _nonempty(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    if not messages:
        raise InvalidParameter("messages", messages, "at least one message")
    return messages


def _message(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """The message without empty fields, its reasoning under every name that templates know.

    Many templates fail on `content: null`, and all of them take an absent key.
    """
    if not isinstance(message, Mapping):
        raise InvalidParameter(f"messages[{index}]", message, "an object with a role")
    plain = {key: value for key, value in message.items() if value is not None}
    reasoning = next((plain[key] for key in _REASONING_NAMES if key in plain), None)
    if reasoning is None:
        return plain
    return {"thinking": reasoning, **plain, "reasoning_content": reasoning}


def _mappings(name: str, given: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    if given is None:
        return None
    for entry in given:
        if not isinstance(entry, Mapping):
            raise InvalidParameter(name, entry, "a list of objects")
    return [dict(entry) for entry in given]


def _checked(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in _OWN_VARIABLES:
        if name in variables:
            raise InvalidParameter("template variable", name, f"other than {', '.join(_OWN_VARIABLES)}")
    return variables
