"""The generator over an engine that can be seen through: what each request gets, alone and in company."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from influence.errors import (
    ContextFull,
    EngineError,
    InfluenceError,
    InvalidParameter,
    NumericError,
    OutOfMemory,
    ServerBusy,
    TokenizerError,
)
from influence.generation.events import Finished, Stream, TextDelta
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams
from influence.models.spec import RopeScaling
from support.fake_clock import FakeClock
from support.fake_engine import PIECES, FakeDetokenizer, FakeEngine, fake_spec
from support.generation_oracle import Expected, expected_of
from support.generators import EOS, PROMPT, Gate, facts, params, running


def expected(engine: FakeEngine, prompt: list[int], asked: GenerationParams, context: int = 256) -> Expected:
    return expected_of(engine, prompt, asked, frozenset({EOS}), context)


# What one request gets.


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 1.0, "seed": 5},
        {"top_k": 5, "top_p": 0.8, "min_p": 0.01},
        {"repeat_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.3},
        {"logit_bias": {0: 10.0, 1: -100.0}},
    ],
)
def test_a_request_gets_the_tokens_that_sampling_one_by_one_gives(sampling: dict[str, Any]) -> None:
    engine, asked = FakeEngine(), params(max_tokens=60, sampling=sampling)
    with running(engine) as generator:
        assert facts(generator.submit(PROMPT, asked).collect()) == expected(engine, PROMPT, asked)


def test_the_pieces_join_to_the_text_and_end_with_one_finished() -> None:
    engine = FakeEngine()
    with running(engine) as generator:
        *deltas, end = list(generator.submit(PROMPT, params(max_tokens=50)))
    assert isinstance(end, Finished)
    assert all(isinstance(delta, TextDelta) for delta in deltas)
    assert "".join(delta.text for delta in deltas) == expected(engine, PROMPT, params(max_tokens=50)).text
    assert len(deltas) > 20  # it came in pieces


def test_an_eos_token_ends_the_text_and_is_counted_but_not_shown() -> None:
    engine = FakeEngine()
    asked = params(max_tokens=200, ignore_eos=False)
    with running(engine) as generator:
        completion = generator.submit(PROMPT, asked).collect()
    assert completion.finish_reason == "stop"
    assert completion.stop_string is None
    assert EOS not in completion.token_ids
    assert completion.statistics.completion_tokens == len(completion.token_ids) + 1
    assert facts(completion) == expected(engine, PROMPT, asked)


def test_a_stop_string_ends_the_text_before_it() -> None:
    engine = FakeEngine()
    whole = expected(engine, PROMPT, params(max_tokens=60)).text
    stop = whole[20:24]
    asked = params(max_tokens=60, stop=("never this", stop))
    with running(engine) as generator:
        completion = generator.submit(PROMPT, asked).collect()
    assert completion.text == whole[: whole.index(stop)]
    assert (completion.finish_reason, completion.stop_string) == ("stop", stop)
    assert completion.statistics.completion_tokens == len(completion.token_ids) < 60


def test_text_held_back_for_a_stop_string_is_shown_when_the_length_ends_it() -> None:
    engine = FakeEngine()
    whole = expected(engine, PROMPT, params(max_tokens=30)).text
    with running(engine) as generator:
        completion = generator.submit(PROMPT, params(max_tokens=30, stop=(whole[-3:] + "~",))).collect()
    assert (completion.text, completion.finish_reason) == (whole, "length")


def test_a_stop_string_that_only_the_end_completes_is_the_reason() -> None:
    # The first byte of a character again and again: the last one becomes U+FFFD when the text ends.
    byte = PIECES.index("€".encode()[:1])
    asked = params(max_tokens=3, sampling={"logit_bias": {byte: 100.0}}, stop=("\ufffd" * 3,))
    with running(FakeEngine()) as generator:
        completion = generator.submit(PROMPT, asked).collect()
    assert completion.token_ids == (byte,) * 3
    assert (completion.text, completion.finish_reason, completion.stop_string) == ("", "stop", "\ufffd" * 3)


def test_max_tokens_0_ends_at_once_without_text() -> None:
    engine = FakeEngine()
    with running(engine) as generator:
        completion = generator.submit(PROMPT, params(max_tokens=0)).collect()
    assert (completion.text, completion.token_ids, completion.finish_reason) == ("", (), "length")
    assert completion.statistics.prompt_tokens == len(PROMPT)
    assert engine.batches == []


def test_a_billion_max_tokens_end_where_the_context_does() -> None:
    engine = FakeEngine()
    with running(engine, context=32) as generator:
        completion = generator.submit(PROMPT, params(max_tokens=10**9)).collect()
    assert completion.finish_reason == "length"
    assert len(PROMPT) + len(completion.token_ids) == 32


@pytest.mark.parametrize(("n_prompt", "fits"), [(31, True), (32, False), (33, False), (10**5, False)])
def test_a_prompt_must_leave_room_for_one_token(n_prompt: int, fits: bool) -> None:
    engine = FakeEngine()
    with running(engine, context=32) as generator:
        if fits:
            assert len(generator.submit([1] * n_prompt, params()).collect().token_ids) == 1
            return
        with pytest.raises(ContextFull) as caught:
            generator.submit([1] * n_prompt, params())
    assert (caught.value.n_tokens, caught.value.context) == (n_prompt, 32)
    assert engine.batches == []


def test_a_request_may_have_a_smaller_context_of_its_own() -> None:
    engine = FakeEngine()
    with running(engine) as generator:
        assert len(generator.submit(PROMPT, params(), context=10).collect().token_ids) == 2
        with pytest.raises(ContextFull):
            generator.submit(PROMPT, params(), context=8)
        for context in (0, -1, 257, 1.5, True):
            with pytest.raises(InvalidParameter, match="context"):
                generator.submit(PROMPT, params(), context=context)  # type: ignore[arg-type]


@pytest.mark.parametrize("prompt", [[], [32], [0, -1], [1, 10**12]])
def test_a_prompt_that_the_model_can_not_read_is_refused(prompt: list[int]) -> None:
    with running(FakeEngine()) as generator, pytest.raises(InvalidParameter, match="prompt"):
        generator.submit(prompt, params())


def test_a_logit_bias_for_a_token_that_does_not_exist_is_refused() -> None:
    with running(FakeEngine()) as generator, pytest.raises(InvalidParameter, match="logit_bias"):
        generator.submit(PROMPT, params(sampling={"logit_bias": {32: 1.0}}))


@pytest.mark.parametrize(
    "options",
    [{"tokens_per_step": 8}, {"max_running": 0}, {"max_unfinished": 0}, {"context": 0}, {"context": 257}],
)
def test_options_that_can_not_work_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidParameter), running(FakeEngine(), **options):
        pass


def test_the_context_is_what_model_and_cache_allow() -> None:
    with running(FakeEngine(n_blocks=10, block_size=4)) as generator:
        assert generator.context == 40
    with running(FakeEngine(n_blocks=1000, block_size=4)) as generator:
        assert generator.context == 256


def test_logprobs_come_one_a_token_with_the_alternatives_asked_for() -> None:
    with running(FakeEngine()) as generator:
        completion = generator.submit(PROMPT, params(n_logprobs=3)).collect()
        assert generator.submit(PROMPT, params()).collect().logprobs == ()
    assert tuple(sample.token_id for sample in completion.logprobs) == completion.token_ids
    assert {len(sample.top_logprobs) for sample in completion.logprobs} == {3}


def test_the_statistics_count_tokens_and_measure_each_stage() -> None:
    engine, clock = FakeEngine(), FakeClock()
    gate = Gate(engine)
    engine.before_sample = lambda draws: clock.advance(3)  # so each step takes 3 s
    with running(engine, max_running=1, clock=clock.monotonic) as generator:
        first = generator.submit([7], params(max_tokens=2))
        assert gate.reached.wait(20)
        second = generator.submit(PROMPT, params(max_tokens=4))
        gate.opened.set()
        first.collect()
        statistics = second.collect().statistics
    assert (statistics.prompt_tokens, statistics.completion_tokens) == (8, 4)
    assert (statistics.queue_s, statistics.prefill_s, statistics.decode_s) == (6, 3, 9)
    assert statistics.first_token_s == 9
    assert statistics.prefill_tokens_per_s == 8 / 3
    assert statistics.decode_tokens_per_s == 1 / 3


# In company.


def test_many_at_once_get_what_each_gets_alone() -> None:
    engine = FakeEngine(n_blocks=200)
    requests = [
        ([i % 7, *PROMPT[: i % 5], i % 11], params(max_tokens=10 + i, sampling={"seed": i}))
        for i in range(20)
    ]
    with running(engine) as generator:
        streams = [generator.submit(prompt, asked) for prompt, asked in requests]
        completions = [stream.collect() for stream in streams]
    for (prompt, asked), completion in zip(requests, completions, strict=True):
        assert facts(completion) == expected(engine, prompt, asked)
    assert max(map(len, engine.batches)) == 8  # they did share steps


@pytest.mark.parametrize("tokens_per_step", [9, 10, 33, 1000])
def test_how_a_prompt_is_cut_into_chunks_changes_nothing(tokens_per_step: int) -> None:
    engine, prompt = FakeEngine(), [i * 7 % 30 for i in range(100)]
    with running(engine, tokens_per_step=tokens_per_step) as generator:
        assert facts(generator.submit(prompt, params()).collect()) == expected(engine, prompt, params())
    assert max(sum(batch) for batch in engine.batches) == min(100, tokens_per_step)


def test_a_step_has_as_many_tokens_as_the_engine_wants() -> None:
    engine, prompt = FakeEngine(), [i * 7 % 30 for i in range(100)]
    engine.tokens_per_step = 40
    with running(engine, tokens_per_step=None) as generator:
        generator.submit(prompt, params()).collect()
    assert engine.batches[:3] == [[40], [40], [20]]


def test_a_long_prompt_does_not_keep_others_from_their_next_token() -> None:
    engine = FakeEngine()
    gate = Gate(engine)
    with running(engine) as generator:
        short = generator.submit([1], params(max_tokens=30))
        assert gate.reached.wait(20)
        long = generator.submit([2] * 150, params(max_tokens=1))
        gate.opened.set()
        short.collect(), long.collect()
    mixed = [batch for batch in engine.batches if len(batch) == 2]
    assert len(mixed) == 10  # 150 tokens, 15 a step beside the decode
    assert all(batch == [1, 15] for batch in mixed)


def test_a_consumer_that_does_not_read_holds_up_nobody() -> None:
    with running(FakeEngine()) as generator:
        unread = generator.submit(PROMPT, params(max_tokens=100))
        assert generator.submit([7], params(max_tokens=100)).collect().finish_reason == "length"
        assert len(unread.collect().token_ids) == 100


def test_a_large_request_is_served_though_small_ones_keep_coming() -> None:
    engine = FakeEngine(n_blocks=16, block_size=4)
    order: list[str] = []
    with running(engine, max_running=4) as generator:
        gate = Gate(engine)
        first = generator.submit([1], params(max_tokens=20))
        assert gate.reached.wait(20)
        large = generator.submit([2] * 30, params(max_tokens=30))
        small = [generator.submit([3, i], params(max_tokens=2)) for i in range(10)]
        engine.before_sample = lambda draws: order.extend("L" if d.position >= 30 else "s" for d in draws)
        gate.opened.set()
        for stream in (first, large, *small):
            assert stream.collect().finish_reason == "length"
    # The small ones fitted beside the first, and still none began before the large one; one was done sooner.
    assert "".join(order).index("L") <= 20 + 2


def test_requests_that_fill_the_cache_to_its_last_position_run_together() -> None:
    engine = FakeEngine(n_blocks=4, block_size=4)
    gate = Gate(engine)
    with running(engine) as generator:
        first = generator.submit([1], params(max_tokens=1))
        assert gate.reached.wait(20)
        streams = [generator.submit([i] * 5, params(max_tokens=4)) for i in range(2)]  # 8 positions each
        gate.opened.set()
        for stream in (first, *streams):
            stream.collect()
    assert engine.batches[-1] == [1, 1]


def test_too_many_unfinished_requests_are_refused_until_one_has_ended() -> None:
    engine = FakeEngine()
    gate = Gate(engine)
    with running(engine, max_unfinished=2) as generator:
        streams = [generator.submit(PROMPT, params()) for _ in range(2)]
        with pytest.raises(ServerBusy):
            generator.submit(PROMPT, params())
        gate.opened.set()
        for stream in streams:
            stream.collect()
        for _ in range(20):  # whoever saw the end finds the place free
            generator.submit([5], params(max_tokens=1)).collect()


# Common prefixes.


def test_a_prompt_seen_before_is_not_computed_again() -> None:
    engine = FakeEngine()
    with running(engine) as generator:
        first = generator.submit(PROMPT, params()).collect()
        n_before = engine.n_tokens
        second = generator.submit(PROMPT, params()).collect()
    assert facts(first) == facts(second)
    assert (first.statistics.cached_tokens, second.statistics.cached_tokens) == (0, len(PROMPT) - 1)
    assert engine.n_tokens - n_before == 1 + 19


def test_a_conversation_goes_on_from_the_reply_before() -> None:
    engine = FakeEngine()
    with running(engine) as generator:
        reply = generator.submit(PROMPT, params()).collect()
        longer = [*PROMPT, *reply.token_ids, 8, 8]
        completion = generator.submit(longer, params()).collect()
    assert completion.statistics.cached_tokens == len(PROMPT) + 19  # the last token was never run
    assert facts(completion) == expected(engine, longer, params())


def test_a_prompt_that_another_request_runs_just_now_is_not_computed_again() -> None:
    engine, prompt = FakeEngine(block_size=4), [*PROMPT, 7, 8]
    streams: list[Stream] = []

    def submit_another(_: object) -> None:  # while the first runs, its prompt done
        if len(engine.batches) == 3:
            streams.append(generator.submit(prompt, params()))

    engine.before_sample = submit_another
    with running(engine) as generator:
        generator.submit(prompt, params(max_tokens=50)).collect()
        second = streams[0].collect()
    assert second.statistics.cached_tokens == 9
    assert facts(second) == expected(engine, prompt, params())


def test_without_a_prefix_cache_everything_is_computed() -> None:
    with running(FakeEngine(), prefix_cache_blocks=0) as generator:
        for _ in range(2):
            assert generator.submit(PROMPT, params()).collect().statistics.cached_tokens == 0


def test_kept_prefixes_make_room_for_a_request_that_needs_the_whole_cache() -> None:
    engine = FakeEngine(n_blocks=16, block_size=4)
    with running(engine) as generator:
        for i in range(12):
            generator.submit([i, i, i, i, i], params(max_tokens=8)).collect()
        whole = generator.submit([20] * 10, params(max_tokens=54)).collect()
    assert len(whole.token_ids) == 54
    assert facts(whole) == expected(engine, [20] * 10, params(max_tokens=54), context=64)


def test_where_rope_depends_on_the_context_a_short_request_runs_in_the_trained_one() -> None:
    spec = fake_spec(scaling=RopeScaling("longrope", 4.0, original_max_context=64))
    engine = FakeEngine(spec=spec)
    prompt, long_prompt = PROMPT, PROMPT * 8
    with running(engine) as generator:
        for given, context in ((prompt, 64), (long_prompt, 256), (prompt, 64)):
            completion = generator.submit(given, params()).collect()
            assert facts(completion) == expected_of(
                engine, given, params(), frozenset(), 256, session_context=context
            )


# Ends from outside.


def cancel_in_step(engine: FakeEngine, n: int, streams: list[Stream]) -> None:
    """Cancel all of `streams` while the n-th forward runs, twice."""

    def check(_: object) -> None:
        if len(engine.batches) == n:
            for stream in streams * 2:
                stream.cancel()

    engine.before_forward = check


def test_cancel_ends_a_running_request_with_the_text_so_far() -> None:
    engine, streams = FakeEngine(), list[Stream]()
    gate = Gate(engine)
    whole = expected(engine, PROMPT, params(max_tokens=200))
    with running(engine) as generator:
        streams.append(generator.submit(PROMPT, params(max_tokens=200)))
        cancel_in_step(engine, 30, streams)
        gate.opened.set()
        completion = streams[0].collect()
    assert completion.finish_reason == "cancelled"
    assert completion.token_ids == whole.token_ids[:31]  # the step that ran was not lost
    assert whole.text.startswith(completion.text.rstrip("\ufffd"))
    assert completion.statistics.completion_tokens == 31
    assert list(streams[0]) == []


def test_cancel_ends_a_request_that_waits() -> None:
    engine = FakeEngine()
    gate = Gate(engine)
    with running(engine, max_running=1) as generator:
        first, second = (generator.submit(PROMPT, params()) for _ in range(2))
        assert gate.reached.wait(20)
        second.cancel()
        gate.opened.set()
        cancelled = second.collect()
        assert (cancelled.finish_reason, cancelled.text) == ("cancelled", "")
        assert cancelled.statistics.first_token_s is None
        assert first.collect().finish_reason == "length"


def test_cancel_during_a_long_prompt_takes_effect_at_the_next_step() -> None:
    engine, streams = FakeEngine(), list[Stream]()
    gate = Gate(engine)
    with running(engine) as generator:
        streams.append(generator.submit([1] * 200, params()))
        cancel_in_step(engine, 3, streams)
        gate.opened.set()
        assert streams[0].collect().finish_reason == "cancelled"
    assert engine.batches == [[16]] * 4


def test_a_receiver_of_events_gets_them_in_the_generators_thread_and_the_stream_none() -> None:
    engine, got, ended = FakeEngine(), list[tuple[str, object]](), threading.Event()

    def receive(event: object) -> None:
        got.append((threading.current_thread().name, event))
        if isinstance(event, Finished):
            ended.set()

    with running(engine) as generator:
        stream = generator.submit(PROMPT, params(), on_event=receive)
        assert ended.wait(20)
        nothing_to_do = generator.submit(PROMPT, params(max_tokens=0), on_event=receive)
    assert {name for name, _ in got} == {"influence-generator"}
    *deltas, end, last = [event for _, event in got]
    assert "".join(delta.text for delta in deltas) == expected(engine, PROMPT, params()).text  # type: ignore[attr-defined]
    assert isinstance(end, Finished)
    assert isinstance(last, Finished)
    assert stream._queue.empty()
    assert nothing_to_do._queue.empty()


@pytest.mark.parametrize("fails_at", [1, 5, 21])
def test_a_receiver_that_fails_ends_its_request_and_no_other(fails_at: int) -> None:
    engine, n_calls = FakeEngine(), 0

    def fail(_: object) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls >= fails_at:
            raise RuntimeError("the event loop is closed")

    with running(engine) as generator:
        generator.submit(PROMPT, params(max_tokens=200), on_event=fail)
        assert facts(generator.submit([7], params()).collect()) == expected(engine, [7], params())
        for _ in range(5):
            generator.submit([7], params()).collect()
    assert n_calls == fails_at
    assert engine.n_tokens < 200  # the first did not run to its end


def test_leaving_the_with_block_of_a_stream_cancels_it() -> None:
    with running(FakeEngine()) as generator:
        with generator.submit(PROMPT, params(max_tokens=240)) as stream:
            next(stream)
        assert stream.collect().finish_reason in ("cancelled", "length")


def test_close_ends_what_runs_and_what_waits() -> None:
    engine = FakeEngine()
    gate = Gate(engine)
    with running(engine, max_running=1) as generator:
        streams = [generator.submit(PROMPT, params(max_tokens=200)) for _ in range(3)]
        assert gate.reached.wait(20)
        closer = threading.Thread(target=generator.close)
        closer.start()
        while not generator._closing:
            pass
        gate.opened.set()
        closer.join()
        assert [stream.collect().finish_reason for stream in streams] == ["cancelled"] * 3
        with pytest.raises(EngineError, match="closed"):
            generator.submit(PROMPT, params())
        generator.close()


def test_a_stream_read_to_its_end_has_nothing_more() -> None:
    with running(FakeEngine()) as generator:
        stream = generator.submit(PROMPT, params())
        stream.collect()
        assert list(stream) == []
        with pytest.raises(InfluenceError, match="read before"):
            stream.collect()


def test_ctrl_c_reaches_a_caller_that_waits_for_an_event() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    engine = FakeEngine()
    gate = Gate(engine)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with running(engine) as generator:
            stream = generator.submit(PROMPT, params())
            assert gate.reached.wait(20)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(KeyboardInterrupt):
                next(stream)
            stream.cancel()
            gate.opened.set()
            assert stream.collect().finish_reason == "cancelled"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Failures.


def failing_on(token_id: int, error: Exception) -> Callable[[Any], None]:
    def check(steps: Any) -> None:
        if any(token_id in step.token_ids for step in steps):
            raise error

    return check


@pytest.mark.parametrize("error", [OutOfMemory("the KV cache", 2, 1), RuntimeError("broken"), MemoryError()])
def test_a_failing_forward_fails_the_request_that_causes_it_and_no_other(error: Exception) -> None:
    engine = FakeEngine(n_blocks=200)
    engine.before_forward = failing_on(30, error)
    never_30 = {"logit_bias": {30: -100.0}}
    with running(engine) as generator:
        prompts = [[1, 2], [3, 30], [4, 5], [30], [6]]
        streams = [generator.submit(prompt, params(sampling=never_30)) for prompt in prompts]
        for prompt, stream in zip(prompts, streams, strict=True):
            if 30 not in prompt:
                assert facts(stream.collect()) == expected(engine, prompt, params(sampling=never_30))
                continue
            with pytest.raises(EngineError) as caught:
                stream.collect()
            assert caught.value is error or caught.value.__cause__ is error
            assert list(stream) == []


def test_nan_fails_its_request_alone_and_its_session_is_not_kept() -> None:
    engine = FakeEngine(n_blocks=200)
    engine.poison = frozenset({30})
    never_30 = {"logit_bias": {30: -100.0}}
    with running(engine) as generator:
        streams = [generator.submit([i, 30 if i == 2 else 1, 5], params(sampling=never_30)) for i in range(5)]
        for i, stream in enumerate(streams):
            if i == 2:
                with pytest.raises(NumericError):
                    stream.collect()
            else:
                assert stream.collect().finish_reason == "length"
        engine.poison = frozenset()
        assert generator.submit([2, 30, 5, 5], params()).collect().statistics.cached_tokens == 0


def test_an_engine_that_can_not_open_a_session_fails_that_request() -> None:
    engine = FakeEngine()
    opened = engine.new_session
    engine.new_session = failing = lambda context: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    with running(engine) as generator:
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            generator.submit(PROMPT, params()).collect()
        assert engine.new_session is failing
        engine.new_session = opened  # type: ignore[method-assign]
        assert generator.submit(PROMPT, params()).collect().finish_reason == "length"


@pytest.mark.parametrize("method", ["push", "flush"])
def test_a_failing_detokenizer_fails_its_request(method: str) -> None:
    class Failing(FakeDetokenizer):
        def __init__(self, tokenizer: object, prompt_ids: list[int], **options: frozenset[int]) -> None:
            super().__init__()
            if prompt_ids[0] == 9:
                setattr(self, method, self.fail)

        def fail(self, *_: object) -> str:
            raise TokenizerError(__file__, "panicked")  # type: ignore[arg-type]

    with running(FakeEngine(), new_detokenizer=Failing) as generator:
        with pytest.raises(TokenizerError):
            generator.submit([9], params()).collect()
        assert generator.submit([8], params()).collect().finish_reason == "length"


def test_a_defect_of_the_loop_ends_every_request_with_an_error() -> None:
    class Defective(FakeEngine):
        defect = False

        @property
        def kv_pool(self) -> Any:
            return 1 / 0 if self.defect else super().kv_pool

    engine = Defective()
    gate = Gate(engine)
    generator = Generator(engine, None, frozenset(), new_detokenizer=FakeDetokenizer)  # type: ignore[arg-type]
    streams = [generator.submit(PROMPT, params()) for _ in range(3)]
    assert gate.reached.wait(20)
    engine.defect = True
    gate.opened.set()
    for stream in streams:
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            stream.collect()
    with pytest.raises(EngineError, match="closed"):
        generator.submit(PROMPT, params())
    generator.close()


def test_the_pieces_cover_characters_of_several_tokens() -> None:
    assert any(len(piece.decode("utf-8", "ignore")) == 0 and piece for piece in PIECES)


def terminal_events(stream: Stream) -> int:
    n = 0
    while not stream._queue.empty():
        n += not isinstance(stream._queue.get(), TextDelta)
    return n


def test_a_cancel_that_races_with_the_end_gives_one_terminal_event() -> None:
    with running(FakeEngine(n_blocks=500), max_running=15, prefix_cache_blocks=20) as generator:
        streams = [generator.submit([i % 30], params(max_tokens=1 + i % 3)) for i in range(600)]
        threads = [
            threading.Thread(target=lambda part=part: [stream.cancel() for stream in part])  # type: ignore[misc]
            for part in (streams[::3], streams[1::3], streams[::-2])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert generator.submit([1], params()).collect().finish_reason == "length"
    assert {terminal_events(stream) for stream in streams} == {1}
