"""torch's own view of this machine's GPUs, and a model on one of them."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from influence.engines import machine
from influence.engines.paging import BLOCK_SIZE
from influence.engines.torch import placement
from influence.engines.torch.batching import PASS_TOKENS
from influence.engines.torch.engine import TorchEngine, block_bytes
from influence.engines.torch.placement import Placement
from influence.engines.torch.quantize import MatrixFormat
from influence.engines.torch.weights import compute_dtype
from influence.errors import OutOfMemory
from influence.models.model import Model
from influence.models.spec import ModelSpec

GpuName = Literal["cuda", "metal"]

# Of the memory that is free, what weights, cache and activations may take if the user sets no bound.
_SHARE = 0.9
_LOGIT_ROWS = 64  # of a step that activations are counted for


def problem(name: GpuName, index: int) -> tuple[str, str]:
    """Why torch can't use that GPU, and what to do; two empty texts if it can."""
    return _cuda_problem(index) if name == "cuda" else _metal_problem(index)


def describe(name: GpuName, index: int) -> str:
    """A usable GPU for people: "cuda:0 (NVIDIA H100 80GB HBM3)"."""
    return f"cuda:{index} ({torch.cuda.get_device_name(index)})" if name == "cuda" else "metal"


def _cuda_problem(index: int) -> tuple[str, str]:
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        reason = f"this torch ({torch.__version__}) was built for the CPU alone"
        return reason, "install a torch for CUDA: https://pytorch.org/get-started/locally"
    with warnings.catch_warnings():  # torch warns where a driver is missing or too old, which is said below
        warnings.simplefilter("ignore")
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if n_devices == 0:
        return "torch found no driver that works, or no GPU", "see whether `nvidia-smi` lists the GPU"
    if index >= n_devices:
        return _out_of_range(index, n_devices)
    return "", ""


def _metal_problem(index: int) -> tuple[str, str]:
    if not torch.backends.mps.is_built():
        return f"this torch ({torch.__version__}) was built without Metal", "install torch for macOS"
    if not torch.backends.mps.is_available():
        return "torch finds no Metal GPU", "macOS 14 or newer on Apple silicon is needed"
    return ("", "") if index == 0 else _out_of_range(index, 1)


def _out_of_range(index: int, n_devices: int) -> tuple[str, str]:
    there = "one GPU, number 0" if n_devices == 1 else f"{n_devices} GPUs, numbers 0 to {n_devices - 1}"
    return f"there is no GPU number {index}", f"there is {there}: give --device-index"


def load(
    model: Model,
    name: GpuName,
    index: int,
    *,
    context: int | None,
    n_sessions: int,
    kv_bytes: int | None,
    memory_bytes: int | None,
    form: MatrixFormat,
) -> TorchEngine:
    """The model on a GPU that is usable; what the memory is for says `load_on`."""
    where = placement.on_cuda(index) if name == "cuda" else placement.on_metal()
    return load_on(
        model,
        where,
        context=context,
        n_sessions=n_sessions,
        kv_bytes=kv_bytes,
        memory_bytes=memory_bytes,
        form=form,
    )


def load_on(
    model: Model,
    where: Placement,
    *,
    context: int | None,
    n_sessions: int = 1,
    kv_bytes: int | None = None,
    memory_bytes: int | None = None,
    form: MatrixFormat = "stored",
) -> TorchEngine:
    """The model on a device, within `memory_bytes` of it (by default nine tenths of what is free).

    Beside weights and activations the cache takes `kv_bytes`, or room for
    `n_sessions` of `context` as far as memory goes. Raises OutOfMemory if the
    weights, the cache asked for, or one chosen context don't fit.
    """
    free = free_bytes(where)
    budget = int(free * _SHARE) if memory_bytes is None else memory_bytes
    if form == "stored" and model.weights.size_bytes > budget:
        raise OutOfMemory(f"the model on {where.name}", model.weights.size_bytes, budget, hint=_HINT)

    def n_blocks() -> int:
        left = budget - (free - free_bytes(where)) - activation_bytes(model.spec)
        return _n_blocks(model, context, n_sessions, kv_bytes, left)

    return TorchEngine(model.spec, model.weights, where, n_blocks=n_blocks, form=form)


_HINT = "give --weights q8 or q4, a larger --gpu-memory, or a smaller model"


def _n_blocks(model: Model, context: int | None, n_sessions: int, kv_bytes: int | None, left: int) -> int:
    """Blocks for the cache out of `left` bytes."""
    per_block = block_bytes(model.spec, compute_dtype(model.weights))
    one_session = -(-(context or model.spec.max_context) // BLOCK_SIZE)
    least = 1 if context is None else one_session
    wanted = n_sessions * one_session if kv_bytes is None else kv_bytes // per_block
    n = min(wanted, max(0, left) // per_block)
    if n < least or (kv_bytes is not None and n < wanted):
        needed = max(least, wanted if kv_bytes is not None else 0)
        raise OutOfMemory(f"a KV cache of {needed * BLOCK_SIZE} positions", needed * per_block, max(0, left))
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
