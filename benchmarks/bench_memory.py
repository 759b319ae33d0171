"""What a process that runs a model holds in memory, and how soon a prompt is answered that was asked before.

    python benchmarks/bench_memory.py --shape tinyllama-1.1b
    python benchmarks/bench_memory.py -m models/org_name --weights stored,packed,q8,q4

Each format in a process of its own, which loads the model, answers a prompt of random tokens,
and then the same prompt again. Packed weights are made by a process before it. README.md
beside this file says what each number means.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from influence.engines import select
from influence.engines.base import Engine
from influence.generation import GenerationParams, Generator, Statistics
from influence.models.model import Model, open_model
from influence.text.tokenizer import Tokenizer
from made_vocabulary import FIRST_WORD, write_tokenizer
from model_files import CACHE, count, random_model, read_once

_N_REPEATS = 5


def main() -> int:
    options = _parser().parse_args()
    if options.measure:
        print(json.dumps(measure(options.model, options.measure, options.prompt, options.new)))
        return 0
    folder = options.model or random_model(options.shape, "bfloat16", options.cache)
    with open_model(folder).checkpoint as checkpoint:
        read_once(checkpoint.files)
    if options.shape:
        write_tokenizer(folder, open_model(folder).spec.vocab_size)
    print(_HEAD)
    for form in options.weights.split(","):
        _in_a_process(folder, form, 1, 1)  # packs the weights where that is still to be done
        print(_line(form, _in_a_process(folder, form, options.prompt, options.new)), flush=True)
    return 0


def measure(folder: Path, form: Any, n_prompt: int, n_new: int) -> dict[str, float]:
    """What this process holds after both prompts, in MB, and the first tokens' times in ms."""
    model, tokenizer = open_model(folder), Tokenizer.load(folder)
    context = n_prompt + n_new
    engine = select.load_engine(
        model, "cpu", context=context, n_sessions=1, weights=form, packed_folder=folder
    )
    with Generator(engine, tokenizer, frozenset()) as generator:
        words = range(FIRST_WORD, model.spec.vocab_size)
        prompt = Random(0).choices(words, k=n_prompt)
        first = _answered(generator, prompt, n_new)
        again = [_answered(generator, prompt, 1) for _ in range(_N_REPEATS)]
    return {
        **_held(),
        "weights": _weights_bytes(model, form) / 1e6,
        "kv": _kv_bytes(engine, context) / 1e6,
        "first_ms": _first_token_ms(first),
        "again_ms": statistics.median(map(_first_token_ms, again)),
    }


def _answered(generator: Generator, prompt: list[int], n_new: int) -> Statistics:
    params = GenerationParams(max_tokens=n_new, ignore_eos=True)
    return generator.submit(prompt, params).collect().statistics


def _first_token_ms(statistics: Statistics) -> float:
    return 1e3 * (statistics.first_token_s or 0.0)


def _held() -> dict[str, float]:
    """MB of this process: the most it ever held, and what of it now is its own or mapped from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {
        name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines) if rest.split()
    }
    names = {"peak": "VmHWM", "own": "RssAnon", "mapped": "RssFile"}
    return {key: int(values[name]) * 1024 / 1e6 for key, name in names.items()}


def _weights_bytes(model: Model, form: Any) -> int:
    """Of the files that are mapped: the model's, or the packed matrices and the embedding beside them."""
    if form == "stored":
        return model.checkpoint.size_bytes
    return select.weights_size(model, form) + model.weights.outer["embed"].size_bytes


def _kv_bytes(engine: Engine, n_positions: int) -> int:
    pool = engine.kv_pool
    return pool.blocks_for(n_positions) * pool.block_bytes


def _in_a_process(folder: Path, form: str, n_prompt: int, n_new: int) -> dict[str, float]:
    lengths = ["--prompt", str(n_prompt), "--new", str(n_new)]
    command = [sys.executable, __file__, "-m", str(folder), "--measure", form, *lengths]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


_HEAD = (
    "| weights | peak, MB | own | mapped | weights + KV | peak beyond them | first token, ms | again |\n"
    "|---|---|---|---|---|---|---|---|"
)


def _line(form: str, found: dict[str, float]) -> str:
    needed = found["weights"] + found["kv"]
    numbers = [found["peak"], found["own"], found["mapped"], needed, found["peak"] - needed]
    times = f"{found['first_ms']:.0f} | {found['again_ms']:.1f}"
    return f"| {form} | {' | '.join(f'{number:.0f}' for number in numbers)} | {times} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("-m", "--model", type=Path, help="a model's folder")
    which.add_argument("--shape", help="random weights in the shape of a real model")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where shapes are kept")
    parser.add_argument("--weights", default="stored,packed,q8,q4", help="formats, with commas")
    parser.add_argument("--prompt", type=count, default=1000, help="tokens of the prompt")
    parser.add_argument("--new", type=count, default=600, help="tokens that follow it")
    parser.add_argument("--measure", metavar="FORMAT", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
