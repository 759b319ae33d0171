"""How likely the tokens of a reply were, in OpenAI's two shapes.

A token's name is its text. Where that is no text (a part of a character) it is
its bytes, and where two tokens have one name, the second goes by its id, so
that no entry of a table is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from influence.engines.sampling import Sample
from influence.text.token_bytes import token_bytes

if TYPE_CHECKING:
    from influence.text.tokenizer import Tokenizer

# A token that the model rules out has -inf, which JSON can't say.
LOWEST = -9999.0


def token_name(content: bytes) -> str:
    """A token's name in logprobs, by its bytes."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def chat_logprobs(samples: Sequence[Sample], tokenizer: Tokenizer) -> dict[str, Any]:
    """`logprobs` of a chat choice: each token with its alternatives."""
    content = [
        {
            **_entry(sample.token_id, sample.logprob, tokenizer),
            "top_logprobs": [
                _entry(token_id, logprob, tokenizer) for token_id, logprob in sample.top_logprobs
            ],
        }
        for sample in samples
    ]
    return {"content": content, "refusal": None}


def _entry(token_id: int, logprob: float | None, tokenizer: Tokenizer) -> dict[str, Any]:
    content = token_bytes(tokenizer, token_id)
    return {"token": token_name(content), "logprob": clamped(logprob), "bytes": list(content)}


def clamped(logprob: float | None) -> float | None:
    """A log probability as JSON can carry it."""
    return None if logprob is None else max(logprob, LOWEST)


class CompletionLogprobs:
    """`logprobs` of a completion: four lists of one entry a token, built piece by piece."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._offset = 0  # characters, of the tokens so far

    def of(self, samples: Sequence[Sample | None], token_ids: Sequence[int]) -> dict[str, Any]:
        """The entries of the next tokens; `samples` has None where nothing stood before a token."""
        names = [token_name(token_bytes(self._tokenizer, token_id)) for token_id in token_ids]
        return {
            "tokens": names,
            "token_logprobs": [None if sample is None else clamped(sample.logprob) for sample in samples],
            "top_logprobs": [None if sample is None else self._top(sample) for sample in samples],
            "text_offset": [self._advance(len(name)) for name in names],
        }

    def _top(self, sample: Sample) -> dict[str, float | None]:
        """Name -> log probability of the likeliest and of the token itself."""
        table: dict[str, float | None] = {}
        entries: dict[int, float | None] = dict(sample.top_logprobs)
        entries.setdefault(sample.token_id, sample.logprob)
        for token_id, logprob in entries.items():
            name = token_name(token_bytes(self._tokenizer, token_id))
            table[f"token_id:{token_id}" if name in table else name] = clamped(logprob)
        return table

    def _advance(self, n_characters: int) -> int:
        at = self._offset
        self._offset += n_characters
        return at
