"""The engine boundary on PyTorch: sessions over one paged cache on the device, and a decoder beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

import torch
from influence.engines.base import Blocks, DecodeRun, Step
from influence.engines.choosing import sample_row
from influence.engines.paging import BLOCK_SIZE, BlockPool, PagedEngine
from influence.engines.sampling import Draw, Sample
from influence.engines.torch.batching import TorchSession, batch_of, own, passes
from influence.engines.torch.choosing import Choice, DrawTensors, outcomes, runs_ahead, samples_of
from influence.engines.torch.decoder import Decoder
from influence.engines.torch.decoding import DecodeStep
from influence.engines.torch.placement import Arrival, Placement
from influence.engines.torch.quantize import MatrixFormat
from influence.engines.torch.weights import load_weights
from influence.errors import ContextFull, OutOfMemory
from influence.models.binding import Weights
from influence.models.spec import ModelSpec
from torch import Tensor


class TorchEngine(PagedEngine):
    """Runs any ModelSpec on one device; weights and cache are on it, of the weights' dtype."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        placement: Placement,
        *,
        n_blocks: Callable[[], int],
        form: MatrixFormat = "stored",
        tied_rows: slice = slice(None),
    ) -> None:
        """Takes all its memory now; `n_blocks`, of the cache, is asked when the weights have theirs. Raises OutOfMemory.

        `tied_rows` are those of the embedding that this device has of a tied head.
        """
        self.spec = spec
        self.placement = placement
        self.tokens_per_step = placement.tokens_per_step
        try:
            loaded = load_weights(spec, weights, placement.device, form, tied_rows)
            n = n_blocks()
            self._kv = _new_cache(spec, n, loaded.dtype, placement.device)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"the model on {placement.name}", weights.size_bytes, 0) from error
        self._dtype = loaded.dtype
        self.pool = BlockPool(n, block_bytes(spec, loaded.dtype))
        self.kv_identity = f"torch {placement.device.type} {loaded.dtype} {form}"
        self.description = f"torch {placement.name}" + ("" if form == "stored" else f", {form} weights")
        self.step_bytes = loaded.step_bytes
        self._decoder = Decoder(spec, loaded, placement.ops, placement.group)
        self.decode = DecodeStep(spec, self._decoder, self._kv, n, placement)
        self._rows = torch.empty(0, spec.vocab_size)

    def make_session(self, context: int) -> TorchSession:
        return TorchSession(self, context, self.placement)

    def decode_ahead(self, steps: Sequence[Step], draws: Sequence[Draw]) -> TorchRun | None:
        if not self.placement.samples_on_device or not all(runs_ahead(draw) for draw in draws):
            return None
        if not all(len(step.token_ids) == 1 and step.n_logits == 1 for step in steps):
            return None
        return TorchRun(self, steps, draws)

    def run(self, steps: Sequence[Step]) -> int:
        self.placement.take()
        self.decode.end()
        if all(len(step.token_ids) == 1 and step.n_logits == 1 for step in steps) and steps:
            sessions = [own(step) for step in steps]
            self._rows = self.decode.logits(sessions, [step.token_ids[0] for step in steps])
        else:
            self._rows = self._pass_by_pass(steps)
        return len(self._rows)

    def begin(
        self, sessions: Sequence[TorchSession], token_ids: Sequence[int], draws: Sequence[Draw]
    ) -> None:
        """A run of decode steps: these tokens go in at the next `advance`, and each chosen one after it."""
        self.placement.take()
        self.decode.begin(sessions, token_ids, draws)

    def advance(self, sessions: Sequence[TorchSession]) -> Arrival:
        """Launch the next step of what was begun; what comes of each row is on its way here.

        Raises InvalidParameter if another step ended the run.
        """
        self.placement.take()
        return self.placement.to_host(self.decode.advance(sessions))

    def arrived(self, arrival: Arrival) -> Tensor:
        """What was launched, when it is there."""
        return arrival.wait()

    def _pass_by_pass(self, steps: Sequence[Step]) -> Tensor:
        rows = [torch.empty(0, self.spec.vocab_size, device=self.placement.device)]
        for pieces in passes(steps):
            batch, wanted = batch_of(pieces, self.placement)
            x = self._decoder.hidden(batch, self._kv)
            if len(wanted):
                rows.append(self._decoder.logits(x[wanted]))
        return torch.cat(rows)

    def logits(self) -> npt.NDArray[np.float32]:
        return np.asarray(self._rows.cpu().numpy())

    def sample(self, draws: Sequence[Draw]) -> list[Sample]:
        self.placement.take()
        if self.placement.samples_on_device:
            return self._sample_on_device(draws)
        rows = self._rows[torch.tensor([draw.row for draw in draws])].cpu().numpy()
        return [sample_row(row, draw) for row, draw in zip(rows, draws, strict=True)]

    def _sample_on_device(self, draws: Sequence[Draw]) -> list[Sample]:
        positions = [draw.position for draw in draws]
        rows, where = self.placement.to_device(torch.tensor([[draw.row for draw in draws], positions]))
        tensors = DrawTensors.empty(len(draws), self.placement.device)
        tensors.fill(draws, self.spec.vocab_size, self.placement.to_device)
        choice, ops = Choice.of(draws, self.spec.vocab_size), self.placement.ops
        found = torch.empty(len(draws), choice.n_columns, dtype=torch.float64, device=where.device)
        outcomes(self._rows[rows], tensors, where, choice, found, pick=ops.pick, adjust=ops.adjusted)
        return samples_of(self.placement.to_host(found).wait().tolist(), draws, positions)

    def copy_block(self, source: int, target: int) -> None:
        self._kv[:, :, target] = self._kv[:, :, source]

    def read_blocks(self, blocks: Sequence[int]) -> Blocks:
        held = self._kv[:, :, list(blocks)].movedim(2, 0).contiguous().cpu()
        return np.asarray(held.view(torch.uint8).flatten(1).numpy())

    def write_blocks(self, blocks: Sequence[int], rows: Blocks) -> None:
        held = torch.from_numpy(np.array(rows).reshape(-1)).view(self._dtype)
        shape = (len(blocks), self.spec.n_layers, 2, *self._kv.shape[3:])
        self._kv[:, :, list(blocks)] = held.view(shape).movedim(0, 2).to(self.placement.device)

    def close(self) -> None:
        """Frees the device's memory, when the last session is gone too."""
        self._rows = torch.empty(0, self.spec.vocab_size)
        for name in ("_decoder", "decode", "_kv"):
            self.__dict__.pop(name, None)


