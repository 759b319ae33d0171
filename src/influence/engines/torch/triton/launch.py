"""What a launch depends on beside its tensors: the device, and whether the interpreter runs it.

`TRITON_INTERPRET=1`, set before Triton is imported, runs every kernel as numpy
on CPU tensors: slow, and how CI knows that the arithmetic is right.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from influence.engines.torch.triton import formats
from torch import Tensor

INTERPRETED = formats.INTERPRETED.value

# Row tiles of a launch at most; each has a counter of the programs that arrived.
MAX_TILES = 1 << 16


@cache
def multiprocessors(device: torch.device) -> int:
    """Of the GPU; the interpreter runs programs one by one, so it gets few."""
    if device.type != "cuda":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@cache
def overlaps(device: torch.device) -> bool:
    """Whether a kernel may begin while the one before it ends: programmatic dependent launch, from Hopper on."""
    return device.type == "cuda" and bool(torch.cuda.get_device_capability(device) >= (9, 0))


def options(
    device: torch.device, n_warps: int = 4, n_stages: int = 3, *, waits: bool = False
) -> dict[str, Any]:
    """The keyword arguments of a launch that say how, not what. The interpreter takes none.

    `waits`: it begins when the kernel before it has ended, on every device.
    """
    if INTERPRETED:
        return {}
    return {
        "num_warps": n_warps,
        "num_stages": n_stages,
        "launch_pdl": overlaps(device) and not waits,
        "enable_fp_fusion": True,  # a multiplication and an addition are one FMA
    }


@cache
def arrivals(device: torch.device) -> Tensor:
    """A counter for each tile of outputs that several programs share; zero between launches.

    Kernels on one stream may use the same ones: each leaves them at zero, and
    none touches them before the kernel before it has ended.
    """
    return torch.zeros(MAX_TILES, dtype=torch.int32, device=device)
