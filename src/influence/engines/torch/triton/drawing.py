"""A token drawn from each row of weights: top-k, top-p, min-p and the draw without sorting the row.

    kept    the k largest and equals of the k-th; of these the fewest whose sum reaches p, equals in the
            order of their index; of these what weighs at least min_p
    index   the first at which the sum of what is kept, in order, exceeds uniform * the whole sum

Shapes: weights (n, vocab_size) float32, not negative, the largest of a row 1.

What each filter keeps is all above a threshold, and some of its equals. Bits of
such floats order as the floats do, so a threshold is found by halving: count, or
sum in float64, what lies above the middle. A look at the whole row is the cost,
512 kB out of L2 for 128k tokens, some 6 us for one multiprocessor; so the first
middle is 2^-10, below which a peaked row leaves few, and once no more than BLOCK
lie between the ends they are gathered, and the rest is done on them alone. That
makes four to eight looks, for up to 132 rows at once. A sort moves the row some
ten times and serves rows one after the other.

Grid: (n,).
"""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK = tl.constexpr(2048)  # of 512 threads, 4 numbers each: 16 bytes at once
DEPTH = tl.constexpr(4)  # such loads in flight
_ONE = tl.constexpr(0x3F800000)  # 1.0
_FIRST_MIDDLE = tl.constexpr(0x3A800000)  # 2^-10


