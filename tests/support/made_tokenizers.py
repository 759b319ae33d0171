"""Small tokenizers made on the spot, as tokenizer.json texts: one for each kind of decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

_SPM_DECODERS: list[dict[str, Any]] = [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
_SPM_WORDS = ["<unk>", "<s>", "</s>", *BYTES, "▁", "▁▁", "a", "b", "▁a", "ab", "▁ab", "é", "猫", ".", "\n"]


def byte_characters() -> list[str]:
    """The 256 characters of the byte-level alphabet, as `tokenizers` lists them."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def tokenizer_json(**parts: Any) -> dict[str, Any]:
    """A tokenizer.json of a three-word BPE; top-level parts and parts of the model can be given."""
    model: dict[str, Any] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {"a": 0, "b": 1, "ab": 2},
        "merges": [["a", "b"]],
    }
    whole: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    for name, part in parts.items():
        (whole if name in whole else model)[name] = part
    return whole


def added_token(token_id: int, content: str, *, special: bool = True) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def adds_before(token_id: int, content: str) -> dict[str, Any]:
    """A post-processor that puts one special token before a text."""
    special, text = {"SpecialToken": {"id": content, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, text],
        "pair": [special, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {content: {"id": content, "ids": [token_id], "tokens": [content]}},
    }


def spm(decoder: dict[str, Any] | None) -> dict[str, Any]:
    """A SentencePiece-style vocabulary with byte tokens, BOS added."""
    return tokenizer_json(
        vocab={word: index for index, word in enumerate(_SPM_WORDS)},
        merges=[["▁", "▁"], ["▁", "a"], ["a", "b"], ["▁a", "b"]],
        byte_fallback=True,
        unk_token="<unk>",
        added_tokens=[added_token(0, "<unk>"), added_token(1, "<s>"), added_token(2, "</s>")],
        pre_tokenizer=_METASPACE,
        post_processor=adds_before(1, "<s>"),
        decoder=decoder,
    )


def byte_level() -> dict[str, Any]:
    """GPT-2's kind: bytes as characters, and added tokens that are plain text."""
    alphabet = byte_characters()
    return tokenizer_json(
        vocab={character: index for index, character in enumerate(alphabet)} | {"Ġa": 256, "ab": 257},
        merges=[["Ġ", "a"], ["a", "b"]],
        added_tokens=[
            added_token(258, "<|end|>"),
            added_token(259, "  é ", special=False),
            added_token(260, "<think>", special=False),
        ],
        pre_tokenizer=_BYTE_LEVEL,
        decoder=_BYTE_LEVEL,
    )


def word_pieces(decoder: dict[str, Any] | None) -> dict[str, Any]:
    """Words whose decoder looks at the first or the last token."""
    words = ["[X]", "##a", "b", "##", "c</w>", "d", "</w>", "'s", ".", " ", "", "é##", "▁▁e", "▁"]
    return tokenizer_json(
        vocab={word: index for index, word in enumerate(words)},
        merges=[],
        added_tokens=[added_token(0, "[X]")],
        decoder=decoder,
    )


def all_kinds() -> dict[str, dict[str, Any]]:
    """A tokenizer of every kind of decoder that the incremental detokenizer treats in its own way."""
    return {
        "byte-level": byte_level(),
        "spm with strip": spm({"type": "Sequence", "decoders": [*_SPM_DECODERS, _STRIP]}),
        "spm without strip": spm({"type": "Sequence", "decoders": _SPM_DECODERS}),
        "spm, replaced last": spm({"type": "Sequence", "decoders": [*_SPM_DECODERS[1:], _SPM_DECODERS[0]]}),
        "strip each token": spm({"type": "Sequence", "decoders": [_SPM_DECODERS[0], {**_STRIP, "start": 2}]}),
        "regex": spm({"type": "Replace", "pattern": {"Regex": "▁+|a$"}, "content": "~"}),
        "metaspace": word_pieces(_METASPACE),
        "metaspace, never": word_pieces({**_METASPACE, "prepend_scheme": "never"}),
        "wordpiece": word_pieces({"type": "WordPiece", "prefix": "##", "cleanup": True}),
        "wordpiece, not cleaned": word_pieces({"type": "WordPiece", "prefix": "##", "cleanup": False}),
        "bpe suffix": word_pieces({"type": "BPEDecoder", "suffix": "</w>"}),
        "ctc": word_pieces(
            {"type": "CTC", "pad_token": "d", "word_delimiter_token": "b", "cleanup": True},
        ),
        "fused, then long replace": word_pieces(
            {
                "type": "Sequence",
                "decoders": [
                    {"type": "Fuse"},
                    {"type": "Replace", "pattern": {"String": "▁▁"}, "content": "="},
                ],
            }
        ),
        "nested": spm(
            {
                "type": "Sequence",
                "decoders": [{"type": "Sequence", "decoders": _SPM_DECODERS}, {"type": "Fuse"}, _STRIP],
            }
        ),
        "none": word_pieces(None),
    }


def write(folder: Path, tokenizer: dict[str, Any], **files: Any) -> Path:
    """A model folder with this tokenizer; `files` are JSON files by their name without .json."""
    for name, content in {"tokenizer": tokenizer, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
