"""One request on its way through the generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from influence.engines.base import Session, Step
from influence.engines.sampling import Draw, Sample
from influence.errors import InfluenceError
from influence.generation.constraint import Constraint
from influence.generation.drafting import MAX_DRAFT, Drafter
from influence.generation.events import Finished, FinishReason, PromptScored, Statistics, Stream, TextDelta
from influence.generation.params import GenerationParams
from influence.generation.stop import CompletionText
from influence.generation.token_ids import Ids, ids_of

if TYPE_CHECKING:
    from influence.generation.token_counts import TokenCounts


@dataclass(slots=True, eq=False)
class SequenceState:
    """A request's tokens, session and clock; only the generator's thread changes it.

    It knows how its tokens become events, and nothing of other sequences.
    """

    token_ids: list[int]  # the prompt, then what was sampled
    n_prompt: int
    params: GenerationParams
    max_new_tokens: int  # max_tokens, or fewer where the context ends first
    context: int  # of its session
    eos_ids: frozenset[int]  # tokens that end it
    text: CompletionText
    stream: Stream  # where its events go
    submitted_s: float
    constraint: Constraint | None = None
    salt: str = ""  # only prefixes of the same salt are shared
    drafter: Drafter | None = None  # guesses its next tokens; None: nobody does
    prompt: Ids = field(init=False)  # its token ids once more, to compare with others'

    # Set by the loop: at admission, when it first runs, and at the end.
    session: Session | None = None
    has_ended: bool = False
    n_cached: int = 0
    admitted_s: float | None = None

    # Set as tokens come.
    n_drafted: int = 0  # guessed tokens that were run
    n_accepted: int = 0  # those of them that were then sampled
    first_token_s: float | None = None
    _counts: TokenCounts | None = None  # only where the choice depends on them
    _unsent: list[Sample] = field(default_factory=list)
    _eos: Sample | None = None
    _scores: list[Sample | None] = field(default_factory=lambda: [None])  # of the prompt's tokens so far
    _scores_sent: bool = False

    def __post_init__(self) -> None:
        self.prompt = ids_of(self.token_ids)
        if self.params.sampling.counts_tokens:
            from influence.generation.token_counts import TokenCounts

            self._counts = TokenCounts(self.prompt)

    @property
    def n_generated(self) -> int:
        return len(self.token_ids) - self.n_prompt

    @property
    def scores_prompt(self) -> bool:
        return self.params.prompt_logprobs >= 0

    @property
    def n_run(self) -> int:
        """Tokens that the session holds."""
        return self.session.position if self.session is not None else 0

    @property
    def n_pending(self) -> int:
        """Tokens to run before the next one can be sampled, or before the end where none is wanted.

        What follows a prompt's last token interests nobody if no token is to be generated.
        """
        if self.max_new_tokens > 0:
            return len(self.token_ids) - self.n_run
        return self.n_prompt - 1 - self.n_run if self.scores_prompt else 0

    @property
    def max_positions(self) -> int:
        """The most that the session will hold; the last token sampled is never run."""
        return self.n_prompt + self.max_new_tokens - 1

    @property
    def max_draft(self) -> int:
        """Guessed tokens that a step can make use of; it samples one more."""
        return min(MAX_DRAFT, self.max_new_tokens - self.n_generated - 1)

    def n_rows(self, n_tokens: int) -> int:
        """Rows of logits that the next `n_tokens` pending tokens must give."""
        if self.scores_prompt and self.n_run < self.n_prompt:
            return n_tokens
        return 1 if n_tokens == self.n_pending else 0

    def step(self, n_tokens: int, draft: Sequence[int] = ()) -> Step:
        """The next `n_tokens` pending tokens, and behind the last of them those of a draft."""
        if self.session is None:
            raise RuntimeError("a sequence runs only after its admission")
        begin = self.n_run
        chunk = self.token_ids[begin : begin + n_tokens]
        return Step(self.session, [*chunk, *draft], n_logits=self.n_rows(n_tokens) + len(draft))

    def draws(self, first_row: int, n_rows: int) -> list[Draw]:
        """What is wanted of `n_rows` that its last step gave: tokens scored, or the next one chosen.

        Of a step with a draft that is one row after the other: the first, and
        the next as long as the token chosen is the draft's.
        """
        begin = min(self.n_run, len(self.token_ids)) - n_rows
        return [self._draw(first_row + i, begin + i + 1) for i in range(n_rows)]

    def _draw(self, row: int, position: int) -> Draw:
        sampling = self.params.sampling
        if position < len(self.token_ids):
            known_id, n_logprobs = self.token_ids[position], self.params.prompt_logprobs
            return Draw(row, position, sampling, n_logprobs=n_logprobs, known_id=known_id)
        draw = Draw(
            row,
            position,
            sampling,
            allowed=None if self.constraint is None else self.constraint.allowed(),
            n_logprobs=self.params.n_logprobs,
        )
        return draw if self._counts is None else _with_counts(draw, self._counts)

    def next_draw(self, row: int) -> Draw:
        """What is wanted of that row if it follows the last token."""
        return self._draw(row, len(self.token_ids))

    def forget_unknown(self) -> None:
        """Have the session hold what is known alone: all tokens but the last, once one was sampled."""
        if self.session is not None and self.n_generated > 0 and self.n_run >= len(self.token_ids):
            self.session.rewind(len(self.token_ids) - 1)

    def take(self, samples: Sequence[Sample], now_s: float) -> FinishReason | None:
        """Take what came of `draws`, in their order; why the sequence ends, if it does."""
        n_scores = min(len(samples), self.n_prompt - len(self._scores)) if self.scores_prompt else 0
        self._scores += samples[:n_scores]
        self._send_scores()
        if self.max_new_tokens == 0:
            return "length" if self.n_pending == 0 else None
        return self._accept(samples[n_scores], now_s) if len(samples) > n_scores else None

    def _accept(self, sample: Sample, now_s: float) -> FinishReason | None:
        """Take the next token and emit the text it makes certain."""
        if self.first_token_s is None:
            self.first_token_s = now_s
        self.token_ids.append(sample.token_id)
        if self._counts is not None:
            self._counts.add(sample.token_id)
        if sample.token_id in self.eos_ids:
            self._eos = sample
            return "stop"
        if self.constraint is not None:
            self.constraint.accept(sample.token_id)
        self._unsent.append(sample)
        self._send(self.text.push(sample.token_id))
        if self.text.matched is not None or (self.constraint is not None and self.constraint.is_complete):
            return "stop"
        return "length" if self.n_generated == self.max_new_tokens else None

    def finish(self, reason: FinishReason, now_s: float) -> None:
        """Emit what was held back, then the terminal event."""
        self._send_scores()
        self._send(self.text.flush(), last=True)
        if self.text.matched is not None:  # the flush may complete a stop string
            reason = "stop"
        eos = self._eos if self.params.n_logprobs >= 0 else None
        self.stream.put(Finished(reason, self._statistics(now_s), self.text.matched, eos))

    def fail(self, error: InfluenceError) -> None:
        """Emit the error as the terminal event."""
        self.stream.put(error)

    def _send_scores(self) -> None:
        if self.scores_prompt and not self._scores_sent and len(self._scores) == self.n_prompt:
            self._scores_sent = True
            self.stream.put(PromptScored(tuple(self._scores)))

    def _send(self, text: str, *, last: bool = False) -> None:
        """Emit a piece if there is text, or tokens that no later piece will carry."""
        if not text and not (last and self._unsent):
            return
        logprobs = tuple(self._unsent) if self.params.n_logprobs >= 0 else ()
        self.stream.put(TextDelta(text, tuple(sample.token_id for sample in self._unsent), logprobs))
        self._unsent.clear()

    def _statistics(self, now_s: float) -> Statistics:
        admitted_s = now_s if self.admitted_s is None else self.admitted_s
        first_s = now_s if self.first_token_s is None else self.first_token_s
        return Statistics(
            prompt_tokens=self.n_prompt,
            cached_tokens=self.n_cached,
            completion_tokens=self.n_generated,
            queue_s=admitted_s - self.submitted_s,
            prefill_s=first_s - admitted_s,
            decode_s=now_s - first_s,
            first_token_s=None if self.first_token_s is None else first_s - self.submitted_s,
            drafted_tokens=self.n_drafted,
            accepted_tokens=self.n_accepted,
        )


def _with_counts(draw: Draw, counts: TokenCounts) -> Draw:
    return replace(
        draw, prompt_ids=counts.prompt_ids, generated_ids=counts.ids, generated_counts=counts.counts
    )
