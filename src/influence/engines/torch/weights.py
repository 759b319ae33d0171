"""Weights from mapped files to a device: tensor by tensor, stacked as the ops want them.

    qkv   q, k and v, one under the other          up    gate and up, or up alone

The host never holds a second copy of the model: the files' pages are read
through two buffers of a few megabytes, pinned where the device is CUDA, so that
reading one piece and moving the other overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import torch
from influence.engines.torch.matrices import Linear, Matrix, Norm, size_bytes
from influence.engines.torch.quantize import MatrixFormat, converted
from influence.models.binding import Weights
from influence.models.spec import ModelSpec
from influence.weights.tensor import DType
from influence.weights.tensor import Tensor as StoredTensor
from torch import Tensor

Slots = Mapping[str, StoredTensor]

DTYPES: dict[DType, torch.dtype] = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BUFFER_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """One block; a norm that is None does not exist in this model."""

    attn_norm: Norm | None
    qkv: Linear
    q_norm: Norm | None
    k_norm: Norm | None
    o: Linear
    attn_post_norm: Norm | None
    ffn_norm: Norm | None
    up: Linear
    down: Linear
    ffn_post_norm: Norm | None


@dataclass(frozen=True, slots=True)
class DeviceWeights:
    """A model's weights on one device."""

    embed: Tensor  # (vocab_size, hidden_size)
    layers: tuple[Layer, ...]
    final_norm: Norm | None
    head: Linear  # the embedding's own memory where they are tied and stored
    dtype: torch.dtype  # of the matrices, and of the activations that meet them

    @property
    def step_bytes(self) -> int:
        """Of the matrices that each step reads: the embedding is only looked up in."""
        linears = [
            self.head,
            *(one for layer in self.layers for one in (layer.qkv, layer.o, layer.up, layer.down)),
        ]
        return sum(size_bytes(linear.weight) for linear in linears)


def compute_dtype(weights: Weights) -> torch.dtype:
    """What the layers' matrices are stored in."""
    return DTYPES[weights.layers[0]["q"].dtype]


def head_format(form: MatrixFormat) -> MatrixFormat:
    """The output head's, for it is the matrix whose errors show most."""
    return "q8" if form == "q4" else form


def load_weights(
    spec: ModelSpec,
    weights: Weights,
    device: torch.device,
    form: MatrixFormat = "stored",
    tied_rows: slice = slice(None),
) -> DeviceWeights:
    """All weights on the device, in that format; `tied_rows` are those of the embedding that a tied head has."""
    return _Loader(spec, device, compute_dtype(weights), form).load(weights, tied_rows)


