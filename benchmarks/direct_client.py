"""The generator without a server, as `influence generate` runs it: what HTTP costs shows beside it.

    stdin   {"folder": "models/org_name", "threads": 2, "context": 256, "new_tokens": 64,
             "clients": [[prompt, prompt]]}      a prompt is a list of token ids
    stdout  the records of load_client.py

One client after another. The model is loaded and warmed before the first prompt's time begins.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from influence.engines.sampling import SamplingParams
from influence.engines.select import load_engine
from influence.generation.events import Finished, TextDelta
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from influence.models.model import open_model
from influence.text.tokenizer import Tokenizer

_WARM_UP = ([3] * 8, 4)  # a prompt, and how many tokens follow it


def run(task: dict[str, Any]) -> list[dict[str, Any]]:
    """A record of each prompt, in their order."""
    with ExitStack() as stack:
        model = open_model(Path(task["folder"]))
        stack.callback(model.checkpoint.close)
        engine = load_engine(model, "cpu", threads=task["threads"], context=task["context"])
        stack.callback(engine.close)
        tokenizer = Tokenizer.load(model.folder)
        generator = stack.enter_context(Generator(engine, tokenizer, frozenset(), context=task["context"]))
        _complete(generator, *_WARM_UP, begin_s=time.perf_counter())
        begin_s = time.perf_counter()
        prompts = [prompt for client in task["clients"] for prompt in client]
        return [_complete(generator, prompt, task["new_tokens"], begin_s) for prompt in prompts]


def _complete(generator: Generator, prompt: Sequence[int], new_tokens: int, begin_s: float) -> dict[str, Any]:
    record: dict[str, Any] = {"start_s": time.perf_counter() - begin_s, "token_s": [], "error": None}
    params = GenerationParams(SamplingParams(temperature=0.0), max_tokens=new_tokens, ignore_eos=True)
    for event in generator.submit(prompt, params):
        if isinstance(event, TextDelta) and event.text:
            record["token_s"].append(time.perf_counter() - begin_s)
        elif isinstance(event, Finished):
            record["n_tokens"] = event.statistics.completion_tokens
    return {**record, "end_s": time.perf_counter() - begin_s}


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
