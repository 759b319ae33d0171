"""How a request becomes token ids.

A conversation goes through the model's chat template and is encoded without
further special tokens, because templates write their own (as transformers'
apply_chat_template does). Plain text is encoded as transformers encodes it:
BOS before it where the tokenizer adds one, and special tokens spelt in the
text taken as such, for whoever writes a raw prompt may want them.

In a conversation, though, a special token spelt in a message (of any role but
the assistant's) stays text: a user can't close his turn and open another. This
goes further than transformers. A message without such a spelling is encoded
exactly as there.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from influence.dataclass import dataclass
from influence.errors import InvalidParameter, TokenizerError

if TYPE_CHECKING:
    from influence.text.chat_template import ChatTemplate
    from influence.text.tokenizer import Tokenizer

Message = Mapping[str, Any]  # "role", "content", and what else the template knows


@dataclass(frozen=True)
class Prompt:
    """What the model gets."""

    text: str
    token_ids: list[int]
    used_template: bool


def build_prompt(
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    prompt: str,
    *,
    system: str | None = None,
    raw: bool = False,
) -> Prompt:
    """The prompt as one user message in the model's template, or as plain text.

    Plain text if the model has no template or `raw` is set; `system` then
    stands before it with a blank line between. An empty text becomes the BOS
    token alone; `token_ids` is empty where the tokenizer has none.
    """
    if template is not None and not raw:
        messages = [{"role": "system", "content": system}] if system else []
        return build_chat_prompt(tokenizer, template, [*messages, {"role": "user", "content": prompt}])
    text = f"{system}\n\n{prompt}" if system else prompt
    return Prompt(text, encode_text(tokenizer, text), used_template=False)


def build_chat_prompt(
    tokenizer: Tokenizer, template: ChatTemplate | None, messages: Sequence[Message], **render_options: Any
) -> Prompt:
    """A conversation in the model's template; `render_options` are those of ChatTemplate.render.

    Raises InvalidParameter if the model has no template, TokenizerError if the
    template refuses the conversation.
    """
    if template is None:
        raise InvalidParameter(
            "messages", "a conversation", "a plain prompt: this model has no chat template"
        )
    try:
        messages = _with_tools_fitted(template, messages, render_options.get("tools"))
        escapes = _escapes(tokenizer, messages)
        escaped = [_escaped(message, escapes) for message in messages]
    except RecursionError as error:
        raise InvalidParameter("messages", "nested too deeply", "plain conversations") from error
    rendered = _render(template, escaped, render_options)
    ids = _encode_rendered(tokenizer, rendered, escapes)
    return Prompt(_restored(rendered, escapes), _single_bos(ids, tokenizer.bos_id), used_template=True)


def _with_tools_fitted(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Message] | None
) -> Sequence[Message]:
    """The messages with tools, calls and results where this template looks for them."""
    if not tools and not any(_role(message) == "tool" or _has_calls(message) for message in messages):
        return messages
    from influence.text.tool_messages import fitted_messages

    return fitted_messages(messages, tools, template.tool_habits)


def _has_calls(message: Message) -> bool:
    return isinstance(message, Mapping) and bool(message.get("tool_calls"))


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of plain text, with one BOS where the tokenizer adds it; an empty text is BOS alone."""
    ids = _single_bos(tokenizer.encode(text), tokenizer.bos_id)
    return ids or ([] if tokenizer.bos_id is None else [tokenizer.bos_id])


def _single_bos(ids: list[int], bos_id: int | None) -> list[int]:
    """The ids with a doubled BOS at their front made one."""
    n = sum(1 for _ in itertools.takewhile(lambda token_id: token_id == bos_id, ids))
    return ids[max(0, n - 1) :]


def _render(template: ChatTemplate, messages: Sequence[Message], options: Mapping[str, Any]) -> str:
    try:
        return template.render(messages, **options)
    except TokenizerError as error:
        others = [message for message in messages if _role(message) != "system"]
        if len(others) < len(messages) and _renders(template, others, options):
            error.hint = (
                "this model's template takes no system message: put its text into the first user message"
            )
        raise


def _role(message: Message) -> object:
    """The message's role; None where it is no message at all, which the template then says."""
    return message.get("role") if isinstance(message, Mapping) else None


def _renders(template: ChatTemplate, messages: Sequence[Message], options: Mapping[str, Any]) -> bool:
    try:
        template.render(messages, **options)
    except TokenizerError:
        return False
    return True


# Special tokens spelt by users travel through the template as marks that no text contains.


def _escapes(tokenizer: Tokenizer, messages: Sequence[Message]) -> dict[str, str]:
    """Special tokens that messages spell -> the mark that stands for each; normally empty."""
    users = [message for message in messages if _role(message) != "assistant"]
    text = "\n".join(_strings(users))
    spelt = [token for token in _special_tokens_in(tokenizer, text) if token in text]
    free = next(n for n in itertools.count() if f"\ue000{n}:" not in text)
    return {token: f"\ue000{free}:{i}\ue001" for i, token in enumerate(spelt)}


def _special_tokens_in(tokenizer: Tokenizer, text: str) -> list[str]:
    """The distinct special tokens that encoding finds in the text, longest first."""
    ids = set(tokenizer.encode(text, add_special_tokens=False))
    return sorted((tokenizer.token(i) for i in ids if tokenizer.is_special(i)), key=len, reverse=True)


def _escaped(message: Message, escapes: Mapping[str, str]) -> Message:
    if not escapes or _role(message) == "assistant":
        return message
    pattern = _any_of(escapes)
    return _map_strings(message, lambda text: pattern.sub(lambda match: escapes[match[0]], text))  # type: ignore[no-any-return]


def _strings(value: Any) -> Iterator[str]:
    """Every text in messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """The message with each text in it changed; roles and keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {k: v if k in ("role", "type") else _map_strings(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(v, change) for v in value]
    return value


def _encode_rendered(tokenizer: Tokenizer, rendered: str, escapes: Mapping[str, str]) -> list[int]:
    """The ids of a rendered template: its own special tokens parsed, escaped ones as text.

    The text is cut at the template's special tokens, where encoding cuts it
    too; only a part that holds a mark is encoded apart.
    """
    if not escapes:
        return tokenizer.encode(rendered, add_special_tokens=False)
    control = _special_tokens_in(tokenizer, rendered)
    parts = _any_of(control, captured=True).split(rendered) if control else [rendered]
    ids: list[int] = []
    for is_marked, group in itertools.groupby(parts, lambda part: any(m in part for m in escapes.values())):
        text = _restored("".join(group), escapes)
        ids += tokenizer.encode(text, add_special_tokens=False, parse_special=not is_marked)
    return ids


def _restored(text: str, escapes: Mapping[str, str]) -> str:
    for token, mark in escapes.items():
        text = text.replace(mark, token)
    return text


def _any_of(strings: Sequence[str] | Mapping[str, str], *, captured: bool = False) -> re.Pattern[str]:
    """Matches any of the strings, a longer one before its own beginning."""
    alternatives = "|".join(re.escape(string) for string in sorted(strings, key=len, reverse=True))
    return re.compile(f"({alternatives})" if captured else alternatives)
