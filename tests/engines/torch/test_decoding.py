"""A run of decode steps over static buffers gives the tokens that one step after another gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from influence.engines.base import Step
from influence.engines.choosing import sample_row
from influence.engines.sampling import Draw, SamplingParams
from influence.engines.torch import placement
from influence.engines.torch.engine import TorchEngine
from influence.engines.torch.ops import PLAIN
from influence.errors import ContextFull, InvalidParameter, NumericError, OutOfMemory
from influence.models.spec import Rope
from support.random_specs import Extras, random_weights, small_spec

# Ropes that differ between sessions, windows, a softcap: everything that the buffers must carry.
SPEC = small_spec(
    ropes=(Rope(1e4, 8), Rope(1e2, 4)),
    layer_rope=(0, 1),
    layer_window=(None, 9),
    attention_softcap=20.0,
)
WEIGHTS = random_weights(SPEC, Extras(biases=True))
MIXED = [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=1.0, seed=1),
    SamplingParams(temperature=1.3, top_k=9, top_p=0.9, min_p=0.01, seed=2),
]


def engine_of(n_blocks: int = 30, **changes: object) -> TorchEngine:
    where = replace(placement.on_cpu(), **changes)
    return TorchEngine(SPEC, WEIGHTS, where, n_blocks=lambda: n_blocks)


class Recorded:
    """A stand-in for graphs: steps are run thrice when they are made, as a capture does, and counted after."""

    def __init__(self) -> None:
        self.n_made = self.n_replays = 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        self.n_made += 1
        for _ in range(3):
            step()

        def replay() -> None:
            self.n_replays += 1
            step()

        return replay


def begun(engine: TorchEngine, n: int, depth: int = 250, context: int = 512) -> list[Step]:
    """Sessions with prompts of `depth` and more tokens, and the first token to decode of each."""
    steps = []
    for seed in range(n):
        ids = [int(i) for i in np.random.default_rng(seed).integers(0, SPEC.vocab_size, depth + seed)]
        session = engine.new_session(context)
        engine.forward([Step(session, ids, 0)])
        steps.append(Step(session, [seed]))
    return steps


def draws_of(steps: list[Step], params: list[SamplingParams]) -> list[Draw]:
    return [
        Draw(row, step.session.position + 1, one, n_logprobs=-1)
        for row, (step, one) in enumerate(zip(steps, params, strict=True))
    ]


def counted(draws: list[Draw], prompts: list[list[int]], generated: list[list[int]]) -> list[Draw]:
    """With what a penalty asks: the prompt's ids, and how often each token was generated."""
    found = []
    for draw, prompt, so_far in zip(draws, prompts, generated, strict=True):
        ids, counts = np.unique(np.array(so_far, np.int64), return_counts=True)
        found.append(replace(draw, prompt_ids=np.unique(prompt), generated_ids=ids, generated_counts=counts))
    return found


def one_by_one(engine: TorchEngine, n_sessions: int, params: list[SamplingParams], n: int) -> list[list[int]]:
    steps, found = begun(engine, n_sessions), []
    for _ in range(n):
        draws = draws_of(steps, params)
        engine.forward(steps)
        found.append([sample.token_id for sample in engine.sample(draws)])
        steps = [Step(step.session, [token]) for step, token in zip(steps, found[-1], strict=True)]
    return found


@pytest.mark.parametrize(
    "params", [MIXED[:1] * 3, [MIXED[1], MIXED[0], MIXED[1]], MIXED], ids=["greedy", "drawn", "mixed"]
)
@pytest.mark.parametrize("graphs", [False, True])
def test_a_run_ahead_gives_the_tokens_of_single_steps(params: list[SamplingParams], graphs: bool) -> None:
    """They cross blocks at different steps, and outgrow the narrowest tables."""
    n, expected = 12, one_by_one(engine_of(), 3, params, 12)
    recorded = Recorded()
    engine = engine_of(graph=recorded) if graphs else engine_of()
    steps = begun(engine, 3)
    run = engine.decode_ahead(steps, draws_of(steps, params))
    assert run is not None
    found = []
    for _ in range(n - 1):
        run.launch()
        assert run.n_in_flight == 2
        found.append([sample.token_id for sample in run.take()])
    found.append([sample.token_id for sample in run.take()])
    assert run.n_in_flight == 0
    assert found == expected
    assert [step.session.position for step in steps] == [250 + n, 251 + n, 252 + n]
    if graphs:
        assert (recorded.n_made, recorded.n_replays) == (2, n)  # two widths of one kind


@pytest.mark.parametrize("graphs", [False, True])
def test_penalties_biases_and_log_probabilities_run_ahead_too(graphs: bool) -> None:
    """Tokens that a run chose count at once, also those that nobody has seen yet."""
    params = [
        SamplingParams(temperature=0.0, repeat_penalty=1.4, frequency_penalty=0.5),
        SamplingParams(temperature=1.0, presence_penalty=1.0, seed=1),
        SamplingParams(temperature=1.0, top_k=9, logit_bias={3: 4.0, 5: -100.0}, seed=2),
    ]
    n, prompts = 8, [[seed] for seed in range(3)]
    engine = engine_of()
    steps, found, tops = begun(engine, 3), [[], [], []], []
    for _ in range(n):
        draws = counted(draws_of(steps, params), prompts, found)
        engine.forward(steps)
        rows = engine.logits()
        samples = [sample_row(rows[d.row], replace(d, n_logprobs=d.row)) for d in draws]
        tops.append([(s.logprob, *(i for i, _ in s.top_logprobs)) for s in samples])
        for so_far, sample in zip(found, samples, strict=True):
            so_far.append(sample.token_id)
        steps = [Step(step.session, so_far[-1:]) for step, so_far in zip(steps, found, strict=True)]

    engine = engine_of(graph=Recorded()) if graphs else engine_of()
    steps = begun(engine, 3)
    draws = counted(draws_of(steps, params), prompts, [[], [], []])
    run = engine.decode_ahead(steps, [replace(draw, n_logprobs=draw.row) for draw in draws])
    assert run is not None
    for i in range(n):
        run.launch()
        samples = run.take()
        assert [sample.token_id for sample in samples] == [so_far[i] for so_far in found]
        for sample, (logprob, *ids) in zip(samples, tops[i], strict=True):
            assert sample.logprob == pytest.approx(logprob, abs=1e-4)
            assert [token_id for token_id, _ in sample.top_logprobs] == ids


