"""The loop that is timed asks every engine for the same work, and does not repeat what it may keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from influence.models.model import open_model
from native_backend import NativeBackend
from runner import CHUNK, Runner
from tools.make_random_model import SHAPES, write_model


class Counting:
    """A backend of lists: the next token is the sum of the sequence so far, modulo the vocabulary."""

    vocab_size = 50
    description = "counting"

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.batches: list[tuple[int, int]] = []  # streams and tokens of each append

    def reset(self, n_streams: int) -> None:
        self.rows = [[] for _ in range(n_streams)]

    def append(self, rows: Sequence[Sequence[int]]) -> list[int]:
        for held, row in zip(self.rows, rows, strict=True):
            held.extend(row)
        self.batches.append((len(rows), len(rows[0])))
        return [sum(held) % self.vocab_size for held in self.rows]

    def rewind(self, position: int) -> None:
        self.rows = [held[:position] for held in self.rows]

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        return b""


def test_a_prefill_is_one_batch_of_a_new_sequence() -> None:
    backend = Counting()
    runner = Runner(backend)
    assert runner.prefill_s(700) >= 0
    runner.prefill_s(700)
    assert backend.batches == [(1, 700), (1, 700)]
    assert [len(row) for row in backend.rows] == [700]


def test_a_decode_continues_greedily_after_its_depth() -> None:
    backend = Counting()
    Runner(backend).decode_s(5, depth=CHUNK + 8, n_streams=2)
    assert backend.batches == [(2, 256), (2, 256), (2, 8)] + [(2, 1)] * 5
    for row in backend.rows:
        assert all(row[i] == sum(row[:i]) % 50 for i in range(CHUNK + 8, len(row)))


def test_a_repeated_decode_rewinds_and_generates_the_same() -> None:
    backend = Counting()
    runner = Runner(backend)
    runner.decode_s(5, depth=20, n_streams=3)
    first = [list(row) for row in backend.rows]
    backend.batches.clear()
    runner.decode_s(5, depth=20, n_streams=3)
    assert backend.batches == [(3, 1)] * 5
    assert backend.rows == first


@pytest.mark.parametrize("between", ["prefill", "logits", "other streams"])
def test_a_decode_after_something_else_starts_anew(between: str) -> None:
    backend = Counting()
    runner = Runner(backend)
    runner.decode_s(5, depth=20, n_streams=2)
    first = [list(row) for row in backend.rows]
    if between == "prefill":
        runner.prefill_s(7)
    elif between == "logits":
        runner.logits([1], 1)
    else:
        runner.decode_s(1, depth=20, n_streams=4)
    runner.decode_s(5, depth=20, n_streams=2)
    assert backend.rows == first


def test_our_engine_holds_all_the_streams_of_its_largest_case(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("tiny")
    write_model(SHAPES["tiny"] | {"max_position_embeddings": 64}, folder)
    model = open_model(folder)
    backend = NativeBackend(model, threads=1, kernels=None, context=70, kv_positions=16 * 70)
    runner = Runner(backend)
    assert runner.decode_s(6, depth=64, n_streams=16) > 0
    assert len(runner.logits([1, 2, 3], 2)) == 2 * 512 * 4
    backend.close()
    model.checkpoint.close()


def test_an_engine_on_torch_decodes_ahead_what_it_appends_step_by_step(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")
    from gpu_backend import GpuBackend
    from influence.engines.torch.parallel.commands import RankDevice

    write_model(SHAPES["tiny"] | {"max_position_embeddings": 64}, tmp_path)
    model = open_model(tmp_path)
    backend = GpuBackend(model, [RankDevice("cpu")], context=70, kv_positions=140, form="stored")
    backend.reset(2)
    ids = backend.append([[1, 2, 3], [4, 5, 6]])
    decoded = backend.decode(ids, 5)
    backend.rewind(3)
    for _ in range(5):
        ids = backend.append([[one] for one in ids])
    assert decoded == ids
    backend.close()


class Generator:
    """An engine of whole texts: the first token takes a second, each further one a tenth."""

    vocab_size = 50
    description = "generator"

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []  # streams, tokens of a prompt, new tokens

    def generate(self, prompts: Sequence[Sequence[int]], n_tokens: int) -> list[float]:
        self.asked.append((len(prompts), len(prompts[0]), n_tokens))
        return [1 + 0.1 * i for i in range(n_tokens)]

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        return b""


def test_an_engine_of_whole_texts_is_timed_from_the_prompt_to_the_first_token() -> None:
    generator = Generator()
    assert Runner(generator).prefill_s(512) == 1
    assert generator.asked == [(1, 512, 1)]


def test_an_engine_of_whole_texts_decodes_as_many_steps_after_its_first_token() -> None:
    generator = Generator()
    assert Runner(generator).decode_s(5, depth=128, n_streams=2) == pytest.approx(0.5)
    assert generator.asked == [(2, 128, 6)]
