"""How a token is chosen from a row of logits: parameters and pure functions.

This is the definition; an engine that samples elsewhere (on a GPU) must choose
the same token. The order is that of transformers' generate:

    logit bias and mask -> penalties -> temperature -> top-k -> top-p -> min-p -> draw

The draw is a function of (seed, position) and the final distribution alone:
a counter-based generator, so batching, streaming and threads change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from influence.errors import InvalidParameter, NumericError

Row = npt.NDArray[np.float32]  # (vocab_size,) logits, or (n,) of candidates
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Below this a draw is greedy. Float32 logits of size 8 or more lie at least 9.5e-7 apart,
# 95 temperatures: the runner-up's chance is e^-95, so that only exact ties are left to decide.
GREEDY_BELOW = 1e-8
MAX_TEMPERATURE = 100.0
MAX_LOGIT_BIAS = 100.0
MAX_LOGIT_BIASES = 1024  # entries; OpenAI's clients send at most 300

_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, splitmix64's increment


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """What the user asked of sampling; immutable.

    Raises InvalidParameter for a value of another type or outside its range.
    """

    temperature: float = 0.7  # [0, 100]; 0 (and below 1e-8): greedy, the lowest id wins a tie
    top_k: int = 0  # >= 0; keep the k likeliest, and equals of the k-th; 0: all
    top_p: float = 1.0  # [0, 1]; keep the smallest set with at least this probability, never none
    min_p: float = 0.0  # [0, 1]; keep tokens at least this likely relative to the likeliest
    repeat_penalty: float = 1.0  # [0.01, 100]; divides positive, multiplies negative logits of seen tokens
    presence_penalty: float = 0.0  # [-100, 100]; subtracted once from tokens generated already
    frequency_penalty: float = 0.0  # [-100, 100]; subtracted for each time a token was generated
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # id >= 0 -> [-100, 100], <= 1024 entries
    seed: int = 0  # any integer; its low 64 bits count

    def __post_init__(self) -> None:
        _require_number("temperature", self.temperature, 0.0, MAX_TEMPERATURE)
        _require_number("top_p", self.top_p, 0.0, 1.0)
        _require_number("min_p", self.min_p, 0.0, 1.0)
        _require_number("repeat_penalty", self.repeat_penalty, 0.01, 100.0)
        _require_number("presence_penalty", self.presence_penalty, -100.0, 100.0)
        _require_number("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
        if not _is_int(self.top_k) or self.top_k < 0:
            raise InvalidParameter("top_k", self.top_k, "a whole number of at least 0 (0 keeps all tokens)")
        if not _is_int(self.seed):
            raise InvalidParameter("seed", self.seed, "a whole number")
        object.__setattr__(self, "seed", self.seed & _MASK_64)
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def counts_tokens(self) -> bool:
        """Whether the choice depends on the tokens so far, so that a Draw must carry them."""
        return (self.repeat_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Draw:
    """One token to choose (or to score): from row `row` of the last forward, for `position`."""

    row: int
    position: int  # of the token to be chosen; the counter of the random generator
    params: SamplingParams
    prompt_ids: npt.NDArray[np.int64] | None = None  # distinct ids of the prompt, for repeat_penalty
    generated_ids: npt.NDArray[np.int64] | None = None  # distinct ids generated so far
    generated_counts: npt.NDArray[np.int64] | None = None  # how often each was
    allowed: npt.NDArray[np.bool_] | None = None  # (vocab_size,) False bans a token; None: all allowed
    n_logprobs: int = 0  # how many likeliest alternatives to report; -1: no logprobs at all
    known_id: int | None = None  # the token is this one, as of a prompt; only its logprobs are wanted


@dataclass(frozen=True, slots=True)
class Sample:
    """A chosen token."""

    token_id: int
    logprob: float | None  # natural log, of the model's own distribution (before any of the above)
    top_logprobs: tuple[tuple[int, float], ...] = ()  # likeliest first; of equals the lower id first


def sample_row(logits: Row, draw: Draw) -> Sample:
    """The token that `draw` chooses from one row of logits, (vocab_size,).

    Raises NumericError if the row holds NaN, +inf, or nothing but -inf;
    InvalidParameter if the mask allows no token that the model can give.
    """
    require_finite_peak(float(logits[logits.argmax()]), draw.position)
    # Below the peak an overflow to -inf is right, the weight is 0; above it is looked for.
    with np.errstate(over="ignore"):
        token_id = choose(adjusted(logits, draw), draw) if draw.known_id is None else draw.known_id
        return with_logprobs(token_id, logits, draw.n_logprobs)


def with_logprobs(token_id: int, logits: Row, n_top: int) -> Sample:
    """The chosen token with its log probability and those of the `n_top` likeliest; -1: without."""
    if n_top < 0:
        return Sample(token_id, None)
    log_total = log_sum_exp(logits)
    top = largest(logits, n_top)
    return Sample(
        token_id,
        float(logits[token_id]) - log_total,
        tuple((int(i), float(logits[i]) - log_total) for i in top),
    )


def require_finite_peak(peak: float, position: int) -> None:
    """Raise NumericError unless the largest logit is a finite number (NaN counts as largest)."""
    if math.isfinite(peak):
        return
    what = {math.inf: "an infinite logit", -math.inf: "no finite logit"}.get(peak, "NaN")
    raise NumericError(what, position)


def adjusted(logits: Row, draw: Draw) -> Row:
    """The row after bias, mask and penalties; the row itself where there are none."""
    params = draw.params
    if not params.logit_bias and draw.allowed is None and not params.counts_tokens:
        return logits
    row = logits.copy()
    add_bias(row, params.logit_bias)
    if params.counts_tokens:
        penalize(row, draw)
    if draw.allowed is not None:
        row[~draw.allowed] = -np.inf
    require_choice(float(row.max()), draw.position)
    return row


def require_choice(peak: float, position: int) -> None:
    """Raise unless a token is left: InvalidParameter where all are banned, NumericError as `require_finite_peak`."""
    if peak == -math.inf:
        raise InvalidParameter("allowed", "a ban of every token", "a mask that leaves a token to choose")
    require_finite_peak(peak, position)


def add_bias(row: Row, bias: Mapping[int, float]) -> None:
    """row[id] += value, in place."""
    if bias:
        row[np.fromiter(bias.keys(), np.int64, len(bias))] += np.fromiter(
            bias.values(), np.float32, len(bias)
        )


def penalize(row: Row, draw: Draw) -> None:
    """Apply the penalties of `draw.params` in place.

    repeat: Keskar et al., arXiv 1909.05858, over prompt and completion;
    presence and frequency: as OpenAI defines them, over the completion alone.
    """
    params, generated, counts = draw.params, draw.generated_ids, draw.generated_counts
    if params.repeat_penalty != 1.0:
        parts = [ids for ids in (draw.prompt_ids, generated) if ids is not None]
        seen = np.concatenate(parts) if parts else np.empty(0, np.int64)
        values = row[seen]  # read before any is written: an id in both parts is penalized once
        row[seen] = np.where(values > 0, values / params.repeat_penalty, values * params.repeat_penalty)
    if generated is not None and counts is not None:
        penalty = params.frequency_penalty * counts + params.presence_penalty * (counts > 0)
        row[generated] -= penalty.astype(np.float32)


def choose(row: Row, draw: Draw) -> int:
    """Temperature, top-k, top-p, min-p, and the draw; `row` has a finite largest value."""
    params = draw.params
    if params.is_greedy:
        return int(row.argmax())
    weights = softmax_weights(row, params.temperature)
    filters = candidate_filters(params)
    if not filters:
        return draw_index(weights, params.seed, draw.position)
    ids = np.flatnonzero(filters[0](weights))
    for keep in filters[1:]:
        ids = ids[np.flatnonzero(keep(weights[ids]))]
    return int(ids[draw_index(weights[ids], params.seed, draw.position)])


def softmax_weights(row: Row, temperature: float) -> Row:
    """exp((row - max) / temperature): the likeliest weighs 1, so that nothing overflows.

    Every later step works in this one array: fresh large arrays cost more than the arithmetic.
    """
    weights: Row = row - row.max()
    weights /= np.float32(temperature)
    return np.exp(weights, out=weights)


def candidate_filters(params: SamplingParams) -> list[Callable[[Row], Mask]]:
    """The filters that are on, in order; each sees the weights that the one before it kept."""
    filters: list[Callable[[Row], Mask]] = []
    if params.top_k:
        filters.append(lambda weights: keep_top_k(weights, params.top_k))
    if params.top_p < 1.0:
        filters.append(lambda weights: keep_top_p(weights, params.top_p))
    if params.min_p > 0.0:
        filters.append(lambda weights: keep_min_p(weights, params.min_p))
    return filters


def keep_top_k(weights: Row, k: int) -> Mask:
    """Which are among the k largest; all that equal the k-th stay, as in transformers."""
    if k >= weights.size:
        return np.ones(weights.size, np.bool_)
    kept: Mask = weights >= np.partition(weights, -k)[-k]
    return kept


def keep_top_p(weights: Row, p: float) -> Mask:
    """The smallest set of largest weights whose sum reaches p of the whole; of equals the lower index.

    Holtzman et al., arXiv 1904.09751. Keeps at least one.
    """
    descending = np.sort(weights)[::-1]
    reached = cumulative_sum(descending)
    n_kept = 1 + int(reached.searchsorted(p * reached[-1]))
    cut = descending[n_kept - 1]
    kept: Mask = weights > cut
    ties = np.flatnonzero(weights == cut)
    kept[ties[: n_kept - np.count_nonzero(kept)]] = True
    return kept


def keep_min_p(weights: Row, p: float) -> Mask:
    """Which weigh at least p times the largest (Nguyen et al., arXiv 2407.01082)."""
    kept: Mask = weights >= np.float32(p) * weights.max()
    return kept


def draw_index(weights: Row, seed: int, position: int) -> int:
    """Inverse of the cumulative distribution, in index order, at uniform(seed, position).

    Sums are float64. The first index whose cumulative weight exceeds the target
    has a weight above zero, and one exists, because uniform < 1.
    """
    cumulative = cumulative_sum(weights)
    return int(cumulative.searchsorted(uniform(seed, position) * cumulative[-1], side="right"))


def cumulative_sum(weights: Row) -> npt.NDArray[np.float64]:
    """Running sums in float64, from the first on."""
    sums = weights.astype(np.float64)  # numpy's own cast inside cumsum takes twice the time
    return np.cumsum(sums, out=sums)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a function of (seed, position): 53 bits of a 64-bit hash.

    mix64(mix64(seed) + (position + 1) * golden), all modulo 2^64; for seed 0
    this is the sequence of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
    """
    return (_mix64(mixed_seed(seed) + (position + 1) * _GOLDEN) >> 11) * 2.0**-53