def test_one_graph_serves_every_length_where_attention_reads_only_what_is_held() -> None:
    """Also for sequences that come after longer ones, whose blocks still stand in the tables."""
    expected, recorded = one_by_one(engine_of(), 2, MIXED[:2], 12), Recorded()
    engine = engine_of(graph=recorded, ops=replace(PLAIN, reads_used_blocks=True))
    longer = begun(engine, 2, depth=500)
    assert engine.forward(longer) == 2
    for step in longer:
        step.session.close()
    steps = begun(engine, 2)
    run = engine.decode_ahead(steps, draws_of(steps, MIXED[:2]))
    assert run is not None
    found = []
    for _ in range(12):
        run.launch()
        found.append([sample.token_id for sample in run.take()])
    assert found == expected
    assert recorded.n_made == 2  # one of logits alone, one with the choice


def test_making_a_graph_writes_to_no_block_but_the_sequence_s_own() -> None:
    """The steps of a warm-up stay where they are, or the next block of the table, another's by now, would be hit."""
    engine = engine_of(n_blocks=4, graph=Recorded(), ops=replace(PLAIN, reads_used_blocks=True))
    [long] = begun(engine, 1, depth=120)
    assert engine.forward([long]) == 1
    long.session.rewind(64)
    others = engine.new_session(128)
    engine.forward([Step(others, [5] * 70, 0)])
    before = engine._kv[:, :, others.blocks].clone()
    [step] = [Step(long.session.fork(62), [1])]
    long.session.close()
    draws = draws_of([step], MIXED[:1])
    assert engine.decode_ahead([step], draws) is not None
    assert torch.equal(engine._kv[:, :, others.blocks], before)


def test_a_session_that_is_rewound_after_a_run_goes_on_as_if_it_had_never_run_ahead() -> None:
    engine = engine_of()
    steps = begun(engine, 2)
    expected = one_by_one(engine_of(), 2, MIXED[:2], 4)
    run = engine.decode_ahead(steps, draws_of(steps, MIXED[:2]))
    assert run is not None
    run.launch()
    first = [sample.token_id for sample in run.take()]
    for step in steps:
        step.session.rewind(step.session.position - 1)
    steps = [Step(step.session, [token]) for step, token in zip(steps, first, strict=True)]
    draws = draws_of(steps, MIXED[:2])
    engine.forward(steps)
    again = [sample.token_id for sample in engine.sample(draws)]
    assert [first, again] == expected[:2]


def test_a_run_stops_at_the_context_and_when_blocks_are_out_having_changed_nothing() -> None:
    engine = engine_of()
    steps = begun(engine, 1, depth=60, context=62)
    run = engine.decode_ahead(steps, draws_of(steps, MIXED[:1]))
    assert run is not None
    run.launch()
    with pytest.raises(ContextFull):
        run.launch()
    assert (steps[0].session.position, run.n_in_flight) == (62, 2)

    engine = engine_of(n_blocks=1)
    steps = begun(engine, 1, depth=62)
    run = engine.decode_ahead(steps, draws_of(steps, MIXED[:1]))
    assert run is not None
    run.launch()
    with pytest.raises(OutOfMemory):
        run.launch()
    assert (steps[0].session.position, run.n_in_flight) == (64, 2)


def test_a_forward_ends_a_run_and_what_is_in_flight_can_still_be_taken() -> None:
    engine = engine_of()
    steps = begun(engine, 1)
    run = engine.decode_ahead(steps, draws_of(steps, MIXED[:1]))
    other = engine.new_session(64)
    engine.forward([Step(other, [1])])
    assert run is not None and len(run.take()) == 1
    with pytest.raises(InvalidParameter, match="run"):
        run.launch()


def test_what_needs_the_host_does_not_run_ahead() -> None:
    engine = engine_of()
    steps = begun(engine, 1)
    [draw] = draws_of(steps, MIXED[:1])
    assert engine.decode_ahead(steps, [replace(draw, allowed=np.ones(SPEC.vocab_size, np.bool_))]) is None
    assert engine.decode_ahead([Step(steps[0].session, [1, 2])], [draw]) is None
    assert engine_of(samples_on_device=False).decode_ahead(steps, [draw]) is None


def test_a_row_that_is_no_number_is_an_error_with_its_position_when_it_is_taken() -> None:
    engine = engine_of()
    steps = begun(engine, 1)
    engine._kv[:] = torch.nan
    run = engine.decode_ahead(steps, draws_of(steps, MIXED[:1]))
    assert run is not None
    with pytest.raises(NumericError, match="position 251"):
        run.take()
