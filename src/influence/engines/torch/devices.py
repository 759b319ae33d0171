"""torch's own view of this machine's GPUs, and a model on one of them."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
import torch.distributed as dist
from influence.engines.torch import placement
from influence.engines.torch.engine import TorchEngine
from influence.engines.torch.memory import Room, blocks_within
from influence.engines.torch.parallel.commands import RankDevice
from influence.engines.torch.parallel.engine import load_on_ranks
from influence.engines.torch.placement import Placement
from influence.engines.torch.quantize import MatrixFormat
from influence.models.model import Model

GpuName = Literal["cuda", "metal"]


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
    return f"there is no GPU number {index}", f"there {_there(n_devices)}: give --device-index"


def _there(n_devices: int) -> str:
    return "is one GPU, number 0" if n_devices == 1 else f"are {n_devices} GPUs, numbers 0 to {n_devices - 1}"


def ranks_problem(index: int, n_ranks: int) -> tuple[str, str]:
    """Why `n_ranks` CUDA devices from `index` on can't share a model, and what to do; two empty texts if they can."""
    n_devices = torch.cuda.device_count()
    if index + n_ranks > n_devices:
        reason = f"{n_ranks} GPUs from number {index} on were asked for"
        return reason, f"there {_there(n_devices)}: give a smaller --tensor-parallel or --device-index"
    if not (dist.is_available() and dist.is_nccl_available()):
        return f"this torch ({torch.__version__}) has no NCCL", "leave --tensor-parallel out"
    return "", ""


def load(
    model: Model, name: GpuName, index: int, room: Room, form: MatrixFormat, n_ranks: int = 1
) -> TorchEngine:
    """The model on a GPU that is usable, or on several from that number on; raises OutOfMemory, and what those raise."""
    if n_ranks > 1:
        return load_on_ranks(model, [RankDevice("cuda", index + rank) for rank in range(n_ranks)], room, form)
    where = placement.on_cuda(index) if name == "cuda" else placement.on_metal()
    return load_on(model, where, room, form)


def load_on(model: Model, where: Placement, room: Room, form: MatrixFormat = "stored") -> TorchEngine:
    """The model on a device, within that room of it. Raises OutOfMemory as `blocks_within` does."""
    n_blocks = blocks_within(room, model.spec, model.weights, where, form)
    return TorchEngine(model.spec, model.weights, where, n_blocks=n_blocks, form=form)
