"""OpenVINO as a peer, through openvino-genai: run by peer_process.py, never by hand.

Its pipeline of continuous batching (paged attention), which its own front end
takes by default, stepped by hand. Prompts come anew in every turn, so its prefix cache
is off; a step may have as many tokens as there are, and all else is its default:
activations are rounded to 8 bits as it goes, and computed in bfloat16 where the CPU has it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai

from peer_process import serve

_ANY_NUMBER = 1 << 20


class OpenVino:
    """A folder of its converter, compiled for this CPU."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._folder = settings["converted"]
        self._properties = {"INFERENCE_NUM_THREADS": settings["threads"]}
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = _ANY_NUMBER
        scheduler.enable_prefix_caching = False
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            self._folder, scheduler, "CPU", self._properties
        )
        self.vocab_size = int(settings["vocab_size"])
        self.description = (
            f"OpenVINO GenAI {openvino_genai.__version__}, {settings['form']}, {settings['threads']} threads"
        )

    def generate(self, prompts: Sequence[Sequence[int]], n_tokens: int) -> list[float]:
        params = openvino_genai.GenerationConfig(max_new_tokens=n_tokens, ignore_eos=True, do_sample=False)
        tensors = [openvino.Tensor(np.array([prompt])) for prompt in prompts]
        arrived: list[float] = []
        n_held = [0] * len(prompts)
        start = time.perf_counter()
        requests = [self._pipeline.add_request(i, tensor, params) for i, tensor in enumerate(tensors)]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            n_held = [n + _n_new(request) for n, request in zip(n_held, requests, strict=True)]
            arrived += [time.perf_counter() - start] * (min(n_held) - len(arrived))
        return arrived

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        """By the runtime itself, for the pipeline tells tokens only."""
        model = openvino.Core().compile_model(
            Path(self._folder) / "openvino_model.xml", "CPU", self._properties
        )
        n = len(token_ids)
        inputs = {
            "input_ids": np.array([token_ids]),
            "attention_mask": np.ones((1, n), np.int64),
            "position_ids": np.arange(n)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        rows = model.create_infer_request().infer(inputs)["logits"][0, -n_rows:]
        return bytes(rows.astype(np.float32).tobytes())


def _n_new(request: Any) -> int:
    """Tokens that a request has got since the last look."""
    if not request.can_read():
        return 0
    return sum(len(output.generated_ids) for output in request.read().values())


if __name__ == "__main__":
    serve(OpenVino)
