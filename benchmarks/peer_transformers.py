"""transformers on torch's kernels as a peer: run by peer_process.py, never by hand.

Weights as stored, its default attention, its own KV cache, no compilation: what
`generate` does for each token, without its bookkeeping.
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
        self._cache = transformers.DynamicCache()
        self.vocab_size = int(self._model.config.vocab_size)
        self.description = f"transformers {transformers.__version__}, torch {torch.__version__}, " + (
            f"{settings['threads']} threads" if self._device == "cpu" else self._device
        )

    def reset(self, n_streams: int) -> None:
        self._cache = transformers.DynamicCache()

    def append(self, rows: Sequence[Sequence[int]]) -> list[int]:
        ids: list[int] = self._forward(rows, n_logits=1)[:, -1].argmax(-1).tolist()
        return ids

    def rewind(self, position: int) -> None:
        n_beyond = self._cache.get_seq_length() - position
        if n_beyond:
            self._cache.crop(-n_beyond)  # a positive argument, once a length, is refused since version 5

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        self.reset(1)
        rows: bytes = self._forward([token_ids], n_logits=n_rows)[0].float().cpu().numpy().tobytes()
        return rows

    def _forward(self, rows: Sequence[Sequence[int]], n_logits: int) -> Any:
        """Logits of the last `n_logits` tokens, (n_streams, n_logits, vocab_size)."""
        output = self._model(
            torch.tensor(rows, device=self._device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=n_logits,
        )
        return output.logits


if __name__ == "__main__":
    serve(Transformers)