class _Loader:
    def __init__(self, spec: ModelSpec, device: torch.device, dtype: torch.dtype, form: MatrixFormat) -> None:
        self._spec, self._device, self._dtype, self._form = spec, device, dtype, form
        self._buffers = StagingBuffers(pinned=device.type == "cuda")

    def load(self, weights: Weights, tied_rows: slice) -> DeviceWeights:
        outer = weights.outer
        embed = self._stacked(outer, ("embed",))
        head = self._stacked(outer, ("lm_head",)) if "lm_head" in outer else embed[tied_rows]
        loaded = DeviceWeights(
            embed=embed,
            layers=tuple(self._layer(slots) for slots in weights.layers),
            final_norm=self._norm(outer, "final_norm"),
            head=Linear(converted(head, head_format(self._form)), self._bias(outer, ("lm_head",), len(head))),
            dtype=self._dtype,
        )
        self._buffers.finish()
        return loaded

    def _layer(self, slots: Slots) -> Layer:
        return Layer(
            attn_norm=self._norm(slots, "attn_norm"),
            qkv=self._linear(slots, "q", "k", "v"),
            q_norm=self._norm(slots, "q_norm"),
            k_norm=self._norm(slots, "k_norm"),
            o=self._linear(slots, "o"),
            attn_post_norm=self._norm(slots, "attn_post_norm"),
            ffn_norm=self._norm(slots, "ffn_norm"),
            up=self._linear(slots, *(("gate", "up") if "gate" in slots else ("up",))),
            down=self._linear(slots, "down"),
            ffn_post_norm=self._norm(slots, "ffn_post_norm"),
        )

    def _norm(self, slots: Slots, slot: str) -> Norm | None:
        if slot not in slots:
            return None
        spec, bias = self._spec, slots.get(f"{slot}.bias")
        weight = self._vector(slots[slot], torch.float32)
        return Norm(
            spec.norm,
            spec.norm_eps,
            spec.norm_offset,
            weight,
            None if bias is None else self._vector(bias, torch.float32).view(weight.shape),
        )

    def _linear(self, slots: Slots, *names: str) -> Linear:
        stacked = self._stacked(slots, names)
        weight: Matrix = converted(stacked, self._form)
        return Linear(weight, self._bias(slots, names, len(stacked)))

    def _stacked(self, slots: Slots, names: tuple[str, ...]) -> Tensor:
        """The slots' matrices one under the other, (rows, columns)."""
        arrays = [slots[name].array for name in names]
        sizes = [int(np.prod(array.shape[:-1])) for array in arrays]
        target = torch.empty((sum(sizes), arrays[0].shape[-1]), dtype=self._dtype, device=self._device)
        for name, rows in zip(names, target.split(sizes), strict=True):
            self._upload(slots[name], rows)
        return target

    def _upload(self, tensor: StoredTensor, target: Tensor) -> None:
        """A matrix, or groups of rows that lie with gaps between them, into consecutive rows."""
        groups = tensor.array if tensor.array.ndim == 3 else tensor.array[None]
        for group, rows in zip(groups, target.split(groups.shape[1]), strict=True):
            self._buffers.move(group, DTYPES[tensor.dtype], rows)

    def _bias(self, slots: Slots, names: tuple[str, ...], n_rows: int) -> Tensor | None:
        """The slots' biases one after another, zeros for those that have none; None if none has."""
        if not any(f"{name}.bias" in slots for name in names):
            return None
        parts = [
            self._vector(slots[f"{name}.bias"], self._dtype)
            if f"{name}.bias" in slots
            else torch.zeros(
                int(np.prod(slots[name].array.shape[:-1])), dtype=self._dtype, device=self._device
            )
            for name in names
        ]
        return torch.cat(parts).view(n_rows)

    def _vector(self, tensor: StoredTensor, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(tensor.to_float32())).to(self._device, dtype)


class StagingBuffers:
    """Two host buffers in turn between a mapped file and a device."""

    def __init__(self, *, pinned: bool, size_bytes: int = _BUFFER_BYTES) -> None:
        self._size_bytes = size_bytes
        self._pinned = pinned
        self._buffers = [torch.empty(size_bytes, dtype=torch.uint8, pin_memory=pinned) for _ in range(2)]
        self._moved: list[Any] = [None, None]  # the event after each buffer's last move, where it is pinned
        self._next = 0

    def move(self, array: npt.NDArray[Any], dtype: torch.dtype, target: Tensor) -> None:
        """(rows, columns) with contiguous columns, whose bits are `dtype`'s, into `target` of the same shape."""
        n_rows = max(1, self._size_bytes // (array.shape[1] * array.itemsize))
        for begin in range(0, len(array), n_rows):
            self._move_piece(array[begin : begin + n_rows], dtype, target[begin : begin + n_rows])

    def finish(self) -> None:
        """Wait until everything has arrived."""
        for event in self._moved:
            if event is not None:
                event.synchronize()

    def _move_piece(self, piece: npt.NDArray[Any], dtype: torch.dtype, target: Tensor) -> None:
        index, self._next = self._next, 1 - self._next
        if self._moved[index] is not None:
            self._moved[index].synchronize()
        buffer = self._buffers[index][: piece.nbytes]
        np.copyto(buffer.numpy().view(piece.dtype).reshape(piece.shape), piece)
        target.copy_(buffer.view(dtype).view(target.shape), non_blocking=self._pinned)
        if self._pinned:
            self._moved[index] = torch.cuda.Event()
            self._moved[index].record()
