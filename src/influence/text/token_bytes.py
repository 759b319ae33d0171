"""What one token adds to a text, in bytes: where a character spans tokens, text alone can't say it."""

from __future__ import annotations

from influence.text.decoder_stages import ByteRuns, ByteText, Chain
from influence.text.tokenizer import Tokenizer

_BEFORE = "a"  # a token stands inside a text: at its start some lose their space


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The UTF-8 bytes that the token stands for inside a text; a special token's are its spelling's.

    b"" for an id without a token.
    """
    token = tokenizer.token(token_id)
    if tokenizer.is_special(token_id):
        return token.encode("utf-8")
    with tokenizer.guarded_decoding():
        for stage in tokenizer.new_decoder_chain().stages:
            if isinstance(stage, ByteText):
                return stage.bytes_of(token)
            if isinstance(stage, ByteRuns) and (byte := stage.byte_of(token)) is not None:
                return bytes([byte])
        before = _decoded(tokenizer.new_decoder_chain(), [_BEFORE])
        whole = _decoded(tokenizer.new_decoder_chain(), [_BEFORE, token])
    return whole.removeprefix(before).encode("utf-8")


def _decoded(chain: Chain, tokens: list[str]) -> str:
    return "".join(chain.push(token) for token in tokens) + chain.flush()
