"""What drafting from a text's own n-grams gains, and what it costs where nothing repeats.

    python benchmarks/bench_drafting.py -m demo
    python benchmarks/bench_drafting.py --shape tinyllama-1.1b --streams 1,4

One engine, two generators, with drafts and without, in turns A B B A. A
completion that repeats its prompt is forced, token by token, by a constraint:
what a model would have to say to edit a text or to sum one up. The tokens of
both are compared; README.md beside this file says what each row is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import report
from influence import demo
from influence.engines import select
from influence.engines.base import Engine
from influence.engines.sampling import SamplingParams
from influence.errors import InfluenceError
from influence.generation.drafting import DraftMode
from influence.generation.events import Completion
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from influence.models.model import Model, open_model
from influence.text.tokenizer import Tokenizer
from model_files import CACHE, counts, random_model, read_once, write_result

OPENING = "Once upon a time, there was a little"
MODES: tuple[DraftMode, DraftMode] = ("none", "ngram")
ROWS = ("own words", "copy", "edit", "summary", "new words")
Ids = list[int]


class Forced:
    """A constraint that leaves one token at each place."""

    def __init__(self, token_ids: Sequence[int], vocab_size: int) -> None:
        self._token_ids = token_ids
        self._mask = np.zeros(vocab_size, np.bool_)
        self._n = 0

    def allowed(self) -> npt.NDArray[np.bool_]:
        self._mask[:] = False
        self._mask[self._token_ids[self._n]] = True
        return self._mask

    def accept(self, token_id: int) -> None:
        self._n += 1

    @property
    def is_complete(self) -> bool:
        return self._n == len(self._token_ids)


class Silent:
    """Text costs both alike: none is made."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def push(self, token_id: int) -> str:
        return ""

    def flush(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Work:
    """A prompt, and what to say to it; None: what the model says by itself."""

    name: str
    prompt: Ids
    completion: Ids | None


def works(prompt: Ids, vocab_size: int, n_new: int) -> list[Work]:
    """One of each kind over the same prompt."""
    rng = np.random.default_rng(0)
    return [
        Work("own words", prompt, None),
        Work("copy", prompt, (prompt * (1 + n_new // len(prompt)))[:n_new]),
        Work("edit", prompt, _edited(prompt, vocab_size, n_new, rng)),
        Work("summary", prompt, _summary(prompt, vocab_size, n_new, rng)),
        Work("new words", prompt, [int(i) for i in rng.integers(0, vocab_size, n_new)]),
    ]


def _edited(prompt: Ids, vocab_size: int, n_new: int, rng: np.random.Generator) -> Ids:
    """The prompt with every twentieth token, or so, replaced."""
    changed = [int(rng.integers(vocab_size)) if rng.random() < 0.05 else i for i in prompt]
    return (changed * (1 + n_new // len(prompt)))[:n_new]


def _summary(prompt: Ids, vocab_size: int, n_new: int, rng: np.random.Generator) -> Ids:
    """Phrases of 8 to 24 tokens out of the prompt, each after 2 to 6 new ones."""
    said: Ids = []
    while len(said) < n_new:
        begin, length = int(rng.integers(len(prompt) - 24)), int(rng.integers(8, 25))
        said += [int(i) for i in rng.integers(0, vocab_size, rng.integers(2, 7))]
        said += prompt[begin : begin + length]
    return said[:n_new]


class Bench:
    """An engine, and a generator with drafts and one without on it, one at a time."""

    def __init__(self, engine: Engine, n_new: int, temperature: float) -> None:
        self._engine = engine
        self._n_new = n_new
        self._temperature = temperature

    def run(self, mode: DraftMode, work: Work, n_streams: int) -> tuple[float, list[Completion]]:
        """Seconds from the last first token to the end, and what came."""
        with Generator(
            self._engine, _NO_TOKENIZER, frozenset(), draft=mode, new_detokenizer=Silent
        ) as generator:
            streams = [
                generator.submit(work.prompt, self._params(seed), constraint=self._constraint(work))
                for seed in range(n_streams)
            ]
            completions = [stream.collect() for stream in streams]
        return max(completion.statistics.decode_s for completion in completions), completions

    def _params(self, seed: int) -> GenerationParams:
        sampling = SamplingParams(temperature=self._temperature, seed=seed)
        return GenerationParams(sampling, max_tokens=self._n_new, ignore_eos=True)

    def _constraint(self, work: Work) -> Forced | None:
        return None if work.completion is None else Forced(work.completion, self._engine.spec.vocab_size)


_NO_TOKENIZER: Any = None  # Silent needs none


def main() -> int:
    options = _parser().parse_args()
    options.only = options.only or ROWS
    try:
        run(options)
    except InfluenceError as error:
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    model = _model(options)
    read_once(model.checkpoint.files)
    context = options.prompt + options.new_tokens + 64
    kv_bytes = select.session_kv_bytes(model, context) * (max(options.streams) + 1)
    engine = select.load_engine(model, threads=options.threads, context=context, kv_bytes=kv_bytes)
    prompt = _prompt(options, model, engine)
    bench = Bench(engine, options.new_tokens, options.temperature)
    lines = [
        f"# {options.shape or options.model}: {engine.description}, prompt {len(prompt)},"
        f" {options.new_tokens} new tokens, temperature {options.temperature:g}",
        "",
        "| row | streams | without, tok/s | with, tok/s | times as fast | drafted | came true |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    chosen = [
        work for work in works(prompt, model.spec.vocab_size, options.new_tokens) if work.name in options.only
    ]
    for work in chosen:
        for n_streams in options.streams:
            lines.append(_row(bench, work, n_streams, options.repeat))
            print(lines[-1], flush=True)
    engine.close()
    if options.save:
        facts = report.describe_machine(options.threads)
        write_result(options.save, "\n".join(lines), json.dumps({"machine": facts, "table": lines}, indent=2))


def _row(bench: Bench, work: Work, n_streams: int, repeat: int) -> str:
    seconds: dict[DraftMode, list[float]] = {mode: [] for mode in MODES}
    said: dict[DraftMode, list[Completion]] = {}
    for turn in range(repeat):
        for mode in MODES if turn % 2 else reversed(MODES):  # a machine that slows down favours neither
            took_s, said[mode] = bench.run(mode, work, n_streams)
            seconds[mode].append(took_s)
    if [c.token_ids for c in said["none"]] != [c.token_ids for c in said["ngram"]]:
        raise InfluenceError("drafting changed the text", hint="this is a defect: please report it")
    ratio = statistics.median(a / b for a, b in zip(seconds["none"], seconds["ngram"], strict=True))
    n_tokens = sum(c.statistics.completion_tokens - 1 for c in said["none"])
    speeds = [n_tokens / statistics.median(seconds[mode]) for mode in MODES]
    drafted = sum(c.statistics.drafted_tokens for c in said["ngram"])
    accepted = sum(c.statistics.accepted_tokens for c in said["ngram"])
    return (
        f"| {work.name} | {n_streams} | {speeds[0]:.1f} | {speeds[1]:.1f} | {ratio:.2f}"
        f" | {drafted} | {accepted} |"
    )


def _model(options: argparse.Namespace) -> Model:
    if options.shape:
        return open_model(random_model(options.shape, "bf16", options.cache))
    return open_model(demo.folder() if options.model == "demo" else options.model)


def _prompt(options: argparse.Namespace, model: Model, engine: Engine) -> Ids:
    """A text of the model's own where it has a tokenizer, else tokens at random."""
    if options.shape is not None:
        rng = np.random.default_rng(1)
        return [int(i) for i in rng.integers(0, model.spec.vocab_size, options.prompt)]
    opening = Tokenizer.load(model.folder).encode(OPENING)
    work = Work("prompt", opening, None)
    _, [completion] = Bench(engine, options.prompt - len(opening), options.temperature).run("none", work, 1)
    return [*opening, *completion.token_ids]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("-m", "--model", help="a model's folder, or demo")
    which.add_argument("--shape", help="random weights of a known shape")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where random weights are kept")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--prompt", type=int, default=200, help="tokens of the prompt")
    parser.add_argument("--new-tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--streams", type=counts, default=(1,), help="sequences at once, as 1,4")
    parser.add_argument("--only", action="append", choices=ROWS, help="a row; can be given often")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--save", metavar="NAME", help="keep the table under results/")
    return parser


if __name__ == "__main__":
    sys.exit(main())
