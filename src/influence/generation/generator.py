"""The loop that serves many requests with one engine.

A request's life:

    submit -> waiting -> admitted (a new session, or a fork of a kept one)
           -> prompt chunks -> one token a step -> its session kept for a common prefix
           -> exactly one terminal event

One thread owns the engine and repeats: take what was submitted or cancelled,
then a step of the loop (`loop.py`). Everybody else only hands it requests and
receives events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Self

from influence.engines.base import Engine
from influence.errors import ContextFull, EngineError, InvalidParameter, ServerBusy
from influence.generation.constraint import Constraint
from influence.generation.drafting import Drafter, DraftMode
from influence.generation.events import OnEvent, Stream
from influence.generation.facts import EndRate, GeneratorFacts
from influence.generation.loop import Loop
from influence.generation.params import GenerationParams
from influence.generation.prefix_cache import PrefixCache
from influence.generation.sequence import SequenceState
from influence.generation.stop import CompletionText, Detokenizer
from influence.models.spec import ModelSpec
from influence.text.stream import IncrementalDetokenizer
from influence.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from influence.generation.prompt_store import PromptStore
    from influence.generation.stored_prompts import StoredPrompts

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
        tokens_per_step: int | None = None,
        max_running: int = MAX_RUNNING,
        max_unfinished: int = MAX_UNFINISHED,
        prefix_cache_blocks: int | None = None,
        prompt_store: PromptStore | None = None,
        draft: DraftMode = "ngram",
        new_detokenizer: Callable[..., Detokenizer] = IncrementalDetokenizer,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start the thread.

        `eos_ids`: tokens that end a completion. `context`: the most
        positions a request may have; None: all that the model and the KV cache
        allow. `tokens_per_step`: of all requests at most; None: the engine's
        own. `prefix_cache_blocks`: the most KV blocks kept for common
        prefixes; None: all that nobody needs, 0: none. `prompt_store`: prompts
        on disk, made for this engine; closed by whoever made it, after this.
        `draft`: whether to guess tokens that the text has said before and run
        several at once; only on an engine where that changes no bit.
        Raises InvalidParameter for numbers that can't work together.
        """
        tokens_per_step = engine.tokens_per_step if tokens_per_step is None else tokens_per_step
        _require_room(tokens_per_step, max_running, max_unfinished)
        self._engine = engine
        self._new_detokenizer = partial(new_detokenizer, tokenizer)
        self._eos_ids = eos_ids
        self.context = largest_context(engine, context)
        self._max_unfinished = max_unfinished
        self._drafts = draft == "ngram" and engine.is_bit_exact
        self._clock = clock
        n_kept = engine.kv_pool.n_blocks if prefix_cache_blocks is None else prefix_cache_blocks
        self._loop = Loop(
            engine,
            PrefixCache(engine, n_kept),
            tokens_per_step=tokens_per_step,
            max_running=max_running,
            clock=clock,
            on_left=self._on_left,
            stored=None if prompt_store is None else self._stored(prompt_store),
        )
        self._inbox: SimpleQueue[SequenceState | None] = SimpleQueue()  # None: look again
        self._lock = threading.Lock()  # guards the four below
        self._n_unfinished = 0
        self._busy_since_s = 0.0
        self._end_rate = EndRate()
        self._closing = False
        # Written by the thread alone, read by any.
        self._facts = self._loop.facts()
        self._last_step_s = clock()
        self._thread = threading.Thread(target=self._run, name="influence-generator", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: GenerationParams,
        *,
        context: int | None = None,
        constraint: Constraint | None = None,
        salt: str = "",
        on_event: OnEvent | None = None,
    ) -> Stream:
        """Ask for a completion of the prompt; its events come through the stream. For any thread.

        `context`: a smaller limit of positions for this request. `constraint`:
        what the completion must keep to; this request's alone. `salt`: prompts
        share computed prefixes only with those of the same salt. `on_event` is
        called with each event, in the generator's thread, instead of queueing
        it in the stream; it must not block, and one that raises cancels.

        Raises, before any work, ContextFull if the prompt leaves no room for a
        token, InvalidParameter for ids that the model does not have or an
        empty prompt, ServerBusy, and EngineError after `close`.
        """
        limit = self.context if context is None else _checked_limit(context, self.context)
        self._check_ids(prompt_ids, params)
        n_prompt, n_wanted = len(prompt_ids), min(1, params.max_tokens)
        if n_prompt + n_wanted > limit:
            raise ContextFull(n_prompt, n_wanted, limit)
        sequence = self._new_sequence(prompt_ids, params, limit, on_event)
        sequence.constraint, sequence.salt = constraint, salt
        self._enter(sequence)
        return sequence.stream

    def facts(self) -> GeneratorFacts:
        """How it goes, without waiting for anything. For any thread."""
        with self._lock:
            n_unfinished, busy_since_s, closing = self._n_unfinished, self._busy_since_s, self._closing
        since_s = max(busy_since_s, self._last_step_s)
        return GeneratorFacts(
            loop=self._facts,
            n_unfinished=n_unfinished,
            is_alive=not closing and self._thread.is_alive() and self._engine.is_usable,
            stalled_s=max(0.0, self._clock() - since_s) if n_unfinished else 0.0,
        )

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
        for name, ids in (("prompt", prompt_ids), ("logit_bias", params.sampling.logit_bias)):
            foreign = next((i for i in ids if not 0 <= i < vocab_size), None)
            if foreign is not None:
                expected = f"of token ids from 0 to {vocab_size - 1}, the model's vocabulary"
                raise InvalidParameter(name, foreign, expected)

    def _new_sequence(
        self, prompt_ids: Sequence[int], params: GenerationParams, limit: int, on_event: OnEvent | None
    ) -> SequenceState:
        n_prompt = len(prompt_ids)
        max_new_tokens = min(params.max_tokens, limit - n_prompt)
        token_ids = [int(token_id) for token_id in prompt_ids]
        return SequenceState(
            token_ids=token_ids,
            drafter=Drafter(token_ids) if self._drafts else None,
            n_prompt=n_prompt,
            params=params,
            max_new_tokens=max_new_tokens,
            context=session_context(self._engine.spec, n_prompt + max_new_tokens, limit, self.context),
            eos_ids=frozenset() if params.ignore_eos else self._eos_ids,
            text=CompletionText(self._new_detokenizer(prompt_ids, shown_ids=params.shown_ids), params.stop),
            stream=Stream(self._wake, on_event),
            submitted_s=self._clock(),
        )

    def _stored(self, prompt_store: PromptStore) -> StoredPrompts:
        from influence.generation.stored_prompts import StoredPrompts

        return StoredPrompts(prompt_store, self._engine.kv_pool.block_size, wake=self._wake)

    def _wake(self) -> None:
        """Have the thread look again; from any thread."""
        self._inbox.put(None)

    def _enter(self, sequence: SequenceState) -> None:
        with self._lock:
            if self._closing:
                raise EngineError("the generator is closed", hint="make a new one")
            if self._n_unfinished >= self._max_unfinished:
                raise ServerBusy(self._n_unfinished, self._end_rate.retry_after_s(self._clock()))
            if self._n_unfinished == 0:
                self._busy_since_s = self._clock()
            self._n_unfinished += 1
            self._inbox.put(sequence)

    # In the generator's thread.

    def _run(self) -> None:
        try:
            while self._receive():
                self._loop.step()
                self._facts = self._loop.facts()
                self._last_step_s = self._clock()
            self._loop.cancel_all()
            self._facts = self._loop.facts()
        except BaseException as error:  # a defect of ours; nobody may wait for ever because of it
            self._abandon(error)

    def _receive(self) -> bool:
        """Take what was submitted, waiting for it if there is nothing to do; False to end."""
        idle = self._loop.is_idle
        while True:
            try:
                sequence = self._inbox.get(block=idle)
            except Empty:
                return not self._closing
            idle = False
            if sequence is not None:
                self._loop.add(sequence)

    def _on_left(self) -> None:
        with self._lock:
            self._n_unfinished -= 1
            self._end_rate.add(self._clock())

    def _abandon(self, error: BaseException) -> None:
        """End every request with the error, and take no more."""
        with self._lock:
            self._closing = True
        self._inbox.put(None)
        self._receive()
        self._loop.fail_all(error)


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
