"""Tokens that a sequence may say next, guessed from what followed the same words before: no engine, no clock.

    … and [the cat sat on] the mat . Then he said that [the cat sat on]
                           ~~~~~~~~~ followed the same words before, and may follow them again

A guess costs a lookup. The engine runs it behind the sequence's last token in
one step, the sampler draws position by position as it always does, and what
was run beyond the first difference is forgotten (`loop.py`). So a guess
changes no token; it can only save steps. How many of its tokens are run
depends on how often such guesses came true, and on what wider steps cost here.

Every guess is compared with what was sampled, whether it was run or not, so
that a sequence learns for nothing when guessing pays. The idea: Saxena,
"Prompt Lookup Decoding", 2023; that the text stays exact: Leviathan, Kalman
and Matias, arXiv 2211.17192.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

DraftMode = Literal["ngram", "none"]

NGRAM = 3  # tokens that must be the same: chance makes two the same all the time
MAX_MATCH = 32  # beyond this, longer says nothing more
MAX_CANDIDATES = 8  # earlier occurrences that are compared, latest first; bounds a lookup
MAX_DRAFT = 15  # with the token before them, 16 rows: what the kernels' tiles take in one or two
MAX_ROWS = 32  # of a step with drafts: wider ones are bound by arithmetic, where drafts save nothing

# A step without drafts must be beaten by this much: less is noise of the estimates, and where
# a text repeats itself much more is to be had.
_WORTHWHILE = 1.15
# Before anything was seen, a match of n tokens goes on with the chance n / (n + this). Rather
# too low: that a guess would have been right is seen without running it.
_DOUBT = 12
_PRIOR_WEIGHT = 2.0  # guesses that this counts for
_MEMORY = 32  # guesses after which what was seen of the earlier ones counts half
# What a further row costs of a step until it was measured: as much as in a tiny model, whose weights
# stay in the cache. Where they don't it is a sixteenth, which the first good guess brings to light.
_ROW_COST = 1 / 4
# A width that was not run for so many steps is estimated anew: the machine may have had a bad moment.
_FORGOTTEN_AFTER = 500
_OUTLIER = 4.0  # times the expected time: the machine was away, more tells nothing


@dataclass(frozen=True, slots=True)
class Match:
    """Where the last tokens of a sequence stood before."""

    begin: int  # the place of what followed them
    n_tokens: int  # how many are the same, at most MAX_MATCH


class NgramIndex:
    """The places of all n-grams of a list of tokens that grows; a token costs the same wherever it comes."""

    def __init__(self, token_ids: list[int]) -> None:
        """A view of the list: whoever owns it only appends."""
        self._token_ids = token_ids
        self._latest: dict[tuple[int, ...], int] = {}  # an n-gram -> the place after its last occurrence
        self._before = [-1] * NGRAM  # by such a place: that of the occurrence before; -1: none

    def find(self) -> Match | None:
        """The longest of the latest earlier occurrences of the list's end; of equals the latest."""
        self._catch_up()
        token_ids = self._token_ids
        place, longest = self._latest.get(tuple(token_ids[-NGRAM:]), -1), None
        for _ in range(MAX_CANDIDATES):
            if place < 0:
                break
            n_tokens = _common_end(token_ids, place)
            if longest is None or n_tokens > longest.n_tokens:
                longest = Match(place, n_tokens)
            if n_tokens == MAX_MATCH:
                break
            place = self._before[place]
        return longest

    def _catch_up(self) -> None:
        """Enter the n-grams that something follows."""
        token_ids, latest, before = self._token_ids, self._latest, self._before
        for place in range(len(before), len(token_ids)):
            ngram = tuple(token_ids[place - NGRAM : place])
            before.append(latest.get(ngram, -1))
            latest[ngram] = place


def _common_end(token_ids: Sequence[int], place: int) -> int:
    """How many tokens before `place` equal the last ones; NGRAM of them do."""
    n, most = NGRAM, min(place, MAX_MATCH)
    while n < most and token_ids[place - 1 - n] == token_ids[-1 - n]:
        n += 1
    return n


def continuation(token_ids: Sequence[int], begin: int, n: int) -> list[int]:
    """What followed from `begin` on: `n` tokens; behind the last one, as if they repeated."""
    period = len(token_ids) - begin
    return [token_ids[begin + i % period] for i in range(n)]


class _Rate:
    """How often guesses of one kind come true; the latest count most."""

    def __init__(self, prior: float) -> None:
        self._right, self._total = prior * _PRIOR_WEIGHT, _PRIOR_WEIGHT

    @property
    def chance(self) -> float:
        return self._right / self._total

    def add(self, n_right: int, n_wrong: int) -> None:
        if self._total > _MEMORY:
            self._right, self._total = self._right / 2, self._total / 2
        self._right += n_right
        self._total += n_right + n_wrong


