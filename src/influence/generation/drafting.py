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
from typing import Literal, NamedTuple

DraftMode = Literal["ngram", "none"]

NGRAM = 3  # as many equal tokens, or the fewer that there are, are looked up; more are counted
MAX_MATCH = 32  # beyond this, longer says nothing more
MAX_CANDIDATES = 8  # earlier occurrences that are compared, latest first; bounds a lookup
MAX_DRAFT = 15  # with the token before them, 16 rows: what the kernels' tiles take in one or two
MAX_ROWS = 32  # of a step with drafts: wider ones are bound by arithmetic, where drafts save nothing

# A step without drafts must be beaten by this much: less is noise of the estimates, and where
# a text repeats itself much more is to be had.
_WORTHWHILE = 1.15
# How often the token behind 1, 2, 3, 4 to 7, 8 to 15, 16 to 31 and more equal ones came again in stories,
# documents and programs; rather less, because that a guess would have been right is seen without running it.
_PRIORS = (0.1, 0.25, 0.35, 0.45, 0.6, 0.8, 0.9)
_PRIOR_WEIGHT = 2.0  # guesses that this counts for
_LEAST_CHANCE = 1 / 64  # a row costs as much at least
_MEMORY = 32  # guesses after which what was seen of the earlier ones counts half
# What a further row costs of a step until one was measured: as much as in a tiny model, whose weights
# stay in the cache. Where they don't it is a sixteenth and less, which the first good guess brings to light.
_ROW_COST = 1 / 4
# A width that was not run for so many steps is estimated anew: the machine may have had a bad moment.
_FORGOTTEN_AFTER = 500
_DOUBTED_AFTER = 16  # the same of one hardly ever run: twice as many for each time
_OUTLIER = 4.0  # times the expected time: the machine was away, more tells nothing


class Match(NamedTuple):
    """Where the last tokens of a sequence stood before."""

    begin: int  # the place of what followed them
    n_tokens: int  # how many are the same, at most MAX_MATCH


class NgramIndex:
    """The places of all n-grams of a list of tokens that grows; a token costs the same wherever it comes."""

    def __init__(self, token_ids: list[int]) -> None:
        """A view of the list: whoever owns it only appends."""
        self._token_ids = token_ids
        # An n-gram of up to NGRAM tokens -> the place after its last occurrence.
        self._latest: dict[tuple[int, ...], int] = {}
        # By a place: the one after the occurrence before, of the NGRAM tokens that end there; -1: none.
        self._before = [-1]

    def find(self) -> Match | None:
        """The longest of the latest earlier occurrences of the list's end; of equals the latest."""
        self._catch_up()
        for n_tokens in range(NGRAM, 0, -1):
            place = self._latest.get(tuple(self._token_ids[-n_tokens:]))
            if place is not None:
                return self._longest(place) if n_tokens == NGRAM else Match(place, n_tokens)
        return None

    def _longest(self, place: int) -> Match:
        """Of this occurrence and those before it, NGRAM tokens of which are the same."""
        longest = Match(place, 0)
        for _ in range(MAX_CANDIDATES):
            n_tokens = _common_end(self._token_ids, place)
            if n_tokens > longest.n_tokens:
                longest = Match(place, n_tokens)
            place = self._before[place]
            if place < 0 or n_tokens == MAX_MATCH:
                break
        return longest

    def _catch_up(self) -> None:
        """Enter the n-grams that something follows."""
        token_ids, latest, before = self._token_ids, self._latest, self._before
        for place in range(len(before), len(token_ids)):
            begin = max(0, place - NGRAM)
            before.append(latest.get(tuple(token_ids[begin:place]), -1))
            for first in range(begin, place):
                latest[tuple(token_ids[first:place])] = place


def _common_end(token_ids: Sequence[int], place: int) -> int:
    """How many tokens before `place` equal the last ones; NGRAM of them do."""
    n, most = NGRAM, min(place, MAX_MATCH)
    while n < most and token_ids[place - 1 - n] == token_ids[-1 - n]:
        n += 1
    return n


class _Rate:
    """How often guesses of one kind come true; the latest count most."""

    def __init__(self, prior: float) -> None:
        self._right, self._total = prior * _PRIOR_WEIGHT, _PRIOR_WEIGHT
        self.chance = prior

    def add(self, is_right: bool) -> None:
        if self._total > _MEMORY:
            self._right, self._total = self._right / 2, self._total / 2
        self._right += is_right
        self._total += 1
        self.chance = self._right / self._total


def _kind(n_tokens: int) -> int:
    """Of a token behind so many equal ones: one of those that _PRIORS lists."""
    return n_tokens - 1 if n_tokens <= 3 else n_tokens.bit_length()


_KINDS = [_kind(n_tokens) for n_tokens in range(MAX_MATCH + MAX_DRAFT + 1)]


