"""What differs between devices, decided in one place: everything above reads these choices and no device's name.

cuda     kernels where Triton is, the decode step as one graph, pinned host memory
metal    plain ops; tokens are chosen on the host, for the device has no float64
cpu      plain ops, eager: for tests
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from influence.engines.torch.ops import PLAIN, Ops
from influence.engines.torch.parallel.group import ALONE, Group
from torch import Tensor

Run = Callable[[], None]

# Tokens of a step. A Hopper GPU reads its weights in the time of some 300 tokens' arithmetic, so that with
# 2048 less than a sixth is lost to reading; a 7B model takes 50 ms for them. Apple's read them in that of 50 to 100.
_CUDA_TOKENS = 2048
_METAL_TOKENS = 512


def run_eagerly(step: Run) -> Run:
    """The stand-in for a graph where there is none: the step itself, over the same buffers."""
    return step


def captured(step: Run, pool: Any = None) -> Run:
    """The step as a CUDA graph: one launch, whatever it is made of. Runs it twice to begin with.

    Graphs of one `pool` share the memory that their steps take on the way: they
    never run at once, and what comes of a step is copied to a place of its own.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what allocates or compiles on first use must not be captured
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # On the stream that libraries have their workspaces for; other threads may go on with what they do.
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        step()
    replay: Run = graph.replay
    return replay


@dataclass(frozen=True, slots=True)
class Arrival:
    """Host memory that a copy is on its way to."""

    tensor: Tensor
    event: Any = None  # None: it is there

    def wait(self) -> Tensor:
        if self.event is not None:
            self.event.synchronize()
        return self.tensor


@dataclass(frozen=True, slots=True)
class Placement:
    """A device and how to use it."""

    name: str  # for people: "cuda:0 (NVIDIA H100), triton kernels"
    device: torch.device
    ops: Ops = PLAIN
    graph: Callable[[Run], Run] = run_eagerly
    pins_memory: bool = False  # host memory that copies to and from the device overlap with
    samples_on_device: bool = True
    tokens_per_step: int = 256  # as `Engine.tokens_per_step`
    group: Group = ALONE  # the ranks that run the model together, of which this is one

    def take(self) -> None:
        """What this thread launches goes to this device from now on; each thread has one of its own, at first the first."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def to_device(self, host: Tensor) -> Tensor:
        if self.pins_memory:
            return host.pin_memory().to(self.device, non_blocking=True)
        return host.to(self.device)

    def to_host(self, tensor: Tensor) -> Arrival:
        """A copy that goes on while the device computes what comes after."""
        if not self.pins_memory:
            return Arrival(tensor.to("cpu", copy=True))
        target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        target.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return Arrival(target, event)


def on_cpu() -> Placement:
    return Placement("cpu", torch.device("cpu"))


def on_metal(device: torch.device | None = None) -> Placement:
    """`device` stands in for the GPU in tests."""
    return Placement(
        "metal", device or torch.device("mps"), samples_on_device=False, tokens_per_step=_METAL_TOKENS
    )


def on_cuda(index: int) -> Placement:
    device, ops = torch.device("cuda", index), cuda_ops()
    name = f"cuda:{index} ({torch.cuda.get_device_name(index)}), {ops.name} kernels"
    torch.cuda.set_device(device)
    graph = partial(captured, pool=torch.cuda.graph_pool_handle())
    return Placement(name, device, ops, graph, pins_memory=True, tokens_per_step=_CUDA_TOKENS)


def cuda_ops() -> Ops:
    """Triton's kernels where Triton is installed; it comes with torch on Linux, but not everywhere."""
    try:
        from influence.engines.torch.triton.table import TRITON
    except ImportError:
        return PLAIN
    return TRITON
