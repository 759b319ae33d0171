"""What a model folder says about its special tokens, as transformers reads it.

    tokenizer_config.json     "bos_token": "<s>"  or  {"content": "<s>", ...};
                              "added_tokens_decoder": {"1": {"content": "<s>", "special": true, ...}}
    special_tokens_map.json   the same keys; counts only if tokenizer_config.json
                              has no "added_tokens_decoder" (then it wins)
    added_tokens.json         {"<tok>": 32000}; the old form of added_tokens_decoder

Facts follow transformers 5, tokenization_utils_base.py. Its `add_bos_token` and
`add_eos_token` are deliberately not here: where a tokenizer.json exists,
transformers ignores them and the post-processor in that file decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from influence.dataclass import dataclass
from influence.errors import TokenizerError
from influence.text.model_files import read_json_object

CONFIG_MAX_BYTES = 32 << 20  # the largest known is 4 MB; chat templates are in it too

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class AddedToken:
    """A token that stands outside the model's own vocabulary rules; `tokenizers.AddedToken` as data."""

    content: str
    flags: Mapping[str, bool]  # of _FLAGS, those that the file states


@dataclass(frozen=True)
class SpecialTokens:
    """The named tokens ("bos_token" -> "<s>"), and tokens with their ids that the folder adds."""

    path: Path  # the file to name in an error
    named: Mapping[str, str]
    extra: tuple[str, ...]  # special too, but without a name
    added: Mapping[int, AddedToken]


def read_special_tokens(folder: Path) -> SpecialTokens:
    """Read the folder's files; raises TokenizerError for what can't be understood."""
    path = folder / "tokenizer_config.json"
    config = read_json_object(path, CONFIG_MAX_BYTES)
    if "added_tokens_decoder" in config:
        added = _added_by_id(path, config["added_tokens_decoder"])
    else:
        special_map = read_json_object(folder / "special_tokens_map.json", CONFIG_MAX_BYTES)
        config = {**config, **special_map}
        added = {}
    named = _named(path, config)
    if not added:
        added = _added_by_content(folder / "added_tokens.json", set(named.values()))
    return SpecialTokens(path=path, named=named, extra=_unnamed(path, config), added=added)


def _named(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The standard names, then the model's own ones ("image_token"), as templates see them."""
    named = {}
    for name in _NAMES:
        if config.get(name) is not None:
            named[name] = _content(path, name, config[name])
    extra = config.get("extra_special_tokens")
    own = {**config, **(extra if isinstance(extra, dict) else {})}
    for name, value in own.items():
        if name.endswith("_token") and name not in named and isinstance(value, str):
            named[name] = value
    return named


def _unnamed(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    key = "extra_special_tokens" if config.get("extra_special_tokens") else "additional_special_tokens"
    tokens = config.get(key)
    return tuple(_content(path, key, token) for token in tokens) if isinstance(tokens, list) else ()


def _content(path: Path, name: str, value: object) -> str:
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise TokenizerError(path, f"{name} is {value!r:.80}, but must be a string or an object with content")
    return content


def _added_by_id(path: Path, table: object) -> dict[int, AddedToken]:
    if not isinstance(table, dict):
        raise TokenizerError(path, "added_tokens_decoder must be an object from ids to tokens")
    added = {}
    for key, value in table.items():
        if not (key.isascii() and key.isdecimal() and len(key) <= 10 and isinstance(value, dict)):
            raise TokenizerError(path, f"added_tokens_decoder: {key!r:.40} is not an id with a token object")
        content = _content(path, f"added_tokens_decoder[{key}]", value)
        added[int(key)] = AddedToken(content, {flag: bool(value[flag]) for flag in _FLAGS if flag in value})
    return dict(sorted(added.items()))


def _added_by_content(path: Path, special: set[str]) -> dict[int, AddedToken]:
    added = {}
    for content, token_id in read_json_object(path, CONFIG_MAX_BYTES).items():
        if not isinstance(token_id, int) or isinstance(token_id, bool) or token_id < 0:
            raise TokenizerError(path, f"{content!r:.40} has the id {token_id!r:.40}, which is not one")
        is_special = content in special
        added[token_id] = AddedToken(content, {"special": is_special, "normalized": not is_special})
    return dict(sorted(added.items()))
