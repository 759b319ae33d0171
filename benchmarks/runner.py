"""What is timed, and how: the same few lines for every engine, in whichever process it lives.

Standard library only, because it also runs inside the peers' own environments.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from typing import Protocol, runtime_checkable

# Prompts go in by pieces of this size where only what follows them is timed.
CHUNK = 512


class Backend(Protocol):
    """An engine reduced to what is measured: sequences side by side that grow and shrink together."""

    vocab_size: int
    description: str  # for people: "native avx512_bf16, 2 threads"

    def reset(self, n_streams: int) -> None:
        """Empty sequences, `n_streams` of them."""

    def append(self, rows: Sequence[Sequence[int]]) -> list[int]:
        """Add the token ids (n_streams, n) in one batch; the greedy next token of each sequence."""

    def rewind(self, position: int) -> None:
        """Cut every sequence back to its first `position` tokens."""

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        """Logits after each of the last `n_rows` tokens of a new sequence: float32, (n_rows, vocab_size)."""


@runtime_checkable
class Decoding(Protocol):
    """A backend that decodes many steps by itself, without a look at each token."""

    def decode(self, token_ids: Sequence[int], n_tokens: int) -> list[int]:
        """Append these, then what is chosen, `n_tokens` steps in all; the last tokens chosen."""


@runtime_checkable
class Generating(Protocol):
    """An engine that takes whole prompts, and holds nothing of them from one call to the next."""

    vocab_size: int
    description: str

    def generate(self, prompts: Sequence[Sequence[int]], n_tokens: int) -> list[float]:
        """Choose `n_tokens` after each prompt, greedily; for each the seconds until every sequence had it."""

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        """As a Backend's."""


class Runner:
    """Times a backend. Prompts are random, and the same for every backend of that vocabulary."""

    def __init__(self, backend: Backend | Generating) -> None:
        self._backend = backend
        self._held: tuple[int, int] | None = None  # n_streams and depth of what the backend holds
        self._next: list[int] = []  # the greedy tokens after it
        self.description = backend.description

    def prefill_s(self, n_tokens: int) -> float:
        """Seconds from a prompt of `n_tokens` to its next token, in one batch."""
        prompts = self._prompts(1, n_tokens)
        if isinstance(self._backend, Generating):
            return self._backend.generate(prompts, 1)[0]
        self._held = None
        self._backend.reset(1)
        start = time.perf_counter()
        self._backend.append(prompts)
        return time.perf_counter() - start

    def decode_s(self, n_tokens: int, depth: int, n_streams: int) -> float:
        """Seconds to generate `n_tokens` greedily in each of `n_streams` sequences that hold `depth`."""
        if isinstance(self._backend, Generating):
            arrived = self._backend.generate(self._prompts(n_streams, depth), 1 + n_tokens)
            return arrived[-1] - arrived[0]
        self._hold(self._backend, n_streams, depth)
        ids = self._next
        start = time.perf_counter()
        if isinstance(self._backend, Decoding):
            self._backend.decode(ids, n_tokens)
        else:
            for _ in range(n_tokens):
                ids = self._backend.append([[token_id] for token_id in ids])
        return time.perf_counter() - start

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        """As the backend's; what it held is gone."""
        self._held = None
        return self._backend.logits(token_ids, n_rows)

    def _hold(self, backend: Backend, n_streams: int, depth: int) -> None:
        """Prompts of `depth` tokens in place, computed only if they are not there yet."""
        if self._held == (n_streams, depth):
            backend.rewind(depth)
            return
        backend.reset(n_streams)
        prompts = self._prompts(n_streams, depth)
        chunk = max(1, CHUNK // n_streams)
        for begin in range(0, depth, chunk):
            self._next = backend.append([prompt[begin : begin + chunk] for prompt in prompts])
        self._held = (n_streams, depth)

    def _prompts(self, n_streams: int, n_tokens: int) -> list[list[int]]:
        random = Random(n_tokens)
        return [
            [random.randrange(self._backend.vocab_size) for _ in range(n_tokens)] for _ in range(n_streams)
        ]
