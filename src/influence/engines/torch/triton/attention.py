"""Attention of each sequence's newest positions over its paged cache: decodes and chunks of prompts in one launch.

    s = softcap(q k scale)          within the window, not past the query
    o = softmax(s) v                query heads of a group share k and v

Shapes: q, o (n, n_heads, head_dim); cache (2, n_blocks, BLOCK, n_kv_heads, head_dim).

Bytes moved: for each tile of queries the keys and values that it sees, once for
all query heads of a group. Decoding is bound by that read; a chunk of a prompt,
with BLOCK_M rows to each key, by the tensor cores.

The tile: the rows are the queries of a group's heads, token after token, 16 at
least, for that is a tensor core's least, and 64 where there are chunks; the
columns are one block of the cache, 64 positions x head_dim, 16 kB of keys for
128. An online softmax (Milakov and Gimelshein, arXiv 1805.02867) runs over the
blocks that some row of the tile sees, so windows skip what they mask.

The blocks of a tile are split among SPLITS programs (flash-decoding), a number
that depends on the launch's shape alone: each finds its part from the length on
the device, so that one CUDA graph serves all lengths. A part has two blocks at
least, 64 kB in flight for heads of 128; programs for which none are left end at
once, and a tile of one part needs no sum. Else the last to arrive combines the
parts in their order: o = sum(w o_i) / sum(w), w = 2^(l_i - max l), several at a
time, for each time is a wait for the L2 cache (some 0.2 us).

Before it waits for the kernel before it, a program asks for its first block:
tables and lengths were there before the first kernel that overlaps began
(`inputs.py`).

Slots that no sequence filled may hold anything, NaN included: they are masked
where they are loaded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from influence.engines.torch.triton.activations import tanh
from influence.engines.torch.triton.formats import prefetch, product

LOG2_E = tl.constexpr(1.4426950408889634)
LEAST_BLOCKS = tl.constexpr(2)  # of the cache, in a part


class Sequences(NamedTuple):
    """What the batch holds, as `ops.paged_attention` takes it."""

    tables: Any  # (n_sequences, table_width) int32
    starts: Any  # (n_sequences + 1,) int32
    lengths: Any  # (n_sequences,) int32
    n: Any
    table_width: Any
    ONE_EACH: Any  # every sequence has one query


class Shape(NamedTuple):
    """Sizes that a kernel is compiled for."""

    N_HEADS: Any
    N_KV_HEADS: Any
    HEAD_DIM: Any
    PADDED_DIM: Any  # the next power of two
    PADDED_GROUP: Any  # of the query heads that share a kv head
    BLOCK: Any  # positions in a cache block
    BLOCK_M: Any  # rows of a tile: tokens times PADDED_GROUP
    SPLITS: Any
    WINDOW: Any  # positions that a query sees, itself included; 0: all
    OVERLAP: Any


@triton.jit(do_not_specialize=["n_tokens"])  # one kernel for every number of them
def attention_kernel(
    q_ptr,
    kv_ptr,
    sequences,  # Sequences
    o_ptr,
    partial_ptr,  # (SPLITS, n, n_heads, head_dim) float32
    logsum_ptr,  # (SPLITS, n, n_heads) float32: log2 of the sum of 2^s of a part
    arrivals_ptr,  # (tiles * kv heads,) int32, zeros
    n_tokens,
    n_slots,  # positions in the cache
    scale,
    softcap,  # or None
    shape,  # Shape
):
    """Grid: (tiles of queries, kv heads, SPLITS)."""
    if shape.OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
    tokens: tl.constexpr = shape.BLOCK_M // shape.PADDED_GROUP
    split = tl.program_id(2)
    sequence, tile = _sequence_of(tl.program_id(0), sequences, tokens)
    begin = tl.load(sequences.starts + sequence)
    end = tl.load(sequences.starts + sequence + 1)
    length = tl.load(sequences.lengths + sequence)
    last = tl.minimum(length - end + begin + (tile + 1) * tokens, length)  # past the last query of the tile
    first, each, n_parts = _parts(last, tokens, shape)
    if (begin + tile * tokens < end) & (split < n_parts):
        table = sequences.tables + sequence.to(tl.int64) * sequences.table_width
        begin_block = first + split * each
        if shape.OVERLAP:
            _prefetch(kv_ptr, tl.load(table + begin_block), n_slots, shape)
            tl.extra.cuda.gdc_wait()
        row = tl.arange(0, shape.BLOCK_M)
        group: tl.constexpr = shape.N_HEADS // shape.N_KV_HEADS
        token = begin + tile * tokens + row // shape.PADDED_GROUP
        mask = (token < end) & (row % shape.PADDED_GROUP < group)
        head = tl.program_id(1) * group + row % shape.PADDED_GROUP
        place = token.to(tl.int64) * shape.N_HEADS + head  # among all queries' heads
        column = tl.arange(0, shape.PADDED_DIM)
        offsets = place[:, None] * shape.HEAD_DIM + column[None, :]
        wide = mask[:, None] & (column < shape.HEAD_DIM)[None, :]
        q = tl.load(q_ptr + offsets, wide, other=0)
        position = length - end + token
        end_block = tl.minimum(begin_block + each, tl.cdiv(last, shape.BLOCK))
        o, logsum = _attend(
            q, kv_ptr, table, position, length, begin_block, end_block, n_slots, scale, softcap, shape
        )
        if shape.SPLITS == 1:  # noqa: SIM114 - decided when the kernel is compiled; the next when it runs
            tl.store(o_ptr + offsets, o.to(o_ptr.dtype.element_ty), wide)
        elif n_parts == 1:
            tl.store(o_ptr + offsets, o.to(o_ptr.dtype.element_ty), wide)
        else:
            n_places = n_tokens.to(tl.int64) * shape.N_HEADS
            tl.store(partial_ptr + split * n_places * shape.HEAD_DIM + offsets, o, wide)
            tl.store(logsum_ptr + split * n_places + place, logsum, mask)
            tl.debug_barrier()  # all threads' parts are out before one of them says so
            counter = arrivals_ptr + tl.program_id(0) * shape.N_KV_HEADS + tl.program_id(1)
            if tl.atomic_add(counter, 1, sem="acq_rel") == n_parts - 1:
                o = _combined(partial_ptr, logsum_ptr, offsets, place, mask, wide, n_places, n_parts, shape)
                tl.store(o_ptr + offsets, o.to(o_ptr.dtype.element_ty), wide)
                tl.atomic_xchg(counter, 0)  # as the next launch expects it


@triton.jit
def _prefetch(kv_ptr, block, n_slots, shape):
    """Ask the L2 cache for a block's keys and values; what is written to them meanwhile is written there."""
    line: tl.constexpr = 128 // (kv_ptr.dtype.element_ty.primitive_bitwidth // 8)  # numbers of a cache line
    n_lines: tl.constexpr = triton.next_power_of_2(triton.cdiv(shape.HEAD_DIM, line))
    stride: tl.constexpr = shape.N_KV_HEADS * shape.HEAD_DIM
    slot = block.to(tl.int64) * shape.BLOCK + tl.arange(0, shape.BLOCK)
    column = tl.minimum(tl.arange(0, n_lines) * line, shape.HEAD_DIM - 1)
    at = kv_ptr + slot[:, None] * stride + tl.program_id(1) * shape.HEAD_DIM + column[None, :]
    prefetch(at)
    prefetch(at + n_slots.to(tl.int64) * stride)


