"""CTranslate2 as a peer: run by peer_process.py, never by hand.

Its generator takes whole prompts and gives whole texts, so prompts come anew
in every turn, and a step's time is that of the callback that it makes for
each token. Prompts go in at once (`include_prompt_in_result=False`, its
faster way), and nothing ends a text but its length.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ctranslate2
import numpy as np

from made_vocabulary import vocabulary
from peer_process import serve


class CTranslate2:
    """A folder of its converter, as one generator of so many threads runs it."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        threads, compute_type = settings["threads"], settings["form"]
        # Its annotations are missing: what comes from it is Any here.
        self._generator: Any = ctranslate2.Generator(
            settings["converted"], compute_type=compute_type, inter_threads=1, intra_threads=threads
        )
        self.vocab_size = int(settings["vocab_size"])
        self._tokens = vocabulary(self.vocab_size)
        self.description = f"CTranslate2 {ctranslate2.__version__}, {compute_type}, {threads} threads"

    def generate(self, prompts: Sequence[Sequence[int]], n_tokens: int) -> list[float]:
        arrived: list[float] = []

        def note(result: Any) -> bool:
            arrived.append(time.perf_counter() - start)
            return False

        texts = [[self._tokens[token_id] for token_id in prompt] for prompt in prompts]
        start = time.perf_counter()
        self._generator.generate_batch(
            texts,
            min_length=n_tokens,
            max_length=n_tokens,
            include_prompt_in_result=False,
            callback=note,
        )
        n_streams = len(prompts)
        if len(arrived) != n_streams * n_tokens:
            raise RuntimeError(f"CTranslate2 gave {len(arrived)} tokens, not {n_streams} times {n_tokens}")
        return arrived[n_streams - 1 :: n_streams]

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        rows = np.asarray(self._generator.forward_batch([list(token_ids)]))[0, -n_rows:]
        return rows.astype(np.float32).tobytes()


if __name__ == "__main__":
    serve(CTranslate2)