def mixed_seed(seed: int) -> int:
    """The part of `uniform` that is the same for all positions, 64 bits."""
    return _mix64(seed)


def _mix64(x: int) -> int:
    """splitmix64's finalizer, a bijection of 64-bit integers (Stafford's variant 13)."""
    x &= _MASK_64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return x ^ (x >> 31)


def log_sum_exp(logits: Row) -> float:
    """log(sum(exp(logits))): float32 exponentials, summed in float64."""
    peak = logits.max()
    return float(peak) + math.log(float(np.exp(logits - peak).sum(dtype=np.float64)))


def largest(values: Row, n: int) -> Ids:
    """The indices of the n largest values, largest first; of equals the lower index first."""
    n = min(n, values.size)
    if n == 0:
        return np.empty(0, np.int64)
    indices = np.flatnonzero(values >= np.partition(values, -n)[-n])
    order: Ids = indices[np.argsort(-values[indices], kind="stable")]
    return order[:n]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_number(name: str, value: object, low: float, high: float) -> None:
    # A NaN fails both comparisons, so that it is refused too.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise InvalidParameter(name, value, f"a number from {low:g} to {high:g}")


def _checked_bias(bias: Mapping[int, float]) -> dict[int, float]:
    """A copy of the mapping that the caller can't change any more."""
    if len(bias) > MAX_LOGIT_BIASES:
        raise InvalidParameter("logit_bias", f"{len(bias)} entries", f"at most {MAX_LOGIT_BIASES} entries")
    for token_id, value in bias.items():
        if not _is_int(token_id) or token_id < 0:
            raise InvalidParameter("logit_bias", token_id, "keyed by token ids")
        _require_number(f"logit_bias[{token_id}]", value, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
    return dict(bias)