@triton.jit
def _parts(last, tokens: tl.constexpr, shape):
    """Of a tile whose queries end before position `last`: its first block, blocks of a part, and parts."""
    first = 0
    if shape.WINDOW > 0:
        first = tl.maximum(last - tokens - shape.WINDOW + 1, 0) // shape.BLOCK
    n_blocks = tl.cdiv(last, shape.BLOCK) - first
    each = tl.maximum(tl.cdiv(n_blocks, shape.SPLITS), LEAST_BLOCKS)
    return first, each, tl.cdiv(n_blocks, each)


@triton.jit
def _sequence_of(tile, sequences, tokens: tl.constexpr):
    """The sequence that a tile of the grid belongs to, and which of that sequence's tiles it is.

    Sequence s gets the tiles from starts[s] // tokens + s on: at least as many
    as it needs, and the grid follows from shapes alone. What it does not need is idle.
    """
    if sequences.ONE_EACH:
        return tile, 0
    low = 0
    high = sequences.n
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(sequences.starts + middle) // tokens + middle <= tile:
            low = middle
        else:
            high = middle
    return low, tile - (tl.load(sequences.starts + low) // tokens + low)


@triton.jit
def _attend(
    q,  # (BLOCK_M, PADDED_DIM)
    kv_ptr,
    table,  # the sequence's blocks
    position,  # (BLOCK_M,) of each row
    length,  # of the sequence
    begin,  # blocks of the sequence
    end,
    n_slots,
    scale,
    softcap,
    shape,
):
    """One part: softmax(s) v over its blocks, and log2 of the sum of 2^s; -inf where it saw nothing."""
    peak = tl.full([shape.BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([shape.BLOCK_M], tl.float32)
    o = tl.zeros([shape.BLOCK_M, shape.PADDED_DIM], tl.float32)
    stride: tl.constexpr = shape.N_KV_HEADS * shape.HEAD_DIM
    column = tl.arange(0, shape.PADDED_DIM)
    for block in range(begin, end):
        key = block * shape.BLOCK + tl.arange(0, shape.BLOCK)
        slot = tl.load(table + block).to(tl.int64) * shape.BLOCK + tl.arange(0, shape.BLOCK)
        at = slot[:, None] * stride + tl.program_id(1) * shape.HEAD_DIM + column[None, :]
        held = (key < length)[:, None] & (column < shape.HEAD_DIM)[None, :]
        k = tl.load(kv_ptr + at, held, other=0)
        v = tl.load(kv_ptr + n_slots.to(tl.int64) * stride + at, held, other=0)
        s = product(q, tl.trans(k), tl.zeros([shape.BLOCK_M, shape.BLOCK], tl.float32)) * scale
        if softcap is not None:
            s = softcap * tanh(s / softcap)
        distance = position[:, None] - key[None, :]
        seen = distance >= 0
        if shape.WINDOW > 0:
            seen = seen & (distance < shape.WINDOW)
        s = tl.where(seen, s * LOG2_E, float("-inf"))
        higher = tl.maximum(peak, tl.max(s, 1))
        base = tl.where(higher == float("-inf"), 0, higher)  # a row that saw nothing yet
        p = tl.exp2(s - base[:, None])
        kept = tl.exp2(peak - base)
        total = total * kept + tl.sum(p, 1)
        o = product(p.to(v.dtype), v, o * kept[:, None])
        peak = higher
    something = tl.where(total > 0, total, 1)
    return o / something[:, None], tl.where(total > 0, peak + tl.log2(something), float("-inf"))


@triton.jit
def _combined(partial_ptr, logsum_ptr, offsets, place, mask, wide, n_places, n_parts, shape):
    """The parts as one, (BLOCK_M, PADDED_DIM) float32."""
    every = tl.arange(0, triton.next_power_of_2(shape.SPLITS))[:, None]
    logsums = tl.load(
        logsum_ptr + every * n_places + place[None, :],
        (every < n_parts) & mask[None, :],
        other=float("-inf"),
        cache_modifier=".cg",
    )
    peak = tl.max(logsums, 0)
    peak = tl.where(mask, peak, 0)
    total = tl.sum(tl.exp2(logsums - peak[None, :]), 0)
    o = tl.zeros([shape.BLOCK_M, shape.PADDED_DIM], tl.float32)
    at_once: tl.constexpr = _parts_at_once(shape.BLOCK_M, shape.PADDED_DIM)
    for first in range(0, n_parts, at_once):
        part = first + tl.arange(0, at_once)[:, None]
        there = (part < n_parts) & mask[None, :]
        at = logsum_ptr + part * n_places + place[None, :]
        weights = tl.exp2(tl.load(at, there, other=float("-inf"), cache_modifier=".cg") - peak[None, :])
        parts = tl.load(
            partial_ptr + (part * n_places * shape.HEAD_DIM)[:, :, None] + offsets[None, :, :],
            (part < n_parts)[:, :, None] & wide[None, :, :],
            other=0,
            cache_modifier=".cg",
        )
        o += tl.sum(weights[:, :, None] * parts, 0)
    return o / tl.where(mask, total, 1)[:, None]


@triton.constexpr_function
def _parts_at_once(block_m, padded_dim):
    """As many as take 64 registers of each of 128 threads."""
    return max(1, 64 * 128 // (block_m * padded_dim))
