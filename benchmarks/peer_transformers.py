"""transformers on torch's kernels as a peer: run by peer_process.py, never by hand.

Weights as stored, its default attention, its own KV cache: what `generate` does
for each token, without its bookkeeping. Compiled, it has a cache of one size, as
long as the longest row needs, and steps of one token are one graph; prompts are
not compiled, for each length would be anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

# The models are folders on this disk: nothing is looked for elsewhere.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import torch
import transformers

from peer_process import serve


class Transformers:
    """A model folder as transformers runs it."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        torch.set_num_threads(settings["threads"])
        torch.set_grad_enabled(False)
        # Its annotations are partial: what comes from it is Any here. The model comes in evaluation mode.
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(settings["folder"], dtype="auto")
        self._device = settings.get("device", "cpu")
        self._model = self._model.to(self._device)
        self._step = self._model
        self._static: dict[int, Any] = {}  # caches of one size, by the number of streams
        self._context = settings["context"] if settings.get("compile") else None
        if self._context is not None:
            self._step = torch.compile(self._model, mode="reduce-overhead")
        self.reset(1)
        self.vocab_size = int(self._model.config.vocab_size)
        self.description = (
            f"transformers {transformers.__version__}{', compiled' * bool(self._static)}, torch {torch.__version__}, "
            + (f"{settings['threads']} threads" if self._device == "cpu" else self._device)
        )

    def reset(self, n_streams: int) -> None:
        if self._context is None:
            self._cache: Any = transformers.DynamicCache()
            return
        if n_streams not in self._static:  # a new one would be a new graph
            self._static[n_streams] = transformers.StaticCache(
                self._model.config, max_cache_len=self._context
            )
        self._cache = self._static[n_streams]
        self._cache.reset()

    def append(self, rows: Sequence[Sequence[int]]) -> list[int]:
        ids: list[int] = self._forward(rows, n_logits=1)[:, -1].argmax(-1).tolist()
        return ids

    def rewind(self, position: int) -> None:
        n_beyond = int(self._cache.get_seq_length()) - position
        if n_beyond:
            self._cache.crop(-n_beyond)  # a positive argument, once a length, is refused since version 5

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        self.reset(1)
        rows: bytes = self._forward([token_ids], n_logits=n_rows)[0].float().cpu().numpy().tobytes()
        return rows

    def _forward(self, rows: Sequence[Sequence[int]], n_logits: int) -> Any:
        """Logits of the last `n_logits` tokens, (n_streams, n_logits, vocab_size)."""
        is_step = len(rows[0]) == 1
        if is_step and self._context is not None:
            torch.compiler.cudagraph_mark_step_begin()
        output = (self._step if is_step else self._model)(
            torch.tensor(rows, device=self._device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=n_logits,
        )
        return output.logits


if __name__ == "__main__":
    serve(Transformers)
