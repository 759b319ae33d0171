"""One token for each of some sequences, over buffers that stay: the step that a CUDA graph can hold.

    buckets     1, 2, 4, 8, then every 16 sequences; unused rows work on a block that nobody reads
    widths      blocks in a sequence's table: all that a sequence can have, where attention reads only what
                it holds; powers of two for plain attention, which gathers the whole table
    choices     logits alone, or a token too, chosen as the draws ask

All that changes from step to step lies in tensors: the step computes the places
in the cache from positions and tables, and where it chooses tokens it writes
them, and the positions after them, back into its own inputs. So a run of steps
needs nothing from the host until a sequence comes, goes or takes a new block.
Where there are no graphs the same step runs eagerly over the same buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

import torch
from influence.engines.paging import BLOCK_SIZE
from influence.engines.sampling import Draw
from influence.engines.torch.batching import TorchSession, block_tables
from influence.engines.torch.choosing import Choice, DrawTensors, outcomes
from influence.engines.torch.decoder import Batch, Decoder
from influence.engines.torch.placement import Placement, Run
from influence.errors import InvalidParameter
from influence.models.spec import ModelSpec
from torch import Tensor

_FIRST_BUCKETS = (1, 2, 4, 8)
_BUCKET_STEP = 16
_LEAST_WIDTH = 4  # blocks


def bucket_for(n: int) -> int:
    """The least bucket that holds n sequences."""
    return next((b for b in _FIRST_BUCKETS if b >= n), -(-n // _BUCKET_STEP) * _BUCKET_STEP)


def width_for(n_blocks: int) -> int:
    """The least width that holds so many blocks."""
    return max(_LEAST_WIDTH, 1 << (n_blocks - 1).bit_length())


class _Tables(NamedTuple):
    """Block tables of one width."""

    device: Tensor  # (bucket, width) int32
    host: np.ndarray[tuple[int, ...], np.dtype[np.int32]]  # what it holds


class _Made(NamedTuple):
    """A step that was made, and where its outcomes are."""

    run: Run
    outcomes: Tensor  # (bucket, n_columns) float64; of logits alone: (bucket, vocab_size) float32


@dataclass(slots=True)
class _Buffers:
    """Inputs and outputs of the step for one bucket."""

    token_ids: Tensor  # (bucket,) int64
    positions: Tensor  # (bucket,) int64: where these tokens go
    is_used: Tensor  # (bucket,) int64: 1, or 0 in a row of no sequence, which stays at position 0
    query_starts: Tensor  # (bucket + 1,) int32
    frequencies: tuple[Tensor, ...]  # of each rope: (bucket, rotary_dim / 2)
    draws: DrawTensors
    choice: Choice | None = None  # of the run that goes on
    sessions: tuple[TorchSession, ...] = ()
    tables: dict[int, _Tables] = field(default_factory=dict)  # by width
    made: dict[tuple[int, Choice | None], _Made] = field(default_factory=dict)


class DecodeStep:
    """The step of one model, for any number of sequences."""

    def __init__(
        self, spec: ModelSpec, decoder: Decoder, kv: Tensor, scratch_block: int, placement: Placement
    ) -> None:
        """`kv` is the whole cache; `scratch_block` a block of it that no session gets."""
        self._spec, self._decoder, self._kv = spec, decoder, kv
        self._scratch, self._placement = scratch_block, placement
        # The pool's blocks are those before the scratch block.
        self._full_width = min(-(-spec.max_context // BLOCK_SIZE), scratch_block)
        self._buffers: dict[int, _Buffers] = {}
        self._current: _Buffers | None = None  # where `begin` began

    def logits(self, sessions: Sequence[TorchSession], token_ids: Sequence[int]) -> Tensor:
        """The next logits, (n, vocab_size); valid until the next step. Sessions hold the block to write, and don't advance."""
        buffers, width = self._prepared(sessions)
        self._set_inputs(buffers, token_ids, [session.position for session in sessions])
        return self._run(buffers, width, None)[: len(sessions)]

    def begin(
        self, sessions: Sequence[TorchSession], token_ids: Sequence[int], draws: Sequence[Draw]
    ) -> None:
        """These tokens go in at the next `advance`, and each chosen one after it."""
        buffers, _ = self._prepared(sessions)
        self._set_inputs(buffers, token_ids, [session.position for session in sessions])
        buffers.draws.fill(draws, self._spec.vocab_size, self._placement.to_device)
        buffers.choice = Choice.of(draws, self._spec.vocab_size)
        self._current = buffers

    def advance(self, sessions: Sequence[TorchSession]) -> Tensor:
        """One step of what `begin` began: `outcomes`, (n, n_columns); valid until the next step."""
        self.require_run_of(sessions)
        buffers, width = self._prepared(sessions)
        return self._run(buffers, width, buffers.choice)[: len(sessions)]

    def require_run_of(self, sessions: Sequence[TorchSession]) -> None:
        """Raise InvalidParameter unless `begin` began a run of these sessions, and nothing ended it."""
        if self._current is None or self._current.sessions != tuple(sessions):
            raise InvalidParameter("run", "ended by another step", "one that goes on")

    def end(self) -> None:
        """What `begin` began is over: its buffers may be used for other steps."""
        self._current = None

    def _width(self, sessions: Sequence[TorchSession]) -> int:
        if self._placement.ops.reads_used_blocks:
            return self._full_width
        return width_for(max(len(session.blocks) for session in sessions))

    def _prepared(self, sessions: Sequence[TorchSession]) -> tuple[_Buffers, int]:
        """The buffers for these sessions, their tables as the sessions' blocks are now, and the tables' width."""
        bucket, width = bucket_for(len(sessions)), self._width(sessions)
        if bucket not in self._buffers:
            self._buffers[bucket] = self._new_buffers(bucket)
        buffers = self._buffers[bucket]
        if width not in buffers.tables:
            buffers.tables[width] = self._new_tables(bucket, width)
        self._set_tables(buffers.tables[width], sessions)
        if buffers.sessions != tuple(sessions):
            self._set_sessions(buffers, tuple(sessions))
        return buffers, width

    def _set_tables(self, tables: _Tables, sessions: Sequence[TorchSession]) -> None:
        """The columns in use as the sessions' blocks are now; what stands behind them nobody looks at."""
        blocks = block_tables(sessions, len(tables.host), self._scratch)
        held = tables.host[:, : blocks.shape[1]]
        if not np.array_equal(blocks, held):
            held[:] = blocks
            tables.device[:, : blocks.shape[1]] = self._placement.to_device(torch.from_numpy(blocks))

    def _set_sessions(self, buffers: _Buffers, sessions: tuple[TorchSession, ...]) -> None:
        n = len(sessions)
        buffers.sessions = sessions
        buffers.is_used[:n] = 1
        buffers.is_used[n:] = 0
        buffers.positions[n:] = 0
        for index, rows in enumerate(buffers.frequencies):
            rows[:n] = torch.stack([session.frequencies[index] for session in sessions])

    def _set_inputs(self, buffers: _Buffers, token_ids: Sequence[int], positions: Sequence[int]) -> None:
        n = len(token_ids)
        both = self._placement.to_device(torch.tensor([token_ids, positions], dtype=torch.int64))
        buffers.token_ids[:n] = both[0]
        buffers.positions[:n] = both[1]

    def _run(self, buffers: _Buffers, width: int, choice: Choice | None) -> Tensor:
        if (width, choice) not in buffers.made:
            buffers.made[width, choice] = self._new(buffers, width, choice)
        made = buffers.made[width, choice]
        made.run()
        return made.outcomes

    def _new(self, buffers: _Buffers, width: int, choice: Choice | None) -> _Made:
        """The step of that choice, as a graph where there are graphs; making one leaves the inputs as they were.

        Nobody moves on meanwhile: a position on, a block may be another's.
        """
        n_columns = self._spec.vocab_size if choice is None else choice.n_columns
        dtype = torch.float32 if choice is None else torch.float64
        found = torch.zeros(len(buffers.token_ids), n_columns, dtype=dtype, device=self._placement.device)

        def step() -> None:
            self._step(buffers, buffers.tables[width].device, choice, found)

        token_ids, is_used = buffers.token_ids.clone(), buffers.is_used.clone()
        buffers.is_used.zero_()
        run = self._placement.graph(step)
        buffers.token_ids.copy_(token_ids)
        buffers.is_used.copy_(is_used)
        return _Made(run, found)

    def _step(self, buffers: _Buffers, tables: Tensor, choice: Choice | None, found: Tensor) -> None:
        logits = self._decoder.logits(self._decoder.hidden(self._batch(buffers, tables), self._kv))
        if choice is None:
            found.copy_(logits)
            return
        ops, draws = self._placement.ops, buffers.draws
        buffers.positions.add_(buffers.is_used)
        outcomes(logits, draws, buffers.positions, choice, found, pick=ops.pick, adjust=ops.adjusted)
        buffers.token_ids.copy_(found[:, 0])
        self._placement.group.agree(buffers.token_ids)
        if choice.adjusts and draws.adjustments is not None:
            draws.adjustments.count(buffers.token_ids, buffers.is_used)

    def _batch(self, buffers: _Buffers, tables: Tensor) -> Batch:
        slots, lengths = self._placement.ops.places(tables, buffers.positions)
        return Batch(
            token_ids=buffers.token_ids,
            positions=buffers.positions,
            slots=slots,
            block_tables=tables,
            query_starts=buffers.query_starts,
            context_lengths=lengths,
            frequencies=buffers.frequencies,
        )

    def _new_buffers(self, bucket: int) -> _Buffers:
        spec, device = self._spec, self._placement.device
        return _Buffers(
            token_ids=torch.zeros(bucket, dtype=torch.int64, device=device),
            positions=torch.zeros(bucket, dtype=torch.int64, device=device),
            is_used=torch.zeros(bucket, dtype=torch.int64, device=device),
            query_starts=torch.arange(bucket + 1, dtype=torch.int32, device=device),
            frequencies=tuple(
                torch.zeros(bucket, rope.rotary_dim // 2, device=device) for rope in spec.ropes
            ),
            draws=DrawTensors.empty(bucket, device),
        )

    def _new_tables(self, bucket: int, width: int) -> _Tables:
        host = np.full((bucket, width), self._scratch, np.int32)
        return _Tables(self._placement.to_device(torch.from_numpy(host)), host)
