"""One token for each of some sequences, over buffers that stay: the step that a CUDA graph can hold.

    buckets     1, 2, 4, 8, then every 16 sequences; unused rows work on a block that nobody reads
    widths      blocks in a sequence's table: all that a sequence can have, where attention reads only what
                it holds; powers of two for plain attention, which gathers the whole table
    kinds       logits alone, or logits and the choice of the token

All that changes from step to step lies in tensors: the step computes the places
in the cache from positions and tables, and where it chooses tokens it writes
them, and the positions after them, back into its own inputs. So a run of steps
needs nothing from the host until a sequence comes, goes or takes a new block.
Where there are no graphs the same step runs eagerly over the same buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

import torch
from influence.engines.paging import BLOCK_SIZE
from influence.engines.sampling import SamplingParams
from influence.engines.torch.batching import TorchSession, block_tables
from influence.engines.torch.choosing import DrawTensors, Kind, choose, kind_of
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


@dataclass(slots=True)
class _Buffers:
    """Inputs and outputs of the step for one bucket and width."""

    token_ids: Tensor  # (bucket,) int64
    positions: Tensor  # (bucket,) int64: where these tokens go
    is_used: Tensor  # (bucket,) int64: 1, or 0 in a row of no sequence, which stays at position 0
    tables: Tensor  # (bucket, width) int32
    query_starts: Tensor  # (bucket + 1,) int32
    frequencies: tuple[Tensor, ...]  # of each rope: (bucket, rotary_dim / 2)
    draws: DrawTensors | None  # None: tokens are chosen elsewhere
    logits: Tensor  # (bucket, vocab_size) float32
    peaks: Tensor  # (bucket,) float32: each row's largest logit
    host_tables: np.ndarray[tuple[int, ...], np.dtype[np.int32]]  # what `tables` holds
    sessions: tuple[TorchSession, ...] = ()
    params: tuple[SamplingParams, ...] = ()
    runs: dict[Kind | None, Run] = field(default_factory=dict)


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
        self._buffers: dict[tuple[int, int], _Buffers] = {}
        self._current: _Buffers | None = None  # where `begin` began

    def logits(self, sessions: Sequence[TorchSession], token_ids: Sequence[int]) -> Tensor:
        """The next logits, (n, vocab_size); valid until the next step. Sessions hold the block to write, and don't advance."""
        buffers = self._prepared(sessions)
        self._set_inputs(buffers, token_ids, [session.position for session in sessions])
        self._run(buffers, None)
        return buffers.logits[: len(sessions)]

    def begin(
        self, sessions: Sequence[TorchSession], token_ids: Sequence[int], params: Sequence[SamplingParams]
    ) -> None:
        """These tokens go in at the next `advance`, and each chosen one after it."""
        buffers = self._prepared(sessions)
        self._set_inputs(buffers, token_ids, [session.position for session in sessions])
        self._set_params(buffers, params)
        self._current = buffers

    def advance(self, sessions: Sequence[TorchSession]) -> tuple[Tensor, Tensor]:
        """One step of what `begin` began: chosen tokens and largest logits, (n,) each; valid until the next step."""
        buffers = self._prepared(sessions)
        if buffers is not self._current:
            self._go_on_in(buffers)
        self._run(buffers, kind_of(buffers.params))
        return buffers.token_ids[: len(sessions)], buffers.peaks[: len(sessions)]

    def end(self) -> None:
        """What `begin` began is over: its buffers may be used for other steps."""
        self._current = None

    def _go_on_in(self, buffers: _Buffers) -> None:
        """The run moves to wider tables."""
        if self._current is None or self._current.sessions != buffers.sessions:
            raise InvalidParameter("run", "ended by another step", "one that goes on")
        buffers.token_ids.copy_(self._current.token_ids)
        buffers.positions.copy_(self._current.positions)
        self._set_params(buffers, self._current.params)
        self._current = buffers

    def _shape(self, sessions: Sequence[TorchSession]) -> tuple[int, int]:
        if self._placement.ops.reads_used_blocks:
            return bucket_for(len(sessions)), self._full_width
        return bucket_for(len(sessions)), width_for(max(len(session.blocks) for session in sessions))

    def _prepared(self, sessions: Sequence[TorchSession]) -> _Buffers:
        """The buffers for these sessions, their tables as the sessions' blocks are now."""
        shape = self._shape(sessions)
        if shape not in self._buffers:
            self._buffers[shape] = self._new_buffers(*shape)
        buffers = self._buffers[shape]
        self._set_tables(buffers, sessions)
        if buffers.sessions != tuple(sessions):
            self._set_sessions(buffers, tuple(sessions))
        return buffers

    def _set_tables(self, buffers: _Buffers, sessions: Sequence[TorchSession]) -> None:
        """The columns in use as the sessions' blocks are now; what stands behind them nobody looks at."""
        tables = block_tables(sessions, len(buffers.token_ids), self._scratch)
        held = buffers.host_tables[:, : tables.shape[1]]
        if not np.array_equal(tables, held):
            held[:] = tables
            buffers.tables[:, : tables.shape[1]] = self._placement.to_device(torch.from_numpy(tables))

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

    def _set_params(self, buffers: _Buffers, params: Sequence[SamplingParams]) -> None:
        if buffers.draws is None:
            buffers.draws = DrawTensors.empty(len(buffers.token_ids), self._placement.device)
        if buffers.params != tuple(params):
            buffers.draws.fill(params)
            buffers.params = tuple(params)

    def _run(self, buffers: _Buffers, kind: Kind | None) -> None:
        if kind not in buffers.runs:
            buffers.runs[kind] = self._new_run(buffers, kind)
        buffers.runs[kind]()

    def _new_run(self, buffers: _Buffers, kind: Kind | None) -> Run:
        """The step of that kind, as a graph where there are graphs; making one leaves the inputs as they were.

        Nobody moves on meanwhile: a position on, a block may be another's.
        """

        def step() -> None:
            self._step(buffers, kind)

        token_ids, is_used = buffers.token_ids.clone(), buffers.is_used.clone()
        buffers.is_used.zero_()
        run = self._placement.graph(step)
        buffers.token_ids.copy_(token_ids)
        buffers.is_used.copy_(is_used)
        return run

    def _step(self, buffers: _Buffers, kind: Kind | None) -> None:
        x = self._decoder.hidden(self._batch(buffers), self._kv)
        buffers.logits.copy_(self._decoder.logits(x))
        if kind is None or buffers.draws is None:
            return
        buffers.peaks.copy_(buffers.logits.amax(dim=-1))
        chosen = choose(buffers.logits, buffers.draws, buffers.positions + 1, kind)
        buffers.token_ids.copy_(chosen)
        buffers.positions.add_(buffers.is_used)

    def _batch(self, buffers: _Buffers) -> Batch:
        positions = buffers.positions
        blocks = buffers.tables.gather(1, (positions // BLOCK_SIZE).unsqueeze(1)).squeeze(1).long()
        return Batch(
            token_ids=buffers.token_ids,
            positions=positions,
            slots=blocks * BLOCK_SIZE + positions % BLOCK_SIZE,
            block_tables=buffers.tables,
            query_starts=buffers.query_starts,
            context_lengths=(positions + 1).int(),
            frequencies=buffers.frequencies,
        )

    def _new_buffers(self, bucket: int, width: int) -> _Buffers:
        spec, device = self._spec, self._placement.device
        return _Buffers(
            token_ids=torch.zeros(bucket, dtype=torch.int64, device=device),
            positions=torch.zeros(bucket, dtype=torch.int64, device=device),
            is_used=torch.zeros(bucket, dtype=torch.int64, device=device),
            tables=torch.full((bucket, width), self._scratch, dtype=torch.int32, device=device),
            query_starts=torch.arange(bucket + 1, dtype=torch.int32, device=device),
            frequencies=tuple(
                torch.zeros(bucket, rope.rotary_dim // 2, device=device) for rope in spec.ropes
            ),
            draws=None,
            logits=torch.zeros(bucket, spec.vocab_size, device=device),
            peaks=torch.zeros(bucket, device=device),
            host_tables=np.full((bucket, width), self._scratch, np.int32),
        )
