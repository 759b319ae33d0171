"""llama.cpp as a peer, through the package llama-cpp-python: run by peer_process.py, never by hand.

Its own defaults (n_ubatch 512, float16 cache, repacked weights where it has
them) but for what must be equal: threads, and room for the sequences. Each
sequence has its own part of the cache, which is its faster way where
sequences share nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from peer_process import serve

_BATCH = 2048
_ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR
_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


class LlamaCpp:
    """A GGUF file, loaded and mapped; a context is made anew when the number of streams changes."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        llama_cpp.llama_log_set(_log_errors, None)
        llama_cpp.llama_backend_init()
        path = str(settings["gguf"]).encode()
        params = llama_cpp.llama_model_default_params()
        params.use_extra_bufts = settings["repack"]
        self._model = llama_cpp.llama_model_load_from_file(path, params)
        if not self._model:
            raise RuntimeError(f"llama.cpp refuses {settings['gguf']}")
        self._settings = settings
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        self._n_streams = 0
        self._context: Any = None
        self._position = 0
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self.description = (
            f"llama.cpp (llama-cpp-python {llama_cpp.__version__}), {settings['threads']} threads, "
            f"flash attention {settings['flash_attention']}"
        )

    def reset(self, n_streams: int) -> None:
        self._position = 0
        if n_streams == self._n_streams:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
            return
        if self._context:
            llama_cpp.llama_free(self._context)
        self._context = llama_cpp.llama_init_from_model(self._model, self._context_params(n_streams))
        if not self._context:
            raise RuntimeError("llama.cpp could not make a context")
        self._n_streams = n_streams

    def append(self, rows: Sequence[Sequence[int]]) -> list[int]:
        last = self._decode(rows, 1)
        return [int(self._row(index).argmax()) for index in last]

    def rewind(self, position: int) -> None:
        memory = llama_cpp.llama_get_memory(self._context)
        for stream in range(self._n_streams):
            if not llama_cpp.llama_memory_seq_rm(memory, stream, position, -1):
                raise RuntimeError("llama.cpp could not shorten a sequence")
        self._position = position

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        self.reset(1)
        self._decode([token_ids], n_rows)
        last = len(token_ids)
        return np.stack([self._row(index) for index in range(last - n_rows, last)]).tobytes()

    def _context_params(self, n_streams: int) -> Any:
        settings = self._settings
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_streams * -(-settings["context"] // 256) * 256
        params.n_seq_max = n_streams
        params.n_batch = _BATCH
        params.n_threads = params.n_threads_batch = settings["threads"]
        params.flash_attn_type = _FLASH_ATTENTION[settings["flash_attention"]]
        params.no_perf = True
        return params

    def _decode(self, rows: Sequence[Sequence[int]], n_logits: int) -> list[int]:
        """Run the rows as one batch, with logits for the last `n_logits` of each; index of each row's last."""
        batch, last, index = self._batch, [], 0
        for stream, row in enumerate(rows):
            for offset, token_id in enumerate(row):
                batch.token[index] = token_id
                batch.pos[index] = self._position + offset
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = stream
                batch.logits[index] = offset >= len(row) - n_logits
                index += 1
            last.append(index - 1)
        batch.n_tokens = index
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gave {status}")
        llama_cpp.llama_synchronize(self._context)
        self._position += len(rows[0])
        return last

    def _row(self, index: int) -> npt.NDArray[np.float32]:
        pointer = llama_cpp.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, (self.vocab_size,))


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _log_errors(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    if level == _ERROR_LEVEL:
        print(text.decode(errors="replace"), end="", flush=True)


if __name__ == "__main__":
    serve(LlamaCpp)
