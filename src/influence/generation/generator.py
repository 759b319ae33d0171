"""The loop that serves many requests with one engine.

A request's life:

    submit -> waiting -> admitted (a new session, or a fork of a kept one)
           -> prompt chunks -> one token a step -> its session kept for a common prefix
           -> exactly one terminal event

One thread owns the engine and repeats: take what was submitted or cancelled,
admit, plan the step, forward, sample, emit. Everybody else only hands it
requests and receives events.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from influence.engines.base import Engine
from influence.engines.sampling import Sample
from influence.errors import ContextFull, EngineError, InfluenceError, InvalidParameter, ServerBusy
from influence.generation.events import Finished, FinishReason, Statistics, Stream
from influence.generation.params import GenerationParams
from influence.generation.prefix_cache import PrefixCache
from influence.generation.scheduler import chunk_lengths, n_admitted
from influence.generation.sequence import SequenceState
from influence.generation.stop import CompletionText, Detokenizer
from influence.models.spec import ModelSpec
from influence.text.stream import IncrementalDetokenizer
from influence.text.tokenizer import Tokenizer

Chunk = tuple[SequenceState, int]  # a sequence, and how many of its pending tokens run in this step

# Prompt tokens that a step computes while others wait for their next token: enough to
# make a matrix product bound by arithmetic, few enough that a step stays short.
TOKENS_PER_STEP = 256
MAX_RUNNING = 64
MAX_UNFINISHED = 1024


class Generator:
    """Runs requests on an engine, many at once, each as if it were alone.

    `close` ends the thread, not the engine: whoever made the engine closes it,
    and uses it for nothing else before.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        eos_ids: frozenset[int],
        *,
        context: int | None = None,
        tokens_per_step: int = TOKENS_PER_STEP,
        max_running: int = MAX_RUNNING,
        max_unfinished: int = MAX_UNFINISHED,
        prefix_cache_blocks: int | None = None,
        new_detokenizer: Callable[[Tokenizer, Sequence[int]], Detokenizer] = IncrementalDetokenizer,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start the thread.

        `eos_ids`: tokens that end a completion. `context`: the most
        positions a request may have; None: all that the model and the KV cache
        allow. `prefix_cache_blocks`: the most KV blocks kept for common
        prefixes; None: all that nobody needs, 0: none. Raises InvalidParameter
        for numbers that can't work together.
        """
        _require_room(tokens_per_step, max_running, max_unfinished)
        pool = engine.kv_pool
        self._engine = engine
        self._new_detokenizer: Callable[[Sequence[int]], Detokenizer] = partial(new_detokenizer, tokenizer)
        self._eos_ids = eos_ids
        self.context = largest_context(engine, context)
        self._tokens_per_step = tokens_per_step
        self._max_running = max_running
        self._max_unfinished = max_unfinished
        self._clock = clock
        self._cache = PrefixCache(
            engine, pool.n_blocks if prefix_cache_blocks is None else prefix_cache_blocks
        )
        self._waiting: deque[SequenceState] = deque()
        self._running: list[SequenceState] = []
        self._inbox: SimpleQueue[SequenceState | None] = SimpleQueue()  # None: look again
        self._lock = threading.Lock()  # guards the two below
        self._n_unfinished = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="influence-generator", daemon=True)
        self._thread.start()

    def submit(
        self, prompt_ids: Sequence[int], params: GenerationParams, *, context: int | None = None
    ) -> Stream:
        """Ask for a completion of the prompt; its events come through the stream. For any thread.

        `context`: a smaller limit of positions for this request. Raises, before
        any work, ContextFull if the prompt leaves no room for a token,
        InvalidParameter for ids that the model does not have or an empty
        prompt, ServerBusy, and EngineError after `close`.
        """
        limit = self.context if context is None else _checked_limit(context, self.context)
        self._check_ids(prompt_ids, params)
        n_prompt, n_wanted = len(prompt_ids), min(1, params.max_tokens)
        if n_prompt + n_wanted > limit:
            raise ContextFull(n_prompt, n_wanted, limit)
        stream = Stream(wake=lambda: self._inbox.put(None))
        if params.max_tokens == 0:
            stream.put(Finished("length", Statistics(n_prompt, 0, 0, 0.0, 0.0, 0.0, None)))
        else:
            self._enter(self._new_sequence(prompt_ids, params, limit, stream))
        return stream

    def close(self) -> None:
        """End what still runs as "cancelled", give all blocks back, end the thread. Idempotent."""
        with self._lock:
            self._closing = True
        self._inbox.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # In the caller's thread.

    def _check_ids(self, prompt_ids: Sequence[int], params: GenerationParams) -> None:
        vocab_size = self._engine.spec.vocab_size
        if len(prompt_ids) == 0:
            raise InvalidParameter("prompt", "", "at least one token: this model has none to begin with")
        for what, ids in (
            ("prompt token id", prompt_ids),
            ("logit_bias token id", params.sampling.logit_bias),
        ):
            foreign = next((i for i in ids if not 0 <= i < vocab_size), None)
            if foreign is not None:
                raise InvalidParameter(what, foreign, f"from 0 to {vocab_size - 1}, the model's vocabulary")

    def _new_sequence(
        self, prompt_ids: Sequence[int], params: GenerationParams, limit: int, stream: Stream
    ) -> SequenceState:
        n_prompt = len(prompt_ids)
        max_new_tokens = min(params.max_tokens, limit - n_prompt)
        return SequenceState(
            token_ids=[int(token_id) for token_id in prompt_ids],
            n_prompt=n_prompt,
            params=params,
            max_new_tokens=max_new_tokens,
            context=session_context(self._engine.spec, n_prompt + max_new_tokens, limit, self.context),
            eos_ids=frozenset() if params.ignore_eos else self._eos_ids,
            text=CompletionText(self._new_detokenizer(prompt_ids), params.stop),
            stream=stream,
            submitted_s=self._clock(),
        )

    def _enter(self, sequence: SequenceState) -> None:
        with self._lock:
            if self._closing:
                raise EngineError("the generator is closed", hint="make a new one")
            if self._n_unfinished >= self._max_unfinished:
                raise ServerBusy(self._n_unfinished, retry_after_s=1.0)
            self._n_unfinished += 1
            self._inbox.put(sequence)

    # In the generator's thread.

    def _run(self) -> None:
        try:
            while self._receive():
                self._step()
            for sequence in [*self._running, *self._waiting]:
                self._finish(sequence, "cancelled")
            self._cache.clear()
        except BaseException as error:  # a defect of ours; nobody may wait for ever because of it
            self._abandon(error)

    def _receive(self) -> bool:
        """Take what was submitted, waiting for it if there is nothing to do; False to end."""
        idle = not self._running and not self._waiting
        while True:
            try:
                sequence = self._inbox.get(block=idle)
            except Empty:
                return not self._closing
            idle = False
            if sequence is not None:
                self._waiting.append(sequence)

    def _step(self) -> None:
        for sequence in [*self._running, *self._waiting]:
            if sequence.stream.cancel_wanted:
                self._finish(sequence, "cancelled")
        self._admit()
        lengths = chunk_lengths([s.n_pending for s in self._running], self._tokens_per_step)
        chunks = [(sequence, n) for sequence, n in zip(self._running, lengths, strict=True) if n]
        if chunks:
            self._advance(chunks)

    def _admit(self) -> None:
        """Begin with those of the waiting that have a place and all the blocks they can need."""
        pool = self._engine.kv_pool
        reserved = sum(pool.blocks_for(sequence.max_positions) for sequence in self._running)
        needs = [pool.blocks_for(sequence.max_positions) for sequence in self._waiting]
        n = n_admitted(needs, pool.n_blocks - reserved, self._max_running - len(self._running))
        for sequence in [self._waiting.popleft() for _ in range(n)]:
            self._running.append(sequence)
            sequence.admitted_s = self._clock()
            try:
                self._open_session(sequence)
            except Exception as error:
                self._fail(sequence, error)

    def _open_session(self, sequence: SequenceState) -> None:
        session = self._cache.fork(sequence.token_ids, sequence.context)
        sequence.session = session or self._engine.new_session(sequence.context)
        sequence.n_cached = sequence.n_run

    def _advance(self, chunks: list[Chunk]) -> None:
        """Forward and sample; what makes the batch fail fails alone, the others go on."""
        self._make_room(chunks)
        try:
            self._engine.forward([sequence.step(n) for sequence, n in chunks])
        except Exception as error:
            if len(chunks) == 1:
                self._fail(chunks[0][0], error)
            else:
                for chunk in chunks:
                    self._advance([chunk])
            return
        ready = [sequence for sequence, _ in chunks if sequence.n_pending == 0]
        self._sample(list(enumerate(ready)))

    def _make_room(self, chunks: list[Chunk]) -> None:
        """Evict kept prefixes until the step has its blocks; admission made sure that this suffices.

        A block begun counts as new, because a fork copies the one it shares.
        """
        block_size = self._engine.kv_pool.block_size
        needed = sum(-(-(s.n_run + n) // block_size) - s.n_run // block_size for s, n in chunks)
        while self._engine.kv_pool.n_free < needed and self._cache.evict_one():
            pass

    def _sample(self, rows: list[tuple[int, SequenceState]]) -> None:
        """Choose a token for each sequence from its row of logits."""
        if not rows:
            return
        try:
            samples = self._engine.sample([sequence.draw(row) for row, sequence in rows])
        except Exception as error:
            if len(rows) == 1:
                self._fail(rows[0][1], error)
            else:
                for row in rows:
                    self._sample([row])
            return
        for (_, sequence), sample in zip(rows, samples, strict=True):
            self._accept(sequence, sample)

    def _accept(self, sequence: SequenceState, sample: Sample) -> None:
        if sequence.n_generated == 0:
            self._keep_prompt(sequence)
        try:
            reason = sequence.accept(sample, self._clock())
        except Exception as error:
            self._fail(sequence, error)
            return
        if reason is not None:
            self._finish(sequence, reason)

    def _keep_prompt(self, sequence: SequenceState) -> None:
        """Offer a finished prompt to others while its own sequence goes on.

        Only whole blocks, which this sequence never writes again: so no copy is made.
        """
        n = sequence.n_prompt - sequence.n_prompt % self._engine.kv_pool.block_size
        if n > 0 and sequence.session is not None:
            self._cache.put(sequence.token_ids[:n], sequence.session.fork(n))

    def _finish(self, sequence: SequenceState, reason: FinishReason) -> None:
        self._leave(sequence, keep=True)
        try:
            sequence.finish(reason, self._clock())
        except Exception as error:  # the detokenizer's last words
            sequence.fail(_as_ours(error))

    def _fail(self, sequence: SequenceState, error: Exception) -> None:
        self._leave(sequence, keep=False)
        sequence.fail(_as_ours(error))

    def _leave(self, sequence: SequenceState, *, keep: bool) -> None:
        """Free the place before the terminal event, so that whoever reads that event may submit again."""
        (self._running if sequence in self._running else self._waiting).remove(sequence)
        session, n_run = sequence.session, sequence.n_run
        sequence.session = None
        if session is not None and keep and n_run > 0:
            self._cache.put(sequence.token_ids[:n_run], session)
        elif session is not None:
            session.close()
        with self._lock:
            self._n_unfinished -= 1

    def _abandon(self, error: BaseException) -> None:
        """End every request with the error, and take no more."""
        with self._lock:
            self._closing = True
        self._inbox.put(None)
        self._receive()
        for sequence in [*self._running, *self._waiting]:
            sequence.fail(_as_ours(error))


def largest_context(engine: Engine, wanted: int | None) -> int:
    """The most positions of a request: `wanted`, or all that model and KV cache allow."""
    pool = engine.kv_pool
    available = min(engine.spec.max_context, pool.n_blocks * pool.block_size)
    return available if wanted is None else _checked_limit(wanted, available)


def session_context(spec: ModelSpec, n_positions: int, limit: int, largest: int) -> int:
    """The context to make a session with, for a request of at most `n_positions` of `limit`.

    Normally the largest, so that any later request can go on from it. Where
    the rope frequencies depend on it, the context trained on if the request
    fits that (as transformers does), else the request's limit.
    """
    if not spec.rope_depends_on_context:
        return largest
    trained = min(rope.scaling.original_max_context for rope in spec.ropes if rope.depends_on_context)
    return trained if n_positions <= trained < limit else limit


def _checked_limit(context: int, largest: int) -> int:
    if not isinstance(context, int) or isinstance(context, bool) or not 1 <= context <= largest:
        raise InvalidParameter("context", context, f"a whole number from 1 to {largest}")
    return context


def _require_room(tokens_per_step: int, max_running: int, max_unfinished: int) -> None:
    if max_running < 1:
        raise InvalidParameter("max_running", max_running, "at least 1")
    if max_unfinished < 1:
        raise InvalidParameter("max_unfinished", max_unfinished, "at least 1")
    if tokens_per_step <= max_running:
        # Else running decodes could leave prompts nothing of any step.
        raise InvalidParameter("tokens_per_step", tokens_per_step, f"more than max_running, {max_running}")


def _as_ours(error: BaseException) -> InfluenceError:
    """The error itself, or a foreign one wrapped, its traceback kept as the cause."""
    if isinstance(error, InfluenceError):
        return error
    ours = EngineError(f"the engine failed: {error!r}", hint="this is a defect: please report it")
    ours.__cause__ = error
    return ours
