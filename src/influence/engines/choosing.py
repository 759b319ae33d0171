"""A token chosen from a row of logits: pure functions in numpy.

This is the definition; an engine that chooses elsewhere (in its core, on a GPU)
must choose the same token. The order is that of transformers' generate:

    logit bias and mask -> penalties -> temperature -> top-k -> top-p -> min-p -> draw
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from influence.engines.sampling import Draw, Sample, SamplingParams, uniform
from influence.errors import InvalidParameter, NumericError

Row = npt.NDArray[np.float32]  # (vocab_size,) logits, or (n,) of candidates
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


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

    Holtzman et al., arXiv 1904.09751. Keeps at least one. Sorts only those that
    can be kept: all below an even share of what p leaves out are not needed, even
    together.
    """
    total = float(weights.sum(dtype=np.float64))
    share_left_out = np.float32(0.99 * (1.0 - p) * total / weights.size)
    descending = np.sort(weights[weights >= share_left_out])[::-1]
    n_kept = 1 + int(cumulative_sum(descending).searchsorted(p * total))
    cut = descending[min(n_kept, descending.size) - 1]
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