def block_bytes(spec: ModelSpec, dtype: torch.dtype) -> int:
    """One block of the cache, over all layers."""
    return spec.kv_values_per_token * BLOCK_SIZE * int(dtype.itemsize)


class TorchRun(DecodeRun):
    """Steps over the decode step's own buffers; tokens come to the host behind them."""

    def __init__(self, engine: TorchEngine, steps: Sequence[Step], draws: Sequence[Draw]) -> None:
        engine.checked(steps)
        self._engine = engine
        self._sessions = [own(step) for step in steps]
        self._ahead = [draw.position - step.session.position for draw, step in zip(draws, steps, strict=True)]
        self._draws = list(draws)
        self._in_flight: deque[tuple[Arrival, list[int]]] = deque()
        engine.decode.end()
        engine.reserve(self._sessions, [1] * len(steps))
        engine.begin(self._sessions, [step.token_ids[0] for step in steps], draws)
        self._go()

    @property
    def n_in_flight(self) -> int:
        return len(self._in_flight)

    def launch(self) -> None:
        for session in self._sessions:
            if session.position == session.context:
                raise ContextFull(session.position, 1, session.context)
        self._engine.reserve(self._sessions, [1] * len(self._sessions))
        self._go()

    def take(self) -> list[Sample]:
        arrival, positions = self._in_flight.popleft()
        return samples_of(self._engine.arrived(arrival).tolist(), self._draws, positions)

    def _go(self) -> None:
        positions = [s.position + ahead for s, ahead in zip(self._sessions, self._ahead, strict=True)]
        arrival = self._engine.advance(self._sessions)
        for session in self._sessions:
            session.advance(1)
        self._in_flight.append((arrival, positions))


def _new_cache(spec: ModelSpec, n_blocks: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(layers, 2, blocks, BLOCK_SIZE, kv heads, head_dim), with one block after those of the pool.

    Zeros: what attention must not see counts nothing only if it is a number.
    """
    shape = (spec.n_layers, 2, n_blocks + 1, BLOCK_SIZE, spec.n_kv_heads, spec.head_dim)
    return torch.zeros(shape, dtype=dtype, device=device)
