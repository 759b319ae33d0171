"""A model folder as CTranslate2 reads it, by its own converter: run in the peer's Python.

    python ctranslate2_export.py FOLDER OUT QUANTIZATION

The converter wants a tokenizer, which a model of random weights lacks: a made
vocabulary stands in for it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ctranslate2.converters import TransformersConverter

from made_vocabulary import SPECIAL, vocabulary


class _Tokenizer:
    """What the converter asks a tokenizer for."""

    unk_token, bos_token, eos_token = SPECIAL

    def __init__(self, size: int) -> None:
        self._size = size

    def get_vocab(self) -> dict[str, int]:
        return {text: token_id for token_id, text in enumerate(vocabulary(self._size))}


class _Converter(TransformersConverter):  # type: ignore[misc]
    def load_tokenizer(self, _: Any, folder: str, **__: Any) -> _Tokenizer:
        return _Tokenizer(json.loads((Path(folder) / "config.json").read_text())["vocab_size"])


def main() -> None:
    folder, out, quantization = sys.argv[1:]
    _Converter(folder).convert(out, quantization=quantization)


if __name__ == "__main__":
    main()
