"""How a device's memory is shared out: weights first, then activations, and the cache gets of the rest what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from influence.engines import machine
from influence.engines.paging import BLOCK_SIZE
from influence.engines.torch.batching import PASS_TOKENS
from influence.engines.torch.engine import block_bytes
from influence.engines.torch.placement import Placement
from influence.engines.torch.quantize import MatrixFormat
from influence.engines.torch.weights import compute_dtype
from influence.errors import OutOfMemory
from influence.models.binding import Weights
from influence.models.spec import ModelSpec

# Of the memory that is free, what weights, cache and activations may take if the user sets no bound.
_SHARE = 0.9
_LOGIT_ROWS = 64  # of a step that activations are counted for

_HINT = "give --weights q8 or q4, a larger --gpu-memory, or a smaller model"


@dataclass(frozen=True, slots=True)
class Room:
    """What a model may take of each device, and what its cache is to hold.

    Beside weights and activations the cache takes `kv_bytes`, or room for
    `n_sessions` of `context` as far as memory goes.
    """

    context: int | None  # positions; None: the model's limit, or less
    n_sessions: int = 1
    kv_bytes: int | None = None
    memory_bytes: int | None = None  # None: nine tenths of what is free


def blocks_within(
    room: Room, spec: ModelSpec, weights: Weights, where: Placement, form: MatrixFormat
) -> Callable[[], int]:
    """How many blocks the cache gets, to be asked when the weights have their place.

    Raises OutOfMemory, as the answer does, if the weights, the cache asked for, or one chosen context don't fit.
    """
    free = free_bytes(where)
    budget = int(free * _SHARE) if room.memory_bytes is None else room.memory_bytes
    if form == "stored" and weights.size_bytes > budget:
        raise OutOfMemory(f"the model on {where.name}", weights.size_bytes, budget, hint=_HINT)
    per_block = block_bytes(spec, compute_dtype(weights))

    def n_blocks() -> int:
        left = budget - (free - free_bytes(where)) - activation_bytes(spec)
        return _n_blocks(room, spec.max_context, per_block, max(0, left))

    return n_blocks


def _n_blocks(room: Room, max_context: int, per_block: int, left: int) -> int:
    """Blocks for the cache out of `left` bytes."""
    one_session = -(-(room.context or max_context) // BLOCK_SIZE)
    least = 1 if room.context is None else one_session
    wanted = room.n_sessions * one_session if room.kv_bytes is None else room.kv_bytes // per_block
    n = min(wanted, left // per_block)
    if n < least or (room.kv_bytes is not None and n < wanted):
        needed = max(least, wanted if room.kv_bytes is not None else 0)
        raise OutOfMemory(f"a KV cache of {needed * BLOCK_SIZE} positions", needed * per_block, left)
    return n


def activation_bytes(spec: ModelSpec) -> int:
    """What a pass takes beside weights and cache, on the safe side."""
    per_token = 2 * spec.intermediate_size + 2 * spec.q_dim + 2 * spec.kv_dim + 4 * spec.hidden_size
    return 12 * PASS_TOKENS * per_token + 16 * _LOGIT_ROWS * spec.vocab_size


def free_bytes(where: Placement) -> int:
    """Memory of the device that nobody holds; of torch's own cache what it holds for nothing counts as free."""
    if where.device.type == "cuda":
        unused = torch.cuda.memory_reserved(where.device) - torch.cuda.memory_allocated(where.device)
        return int(torch.cuda.mem_get_info(where.device)[0]) + int(unused)
    if where.device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return machine.available_memory()
