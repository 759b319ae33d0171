"""Steps of the engine boundary as tensors: passes of bounded size, each a `Batch`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import torch
from influence.engines.base import Step
from influence.engines.paging import BLOCK_SIZE, PagedEngine, PagedSession
from influence.engines.torch.decoder import Batch
from influence.engines.torch.placement import Placement
from influence.models.rope import rope_frequencies
from torch import Tensor

# Tokens that go through the layers at once: enough for products bound by
# arithmetic; activations of a longer prompt would take memory for nothing.
PASS_TOKENS = 2048


class TorchSession(PagedSession):
    """A paged session with its ropes on the device."""

    def __init__(self, engine: PagedEngine, context: int, placement: Placement) -> None:
        super().__init__(engine, context)
        ropes = [rope_frequencies(rope, context)[0] for rope in engine.spec.ropes]
        self.frequencies = tuple(torch.from_numpy(np.asarray(rope)).to(placement.device) for rope in ropes)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a step: its tokens, where they begin, and how many of its last ones give logits."""

    session: TorchSession
    begin: int  # position of the first token
    token_ids: Sequence[int]
    n_logits: int

    @property
    def end(self) -> int:
        return self.begin + len(self.token_ids)


def passes(steps: Sequence[Step]) -> Iterator[list[Piece]]:
    """The steps in order, cut so that no pass has more than PASS_TOKENS tokens."""
    pieces: list[Piece] = []
    room = PASS_TOKENS
    for step in steps:
        done, n = 0, len(step.token_ids)
        while done < n:
            end = min(n, done + room)
            n_logits = max(0, end - max(done, n - step.n_logits))
            pieces.append(Piece(own(step), step.session.position + done, step.token_ids[done:end], n_logits))
            room -= end - done
            done = end
            if room == 0:
                yield pieces
                pieces, room = [], PASS_TOKENS
    if pieces:
        yield pieces


def own(step: Step) -> TorchSession:
    """The step's session, which the engine has checked."""
    if not isinstance(step.session, TorchSession):
        raise TypeError(step.session)
    return step.session


def batch_of(pieces: Sequence[Piece], placement: Placement) -> tuple[Batch, Tensor]:
    """The tensors of a pass, and the rows of its tokens that logits are wanted of, (n_rows,) int64."""
    lengths = [len(piece.token_ids) for piece in pieces]
    starts = np.cumsum([0, *lengths])
    positions = [np.arange(piece.begin, piece.end) for piece in pieces]
    rows = [np.arange(end - piece.n_logits, end) for piece, end in zip(pieces, starts[1:], strict=True)]

    def sent(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], dtype: torch.dtype) -> Tensor:
        return placement.to_device(torch.from_numpy(array).to(dtype))

    batch = Batch(
        token_ids=sent(np.concatenate([np.asarray(piece.token_ids) for piece in pieces]), torch.int64),
        positions=sent(np.concatenate(positions), torch.int64),
        slots=sent(np.concatenate([_slots(piece) for piece in pieces]), torch.int64),
        block_tables=sent(block_tables([piece.session for piece in pieces]), torch.int32),
        query_starts=sent(starts, torch.int32),
        context_lengths=sent(np.array([piece.end for piece in pieces]), torch.int32),
        frequencies=_frequencies(pieces, lengths),
    )
    return batch, sent(np.concatenate(rows), torch.int64)


def block_tables(
    sessions: Sequence[PagedSession], n_rows: int = 0, fill: int = 0
) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """Each session's blocks as a row, `fill` after them and in the rows after the last, up to `n_rows`."""
    width = max(len(session.blocks) for session in sessions)
    tables = np.full((max(n_rows, len(sessions)), width), fill, np.int32)
    for row, session in zip(tables, sessions, strict=False):
        row[: len(session.blocks)] = session.blocks
    return tables


def _slots(piece: Piece) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The places of the piece's positions in the cache, (n,)."""
    positions = np.arange(piece.begin, piece.end)
    blocks = np.array(piece.session.blocks)[positions // BLOCK_SIZE]
    return np.asarray(blocks * BLOCK_SIZE + positions % BLOCK_SIZE)


def _frequencies(pieces: Sequence[Piece], lengths: Sequence[int]) -> tuple[Tensor, ...]:
    """Of each rope, one row for all where no session's context changes them."""
    spec = pieces[0].session.engine.spec
    per_rope = []
    for index, rope in enumerate(spec.ropes):
        parts = [piece.session.frequencies[index] for piece in pieces]
        if rope.depends_on_context:
            rows = [part.expand(n, -1) for part, n in zip(parts, lengths, strict=True)]
            per_rope.append(torch.cat(rows))
        else:
            per_rope.append(parts[0])
    return tuple(per_rope)