class Drafter:
    """One sequence's guesses, and how good they were.

    A guess whose first token came true has one equal token more before its
    second: so each of its tokens is as likely as the first one behind so long a match.
    """

    def __init__(self, token_ids: list[int]) -> None:
        """`token_ids`: the sequence's own list, which it appends to."""
        self._token_ids = token_ids
        self._index = NgramIndex(token_ids)
        self._rates = [_Rate(prior) for prior in _PRIORS]
        self._match: Match | None = None
        self._n_known = 0  # tokens that the match was found in

    def look(self) -> list[float]:
        """Guess anew at what follows the tokens so far; the chances that its first 1, 2, ... tokens are right.

        Empty without a guess, and at most MAX_DRAFT.
        """
        self._learn()
        self._match, self._n_known = self._index.find(), len(self._token_ids)
        return [] if self._match is None else self._chances(self._match.n_tokens)

    def guess(self, n: int) -> list[int]:
        """The first `n` tokens of what `look` found."""
        return [] if self._match is None else [self._guessed(self._match, i) for i in range(n)]

    def _guessed(self, match: Match, i: int) -> int:
        """What followed the match's other place; behind the last token, as if they repeated."""
        return self._token_ids[match.begin + i % (self._n_known - match.begin)]

    def _chances(self, n_tokens: int) -> list[float]:
        """Of the tokens behind a match, up to those that pay in no step."""
        chances, chance = [], 1.0
        for kind in _KINDS[n_tokens : n_tokens + MAX_DRAFT]:
            chance *= self._rates[kind].chance
            if chance < _LEAST_CHANCE:
                break
            chances.append(chance)
        return chances

    def _learn(self) -> None:
        """Compare the last guess with what came."""
        if self._match is None:
            return
        for i, token_id in enumerate(self._token_ids[self._n_known :]):
            is_right = token_id == self._guessed(self._match, i)
            self._rates[_KINDS[self._match.n_tokens + i]].add(is_right)
            if not is_right:
                break


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
        self._n_runs: dict[int, int] = {}  # by width: how many steps had it
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
        self._n_runs[width] = self._n_runs.get(width, 0) + 1

    def cost(self, width: int) -> float:
        """A step of `width` tokens in the unit of all others."""
        return self._costs[width] if self._is_known(width) else self._estimate(width)

    @property
    def reach(self) -> int:
        """The width up to which estimates are worth a trial: what is next to the widest that was run; 0: none was."""
        return 1 << max(self._costs).bit_length() if self._costs else 0

    def _is_known(self, width: int) -> bool:
        n_runs = self._n_runs.get(width, 0)
        kept_for = min(_FORGOTTEN_AFTER, _DOUBTED_AFTER << min(n_runs, 8))
        return n_runs > 0 and self._n_steps - self._last_run[width] < kept_for

    def _estimate(self, width: int) -> float:
        """By the narrower widths that were run, but no more than the next wider; or else from nothing."""
        narrower = [w for w in self._costs if w < width]
        if not narrower:
            return _untried(width)
        wider = min((w for w in self._costs if w > width), default=0)
        cost = self._extrapolated(min(narrower), max(narrower), width)
        return min(cost, self._costs[wider]) if wider else cost

    def _extrapolated(self, least: int, most: int, width: int) -> float:
        """On the line through two widths that were run; of one, by what a row costs before any was measured."""
        if least == most:
            return self._costs[most] * _untried(width) / _untried(most)
        row_cost = max(0.0, (self._costs[most] - self._costs[least]) / (most - least))
        return self._costs[most] + (width - most) * row_cost

    def _follow_scale(self, scale_s: float) -> None:
        self._scale_s = scale_s if self._scale_s == 0 else self._scale_s + (scale_s - self._scale_s) / 4

    def _follow_width(self, width: int, cost: float) -> None:
        before = self._costs[width] if self._is_known(width) else cost
        self._costs[width] = before + (cost - before) / 4


def _untried(width: int) -> float:
    """What a step of `width` tokens may cost, by one of a single token, before any was run."""
    return 1 + (width - 1) * _ROW_COST


def draft_lengths(
    chances: Sequence[Sequence[float]], limits: Sequence[int], costs: StepCosts, max_rows: int = MAX_ROWS
) -> list[int]:
    """How many guessed tokens of each sequence to run, so that a second brings the most tokens.

    `chances`: that the first 1, 2, ... tokens of a guess are right. `limits`: the most
    tokens of it that can be of use. `max_rows`: of the whole step. Widths are
    powers of two, so that few need to be measured, and none is tried before its half was.
    """
    n = len(chances)
    if sum(map(sum, chances)) <= (_WORTHWHILE - 1) * n:
        return [0] * n  # not even if rows cost nothing
    n_spare = max(0, min(max_rows, costs.reach) - n)
    useful = sorted((-chance, i) for i, own in enumerate(chances) for chance in own[: limits[i]])[:n_spare]
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
