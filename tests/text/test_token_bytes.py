"""The bytes of tokens join to the text that they decode to."""

from __future__ import annotations

from pathlib import Path

import pytest

from influence import demo
from influence.text.token_bytes import token_bytes
from influence.text.tokenizer import Tokenizer

TEXT = "Tom said: “a naïve café costs 5 €” 😀\n\tThe end."


def joined(tokenizer: Tokenizer, text: str) -> bytes:
    ids = tokenizer.encode(text, add_special_tokens=False)
    return b"".join(token_bytes(tokenizer, token_id) for token_id in ids)


def test_the_bytes_of_a_texts_tokens_are_the_text() -> None:
    tokenizer = Tokenizer.load(demo.folder())
    assert joined(tokenizer, TEXT) == TEXT.encode()


@pytest.mark.parametrize(
    "name", ["gpt2", "phi-2", "mistral-7b-v0.1", "phi-3-mini", "tinyllama-1.1b-chat-v1.0"]
)
def test_the_bytes_are_right_for_every_kind_of_tokenizer(name: str, shared_data: Path) -> None:
    tokenizer = Tokenizer.load(shared_data / "tokenizers" / name)
    # Some write a space before the first word, which decoding takes away again.
    assert joined(tokenizer, TEXT).removeprefix(b" ") == TEXT.encode()


def test_a_part_of_a_character_has_its_own_bytes() -> None:
    tokenizer = Tokenizer.load(demo.folder())
    ids = tokenizer.encode("猫", add_special_tokens=False)
    assert len(ids) > 1, "the test needs a character of several tokens"
    assert joined(tokenizer, "猫") == "猫".encode()


def test_a_special_token_is_its_spelling() -> None:
    tokenizer = Tokenizer.load(demo.folder())
    assert tokenizer.bos_id is not None
    assert token_bytes(tokenizer, tokenizer.bos_id) == b"<|begin|>"


def test_an_id_without_a_token_has_no_bytes() -> None:
    tokenizer = Tokenizer.load(demo.folder())
    assert token_bytes(tokenizer, tokenizer.vocab_size + 7) == b""