class Drafter:
    """One sequence's guesses, and how good they were."""

    def __init__(self, token_ids: list[int]) -> None:
        """`token_ids`: the sequence's own list, which it appends to."""
        self._token_ids = token_ids
        self._index = NgramIndex(token_ids)
        self._rates: dict[int, _Rate] = {}  # by the match's length, in powers of two
        self._match: Match | None = None
        self._guess: list[int] = []  # what would follow the first `_n_known` tokens
        self._n_known = 0

    def look(self) -> float:
        """Guess anew at what follows the tokens so far; the chance that the next of it is right, 0 without a guess."""
        self._learn()
        self._match, self._n_known = self._index.find(), len(self._token_ids)
        if self._match is None:
            return 0.0
        self._guess = continuation(self._token_ids, self._match.begin, MAX_DRAFT + 1)
        return self._rate(self._match).chance

    def guess(self, n: int) -> list[int]:
        """The first `n` tokens, at most MAX_DRAFT, of what `look` found."""
        return self._guess[:n]

    def _learn(self) -> None:
        """Compare the last guess with what came."""
        came = self._token_ids[self._n_known :]
        if self._match is None or not came:
            return
        n_right = n_equal(came, self._guess)
        self._rate(self._match).add(n_right, 1 if n_right < min(len(came), len(self._guess)) else 0)

    def _rate(self, match: Match) -> _Rate:
        kind = match.n_tokens.bit_length()
        if kind not in self._rates:
            self._rates[kind] = _Rate(match.n_tokens / (match.n_tokens + _DOUBT))
        return self._rates[kind]


def n_equal(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens are the same."""
    for i, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return i
    return min(len(a), len(b))


class StepCosts:
    """What steps of few tokens cost relative to each other, learnt from those that ran.

    A step's time is a common scale times its width's own cost. The scale
    follows the load and the depth of the sequences from step to step; a
    width's cost is seen where the width changes, since there the scale is the
    one before.
    """

    def __init__(self) -> None:
        self._costs: dict[int, float] = {}  # by width
        self._last_run: dict[int, int] = {}  # by width: the step that had it last
        self._scale_s = 0.0
        self._width = 0  # of the step before
        self._n_steps = 0

    def add(self, width: int, took_s: float) -> None:
        """A step of `width` tokens took so long."""
        if width > MAX_ROWS or took_s <= 0:
            return
        self._n_steps += 1
        expected_s = self._scale_s * self.cost(width)
        took_s = min(took_s, _OUTLIER * expected_s) if self._scale_s else took_s
        if self._scale_s == 0 or width == self._width:
            self._follow_scale(took_s / self.cost(width))
        else:
            self._follow_width(width, took_s / self._scale_s)
        self._costs.setdefault(width, self.cost(width))
        self._last_run[width], self._width = self._n_steps, width

    def cost(self, width: int) -> float:
        """A step of `width` tokens in the unit of all others."""
        if self._n_steps - self._last_run.get(width, -_FORGOTTEN_AFTER) < _FORGOTTEN_AFTER:
            return self._costs[width]
        return self._estimate(width)

    def _estimate(self, width: int) -> float:
        """By the next narrower width that was run, but no more than the next wider; or else from nothing."""
        known = max((w for w in self._costs if w < width), default=0)
        if known == 0:
            return 1 + (width - 1) * _ROW_COST
        wider = min((w for w in self._costs if w > width), default=known)
        cost = self._costs[known] * (1 + (width - known) * _ROW_COST)
        return cost if wider == known else min(cost, self._costs[wider])

    def _follow_scale(self, scale_s: float) -> None:
        self._scale_s = scale_s if self._scale_s == 0 else self._scale_s + (scale_s - self._scale_s) / 4

    def _follow_width(self, width: int, cost: float) -> None:
        before = self._costs.get(width, cost)
        self._costs[width] = before + (cost - before) / 4


def draft_lengths(
    chances: Sequence[float], limits: Sequence[int], costs: StepCosts, max_rows: int = MAX_ROWS
) -> list[int]:
    """How many guessed tokens of each sequence to run, so that a second brings the most tokens.

    `chances`: that a guess goes on for a further token. `limits`: the most
    tokens of it that can be of use. `max_rows`: of the whole step. Widths are
    powers of two, so that few need to be measured.
    """
    n = len(chances)
    useful = sorted(
        ((-(chance**k), i) for i, chance in enumerate(chances) if chance for k in range(1, 1 + limits[i])),
    )[: max(0, max_rows - n)]
    if not useful:
        return [0] * n
    best, n_best = _WORTHWHILE * n / costs.cost(n), 0
    expected = float(n)
    for k, (chance, _) in enumerate(useful, 1):
        expected -= chance
        is_last = k == len(useful)
        if (is_last or (n + k) & (n + k - 1) == 0) and expected / costs.cost(n + k) > best:
            best, n_best = expected / costs.cost(n + k), k
    lengths = [0] * n
    for _, i in useful[:n_best]:
        lengths[i] += 1
    return lengths
