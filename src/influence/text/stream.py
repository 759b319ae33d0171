"""Token ids in, text out, as soon as it is certain.

Decoding a whole sequence again for each token is quadratic, and decoding its
tail is wrong: what a token means depends on what came before (a leading space,
a run of bytes) and sometimes on what comes next. So the decoder that
tokenizer.json describes is rebuilt as a chain of stages, each the exact
incremental form of one decoder (decoder_stages.py):

    token id -> visible token -> [Replace] -> [ByteFallback] -> [Strip] -> text

A stage keeps only what is not yet certain: an unfinished UTF-8 character, a run
of byte tokens (valid or not only as a whole), one token whose suffix depends on
the next. That makes a token's cost constant, and the join of the pieces the
decoded whole by construction. A decoder that no stage knows is decoded once, at
the end: late, but never wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from influence.text.decoder_stages import Chain
from influence.text.tokenizer import Tokenizer

_PROMPT_TAIL = 64  # tokens that later text can depend on: a character's bytes, a first token


class IncrementalDetokenizer:
    """The text of one sequence, piece by piece; special tokens are left out, but for those of `shown_ids`.

    The pieces of all pushes and of the flush join to `decode(prompt_ids + pushed)`
    with `decode(prompt_ids)` cut off its front. (If the prompt ends inside a
    character there is no such cut; then the finished character is new text.)
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int] = (),
        *,
        shown_ids: frozenset[int] = frozenset(),
    ) -> None:
        """`shown_ids`: special tokens that say something to the reader, such as those around a tool call."""
        self._tokenizer = tokenizer
        self._shown_ids = shown_ids
        tail = _visible_tail(tokenizer, prompt_ids)
        self._chain = _chain_after(tokenizer, tail)
        self._told = _chain_after(tokenizer, tail).flush()  # the prompt's text that the chain holds back

    def push(self, token_id: int) -> str:
        """The text that is certain now and was not before; often "", never half a character."""
        is_shown = token_id in self._shown_ids
        token = self._tokenizer.token(token_id) if is_shown else self._tokenizer.visible_token(token_id)
        if token is None:
            return ""
        with self._tokenizer.guarded_decoding():
            return self._new(self._chain.push(token))

    def flush(self) -> str:
        """The rest, at the sequence's end; an unfinished character becomes U+FFFD as decode gives it."""
        with self._tokenizer.guarded_decoding():
            return self._new(self._chain.flush())

    def _new(self, text: str) -> str:
        """The text without the prompt's part of it."""
        if text and self._told:
            text, self._told = text.removeprefix(self._told), ""
        return text


def _chain_after(tokenizer: Tokenizer, tokens: Sequence[str]) -> Chain:
    chain = tokenizer.new_decoder_chain()
    with tokenizer.guarded_decoding():
        for token in tokens:
            chain.push(token)
    return chain


def _visible_tail(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> list[str]:
    """The prompt's last visible tokens."""
    tail: list[str] = []
    for token_id in reversed(prompt_ids):
        token = tokenizer.visible_token(token_id)
        if token is not None:
            tail.append(token)
        if len(tail) == _PROMPT_TAIL:
            break
    return tail[::-1]