@triton.jit
def pick_kernel(
    weights_ptr,  # (n, vocab_size) float32
    seed_ptr,  # (n,) int64
    position_ptr,  # (n,) int64
    top_k_ptr,  # (n,) int64, 0: all
    top_p_ptr,  # (n,) float64
    min_p_ptr,  # (n,) float32
    between_ptr,  # (n, BLOCK) float32, for what is gathered
    index_ptr,  # (n,) int64
    vocab_size,
    FILTERED: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """The index drawn from each row."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    row_ptr = weights_ptr + row.to(tl.int64) * vocab_size
    key = row * 0
    n_equals = row * 0 + vocab_size  # of those at the threshold, how many stay
    if FILTERED:
        between = between_ptr + row * BLOCK
        top_k = tl.load(top_k_ptr + row).to(tl.int32)
        if (top_k > 0) & (top_k < vocab_size):
            key = _largest_key(row_ptr, vocab_size, between, key, top_k.to(tl.float64), BY_SUM=False)
        top_p = tl.load(top_p_ptr + row)
        if top_p < 1:
            _, total = _at_least(row_ptr, vocab_size, key)
            wanted = top_p * total
            key = _largest_key(row_ptr, vocab_size, between, key, wanted, BY_SUM=True)
            _, above = _at_least(row_ptr, vocab_size, key + 1)
            n_equals = _n_equals(wanted - above, key)
        least = tl.load(min_p_ptr + row).to(tl.int32, bitcast=True)
        if least > key:
            key = least
            n_equals = row * 0 + vocab_size
    chance = _uniform(tl.load(seed_ptr + row), tl.load(position_ptr + row))
    tl.store(index_ptr + row, _drawn(row_ptr, vocab_size, key, n_equals, chance))


@triton.jit
def _keys(row_ptr, vocab_size, first):
    """Bits of the weights from `first` on, (DEPTH, BLOCK) int32; -1 past the row's end."""
    place = first + tl.arange(0, DEPTH)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    return tl.load(row_ptr + place, place < vocab_size, other=-1.0).to(tl.int32, bitcast=True)


@triton.jit
def _value(key):
    return key.to(tl.float32, bitcast=True).to(tl.float64)


@triton.jit
def _at_least(row_ptr, vocab_size, key):
    """How many weigh at least that, and their sum in float64."""
    n = tl.zeros([BLOCK], tl.int32)
    total = tl.zeros([BLOCK], tl.float64)
    for first in tl.range(0, vocab_size, DEPTH * BLOCK):
        keys = _keys(row_ptr, vocab_size, first)
        n += tl.sum((keys >= key).to(tl.int32), 0)
        total += tl.sum(tl.where(keys >= key, _value(keys), 0.0), 0)
    return tl.sum(n, 0), tl.sum(total, 0)


@triton.jit
def _largest_key(row_ptr, vocab_size, between_ptr, low, wanted, BY_SUM: tl.constexpr):
    """The largest key at which what weighs at least as much is `wanted` or more, by number or by sum.

    Such is `low`; and one above 1.0 is not.
    """
    high = low * 0 + _ONE + 1
    n_low = low * 0 + vocab_size  # at least: how many are at `low` or above it
    n_high = low * 0
    reached = wanted * 0  # at `high`
    middle = tl.maximum(low * 0 + _FIRST_MIDDLE, (low + high) // 2)
    middle = tl.where(low < _FIRST_MIDDLE, low * 0 + _FIRST_MIDDLE, middle)
    while (high - low > 1) & (n_low - n_high > BLOCK):
        n, total = _at_least(row_ptr, vocab_size, middle)
        measure = total if BY_SUM else n.to(tl.float64)
        if measure >= wanted:
            low = middle
            n_low = n
        else:
            high = middle
            n_high = n
            reached = measure
        middle = low + (high - low) // 2
    keys = _gathered(row_ptr, vocab_size, between_ptr, low, high)
    while high - low > 1:
        middle = low + (high - low) // 2
        if BY_SUM:
            measure = reached + tl.sum(tl.where(keys >= middle, _value(keys), 0.0), 0)
        else:
            measure = reached + tl.sum((keys >= middle).to(tl.int32), 0).to(tl.float64)
        if measure >= wanted:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def _gathered(row_ptr, vocab_size, between_ptr, low, high):
    """The keys in [low, high), (BLOCK,) int32, in any order; -1 after them. Only the first BLOCK, if there are more."""
    n = low * 0
    for first in tl.range(0, vocab_size, BLOCK):
        place = first + tl.arange(0, BLOCK)
        weights = tl.load(row_ptr + place, place < vocab_size, other=-1.0)
        keys = weights.to(tl.int32, bitcast=True)
        inside = ((keys >= low) & (keys < high)).to(tl.int32)
        to = n + tl.cumsum(inside, 0) - 1
        tl.store(between_ptr + to, weights, (inside > 0) & (to < BLOCK))
        n += tl.sum(inside, 0)
    tl.debug_barrier()  # what other threads wrote is read
    place = tl.arange(0, BLOCK)
    found = tl.load(between_ptr + place, place < n, other=-1.0, cache_modifier=".cg")
    tl.debug_barrier()  # and read before the next search writes
    return found.to(tl.int32, bitcast=True)


@triton.jit
def _n_equals(missing, key):
    """How many of weight `key` it takes to reach `missing`; one at least."""
    value = _value(key)
    n = tl.maximum((missing / value).to(tl.int32), 1)
    if n.to(tl.float64) * value < missing:
        n += 1
    return n


@triton.jit
def _drawn(row_ptr, vocab_size, key, n_equals, chance):
    """The first index at which the running sum of what is kept exceeds `chance` of the whole."""
    n, total = _at_least(row_ptr, vocab_size, key)
    n_above, above = _at_least(row_ptr, vocab_size, key + 1)
    if n_equals < n - n_above:
        total = above + n_equals.to(tl.float64) * _value(key)
    target = chance * total
    before = total * 0
    equals = key * 0
    last = key * 0  # kept with a weight, should rounding leave the target unreached
    index = key * 0 + vocab_size
    first = key * 0
    while (first < vocab_size) & (index == vocab_size):
        place = first + tl.arange(0, BLOCK)
        keys = tl.load(row_ptr + place, place < vocab_size, other=-1.0).to(tl.int32, bitcast=True)
        equal = (keys == key).to(tl.int32)
        kept = (keys > key) | ((equal > 0) & (equals + tl.cumsum(equal, 0) <= n_equals))
        weights = tl.where(kept, _value(keys), 0.0)
        sums = before + tl.cumsum(weights, 0)
        index = tl.min(tl.where((sums > target) & kept, place, vocab_size), 0)
        last = tl.maximum(last, tl.max(tl.where(weights > 0, place, 0), 0))
        before += tl.sum(weights, 0)
        equals += tl.sum(equal, 0)
        first += BLOCK
    return tl.where(index == vocab_size, last, index).to(tl.int64)


@triton.jit
def _uniform(seed, position):
    """`sampling.uniform` of a mixed seed, float64 in [0, 1)."""
    x = seed.to(tl.uint64) + (position.to(tl.uint64) + 1) * 0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    x = (x ^ (x >> 31)) >> 11
    return x.to(tl.float64) * 1.1102230246251565e-16
