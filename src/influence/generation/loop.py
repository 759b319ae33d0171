"""What the generator's thread does in a step: admit, plan, forward, sample, emit.

The loop owns the sequences, the kept prefixes, and for its time the engine. It
knows no thread, lock or queue: `generator.py` feeds it and calls `step`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from influence.engines.base import Engine, KvPool
from influence.engines.sampling import Sample
from influence.errors import EngineError, InfluenceError
from influence.generation.ahead import Ahead, Taken
from influence.generation.chunks import Chunk, Drawn, Rows, all_decode, width
from influence.generation.drafting import MAX_ROWS, StepCosts, draft_lengths
from influence.generation.events import FinishReason
from influence.generation.facts import LoopFacts
from influence.generation.prefix_cache import PrefixCache
from influence.generation.scheduler import Pace, chunk_lengths, n_admitted, step_budget, within_rows
from influence.generation.sequence import SequenceState
from influence.generation.sharing import Lead, open_or_wait

if TYPE_CHECKING:
    from influence.generation.stored_prompts import Load, StoredPrompts

# Rows of logits that scored prompts may take in one step, of 4 bytes a number.
SCORED_BYTES = 32 << 20


class Loop:
    """Runs the sequences it is given, each as if it were alone. For one thread."""

    def __init__(
        self,
        engine: Engine,
        cache: PrefixCache,
        *,
        tokens_per_step: int,
        max_running: int,
        clock: Callable[[], float],
        on_left: Callable[[], None],
        stored: StoredPrompts | None = None,
    ) -> None:
        """`on_left` is called for each sequence that ends, before its terminal event; `stored`: prompts on disk."""
        self._engine = engine
        self._cache = cache
        self._tokens_per_step = tokens_per_step
        self._max_running = max_running
        self._clock = clock
        self._on_left = on_left
        self._stored = stored
        self._waiting: deque[SequenceState] = deque()
        self._running: list[SequenceState] = []  # in the order of their admission
        # What admitted ones wait for: what another computes, or what is read from the disk.
        self._waits: dict[SequenceState, Lead | Load] = {}
        self._ahead: Ahead | None = None  # set while all who can run decode, and the engine runs ahead
        self._run_failed = False  # the next step is a plain one, which finds out whose fault it was
        self._only_reads = False
        self._pace = Pace()
        self._costs = StepCosts()
        self._n_steps = self._n_prompt_tokens = self._n_cached_tokens = self._n_generated_tokens = 0
        self._n_drafted_tokens = self._n_accepted_tokens = 0

    @property
    def is_idle(self) -> bool:
        """Whether a step would do nothing until something is submitted, cancelled, or read from the disk."""
        return self._only_reads or (not self._running and not self._waiting)

    def facts(self) -> LoopFacts:
        """How things stand; for the loop's own thread, who may hand it to others."""
        pool = self._engine.kv_pool
        return LoopFacts(
            n_running=len(self._running),
            n_waiting=len(self._waiting),
            n_kv_blocks=pool.n_blocks,
            n_free_kv_blocks=pool.n_free,
            n_reserved_kv_blocks=self._n_reserved(pool),
            n_kept_prefixes=len(self._cache),
            n_steps=self._n_steps,
            n_prompt_tokens=self._n_prompt_tokens,
            n_cached_tokens=self._n_cached_tokens,
            n_generated_tokens=self._n_generated_tokens,
            n_drafted_tokens=self._n_drafted_tokens,
            n_accepted_tokens=self._n_accepted_tokens,
        )

    def add(self, sequence: SequenceState) -> None:
        """Take a sequence that waits for its place."""
        self._waiting.append(sequence)

    def step(self) -> None:
        """One step of everybody who can run; whoever ends gets his terminal event."""
        if self._ahead is not None:
            self._step_ahead(self._ahead)
            return
        for sequence in [*self._running, *self._waiting]:
            if sequence.stream.cancel_wanted:
                self._finish(sequence, "cancelled")
            elif sequence.n_pending == 0:  # nothing is asked of the engine
                self._finish(sequence, "length")
        self._admit()
        self._open_sessions()
        chunks = self._plan()
        self._only_reads = not chunks and bool(self._waits)
        if chunks:
            self._n_steps += 1
            self._ahead = self._begin_ahead(chunks)
            if self._ahead is None:
                self._run_failed = False
                begin_s = self._clock()
                self._advance(chunks)
                self._pace.add(width(chunks), self._clock() - begin_s)

    def cancel_all(self) -> None:
        """End every sequence as "cancelled" and close all sessions."""
        for sequence in [*self._running, *self._waiting]:
            self._finish(sequence, "cancelled")
        self._cache.clear()

    def fail_all(self, error: BaseException) -> None:
        """End every sequence with the error; the engine may be beyond use and is left alone."""
        for sequence in [*self._running, *self._waiting]:
            sequence.fail(_as_ours(error))

    def _begin_ahead(self, chunks: list[Chunk]) -> Ahead | None:
        """A run in which the engine need not wait for us, if this step could be its first one."""
        sequences = [chunk.sequence for chunk in chunks]
        if (
            self._run_failed
            or self._waits
            or len(sequences) < len(self._running)
            or any(chunk.draft for chunk in chunks)
        ):
            return None
        self._make_room(len(sequences))
        try:
            return Ahead.begin(self._engine, sequences)
        except Exception:  # whatever it is, `_advance` meets it and finds whose it is
            return None

    def _step_ahead(self, ahead: Ahead) -> None:
        """The run's next step, or its end: where somebody ends, comes or is cancelled, or the engine fails."""
        self._n_steps += 1
        goes_on = ahead.can_go_on and not self._n_admittable()
        if any(sequence.stream.cancel_wanted for sequence in [*self._running, *self._waiting]):
            goes_on = False
        try:
            if goes_on:
                self._make_room(ahead.n_sequences)
            taken = ahead.advance() if goes_on else ahead.end()
        except Exception:  # the steps that are forgotten are run once more, and fail whom they must
            self._run_failed, goes_on, taken = True, False, []
        self._take_ahead(taken)
        if not goes_on or not taken:
            ahead.forget()
            self._ahead = None

    def _take_ahead(self, taken: Taken) -> None:
        for sequence, sample in taken:
            self._take(sequence, [sample])

    def _admit(self) -> None:
        """Begin with those of the waiting that have a place and all the blocks they can need."""
        for sequence in [self._waiting.popleft() for _ in range(self._n_admittable())]:
            self._running.append(sequence)
            sequence.admitted_s = self._clock()

    def _n_admittable(self) -> int:
        pool = self._engine.kv_pool
        needs = [pool.blocks_for(sequence.max_positions) for sequence in self._waiting]
        n_left = pool.n_blocks - self._n_reserved(pool)
        return n_admitted(needs, n_left, self._max_running - len(self._running))

    def _n_reserved(self, pool: KvPool) -> int:
        """Blocks that the running ones can come to need."""
        return sum(pool.blocks_for(sequence.max_positions) for sequence in self._running)

    def _open_sessions(self) -> None:
        """Give a session to each that has none and need not wait for what an older one computes right now."""
        for sequence in [s for s in self._running if s.session is None or s in self._waits]:
            wait = self._waits.get(sequence)
            if wait is None or wait.is_ready:
                try:
                    self._open_session(sequence)
                except Exception as error:
                    self._fail(sequence, error)

    def _open_session(self, sequence: SequenceState) -> None:
        wait = self._waits.pop(sequence, None)
        if self._stored is not None and wait is not None and not isinstance(wait, Lead):
            self._stored.end_load(sequence, wait, self._make_room)
        else:
            wait = self._begin_session(sequence)
            if wait is not None:
                self._waits[sequence] = wait
                return
        sequence.n_cached = sequence.n_run
        self._n_cached_tokens += sequence.n_cached

    def _begin_session(self, sequence: SequenceState) -> Lead | Load | None:
        """A session with all that is known of the prompt, or what is worth waiting for first."""
        if not sequence.scores_prompt:  # a score needs the logits of every position
            older = self._running[: self._running.index(sequence)]
            lead = open_or_wait(sequence, older, self._cache, self._engine.spec)
            if lead is not None:
                return lead
        sequence.session = sequence.session or self._engine.new_session(sequence.context)
        return None if self._stored is None else self._stored.begin_load(sequence)

    def _plan(self) -> list[Chunk]:
        """Who runs how many tokens now."""
        able = [sequence for sequence in self._running if sequence not in self._waits]
        pending = [sequence.n_pending for sequence in able]
        budget = step_budget(self._tokens_per_step, pending.count(1), self._pace.s_per_token)
        lengths = chunk_lengths(pending, budget)
        scored = [s.scores_prompt and s.n_run < s.n_prompt for s in able]
        lengths = within_rows(lengths, scored, max(1, SCORED_BYTES // (4 * self._engine.spec.vocab_size)))
        chunks = [Chunk(sequence, n) for sequence, n in zip(able, lengths, strict=True) if n]
        return self._with_drafts(chunks) if all_decode(chunks) else chunks

    def _with_drafts(self, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks of a step in which everybody decodes, with as much of his guess as pays."""
        max_rows = min(MAX_ROWS, self._tokens_per_step)
        if len(chunks) >= max_rows:
            return chunks
        drafters = [chunk.sequence.drafter for chunk in chunks]
        chances = [[] if drafter is None else drafter.look() for drafter in drafters]
        if not any(chances):
            return chunks
        limits = [chunk.sequence.max_draft for chunk in chunks]
        lengths = draft_lengths(chances, limits, self._costs, max_rows)
        return [
            Chunk(chunk.sequence, chunk.n_tokens, drafter.guess(n)) if n and drafter is not None else chunk
            for chunk, drafter, n in zip(chunks, drafters, lengths, strict=True)
        ]

    def _advance(self, chunks: list[Chunk]) -> None:
        """Forward and sample; what makes the batch fail fails alone, the others go on."""
        self._make_room(self._n_begun(chunks))
        n_rows = [chunk.sequence.n_rows(chunk.n_tokens) for chunk in chunks]
        n_prompt = sum(min(c.n_tokens, max(0, c.sequence.n_prompt - c.sequence.n_run)) for c in chunks)
        begin_s = self._clock()
        try:
            self._engine.forward([chunk.sequence.step(chunk.n_tokens, chunk.draft) for chunk in chunks])
        except Exception as error:
            if len(chunks) == 1:
                self._fail(chunks[0].sequence, error)
            else:
                for chunk in chunks:
                    self._advance([chunk])
            return
        self._n_prompt_tokens += n_prompt
        if all_decode(chunks):
            self._costs.add(width(chunks), self._clock() - begin_s)
        drafted = [chunk for chunk in chunks if chunk.draft]
        for chunk in drafted:
            chunk.sequence.n_drafted += len(chunk.draft)
            self._n_drafted_tokens += len(chunk.draft)
        self._sample(chunks, n_rows)
        for chunk in drafted:
            chunk.sequence.forget_unknown()

    def _n_begun(self, chunks: list[Chunk]) -> int:
        """The most blocks that the chunks take; a block begun counts as new, because a fork copies the one it shares."""
        block_size = self._engine.kv_pool.block_size
        return sum(
            -(-(c.sequence.n_run + c.width) // block_size) - c.sequence.n_run // block_size for c in chunks
        )

    def _make_room(self, n_blocks: int) -> None:
        """Evict kept prefixes until so many blocks are free; admission made sure that this suffices."""
        while self._engine.kv_pool.n_free < n_blocks and self._cache.evict_one():
            pass

    def _sample(self, chunks: list[Chunk], n_rows: list[int]) -> None:
        """Choose or score tokens from each sequence's rows of logits, and go on where a draft came true."""
        rows, first_row = [], 0
        for chunk, n in zip(chunks, n_rows, strict=True):
            if n:
                rows.append(Rows(chunk.sequence, first_row, n, chunk.draft))
            first_row += n + len(chunk.draft)
        while rows:
            self._choose(self._drawn(rows))
            true = [one for one in rows if one.came_true]
            rows = [Rows(one.sequence, one.first + 1, 1, one.draft[1:]) for one in true]
            for one in rows:
                one.sequence.n_accepted += 1
            self._n_accepted_tokens += len(rows)

    def _drawn(self, rows: list[Rows]) -> list[Drawn]:
        drawn = []
        for one in rows:
            try:
                drawn.append(Drawn(one.sequence, one.sequence.draws(one.first, one.n)))
            except Exception as error:  # a constraint's
                self._fail(one.sequence, error)
        return drawn

    def _choose(self, drawn: list[Drawn]) -> None:
        if not drawn:
            return
        try:
            samples = self._engine.sample([draw for one in drawn for draw in one.draws])
        except Exception as error:
            if len(drawn) == 1:
                self._fail(drawn[0].sequence, error)
            else:
                for one in drawn:
                    self._choose([one])
            return
        for one in drawn:
            self._take(one.sequence, samples[: len(one.draws)])
            del samples[: len(one.draws)]

    def _take(self, sequence: SequenceState, samples: list[Sample]) -> None:
        if sequence.n_generated == 0 and sequence.n_run >= sequence.n_prompt:
            self._keep_prompt(sequence)
        n_before = sequence.n_generated
        try:
            reason = sequence.take(samples, self._clock())
        except Exception as error:
            self._fail(sequence, error)
            return
        finally:
            self._n_generated_tokens += sequence.n_generated - n_before
        if reason is not None:
            self._finish(sequence, reason)

    def _keep_prompt(self, sequence: SequenceState) -> None:
        """Offer a finished prompt to others while its own sequence goes on.

        Only whole blocks, which this sequence never writes again: so no copy is made.
        """
        n = sequence.n_prompt - sequence.n_prompt % self._engine.kv_pool.block_size
        if n > 0 and sequence.session is not None:
            self._cache.put(sequence.token_ids[:n], sequence.session.fork(n), sequence.salt)
            if self._stored is not None:
                self._stored.save(sequence)

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
        self._waits.pop(sequence, None)
        sequence.forget_unknown()
        session, n_run = sequence.session, sequence.n_run
        sequence.session, sequence.has_ended = None, True
        if session is not None and keep and n_run > 0:
            self._cache.put(sequence.token_ids[:n_run], session, sequence.salt)
        elif session is not None:
            session.close()
        self._on_left()


def _as_ours(error: BaseException) -> InfluenceError:
    """The error itself, or a foreign one wrapped, its traceback kept as the cause."""
    if isinstance(error, InfluenceError):
        return error
    ours = EngineError(f"the engine failed: {error!r}", hint="this is a defect: please report it")
    ours.__cause__ = error
    return ours
