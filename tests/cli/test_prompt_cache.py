"""`--prompt-cache`: a folder from which a later start goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from influence.cli.failure import BadUsage
from influence.cli.loading import PromptCache, open_text_model, running
from influence.cli.options import EngineOptions
from influence.engines.sampling import SamplingParams
from influence.generation.params import GenerationParams
from influence.generation.prompt import encode_text

OPTIONS = EngineOptions(
    device="cpu",
    device_index=0,
    tensor_parallel=1,
    threads=1,
    kernels=None,
    context=256,
    gpu_memory=None,
    kv_type=None,
    weights="stored",
    no_cache=False,
)


def answer(cache: PromptCache | None) -> tuple[str, int]:
    """A completion by a new engine, and how much of its prompt was not computed."""
    loaded = open_text_model("demo")
    prompt = encode_text(loaded.tokenizer, "Once upon a time there was a cat who lived in a house. " * 10)
    asked = GenerationParams(SamplingParams(seed=1), max_tokens=8)
    with running(loaded, OPTIONS, 256, prompt_cache=cache) as (_, generator):
        completion = generator.submit(prompt, asked).collect()
    return completion.text, completion.statistics.cached_tokens


def test_a_later_start_goes_on_from_the_folder(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path / "prompts", 1 << 30)
    text, n_cached = answer(cache)
    assert n_cached == 0
    assert answer(cache) == (text, 128)
    assert answer(None) == (text, 0)


def test_a_folder_that_can_not_be_is_bad_usage_and_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadUsage, match="file"):
        answer(PromptCache(tmp_path / "file", 1 << 30))
