"""A tokenizer for random models, so that a server can run them: words that differ, and nothing else.

token   0        1      2       3 to 258       259 and on
text    <unk>    <s>    </s>    one byte       " w259", " w260", ...
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SPECIAL = ("<unk>", "<s>", "</s>")
FIRST_WORD = len(SPECIAL) + 256


def vocabulary(size: int) -> list[str]:
    """Each token's text; "▁" stands for a space."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    return [*SPECIAL, *byte_tokens, *(f"▁w{token_id}" for token_id in range(FIRST_WORD, size))]


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Put a tokenizer.json of that vocabulary into a model folder that has none."""
    path = folder / "tokenizer.json"
    if not path.exists():
        path.write_text(json.dumps(_tokenizer(vocabulary(vocab_size)), ensure_ascii=False), "utf-8")


def _tokenizer(texts: list[str]) -> dict[str, Any]:
    special = [
        {
            "id": token_id,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token_id, text in enumerate(SPECIAL)
    ]
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    model: dict[str, Any] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<unk>",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": True,
        "ignore_merges": True,
        "vocab": {text: token_id for token_id, text in enumerate(texts)},
        "merges": [],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }
