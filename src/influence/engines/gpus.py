"""Whether a GPU can run a model here, and if not, why: asked in the order that costs least.

A driver's traces are files; whether torch is installed is a look at the
folders; only what is left needs torch itself, which takes seconds to load. So
nothing on a machine without a GPU ever loads it unasked.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from typing import Literal

from influence.dataclass import dataclass

GpuName = Literal["cuda", "metal"]
GPUS: tuple[GpuName, ...] = ("cuda", "metal")  # in the order in which `auto` looks for them

# What a driver leaves behind where there is a GPU that CUDA (or ROCm) can reach.
_CUDA_TRACES = ("/dev/nvidia0", "/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/kfd", "/dev/dxg")

HOW_TO_GET_TORCH = "pip install 'influence[torch]'"


@dataclass(frozen=True)
class Problem:
    """Why a GPU can't be used, and what to do; "" and "" if it can."""

    reason: str = ""
    hint: str = ""

    def __bool__(self) -> bool:
        return bool(self.reason)


def trace_of(name: GpuName) -> str:
    """What shows that such a GPU is here, or nothing."""
    return cuda_trace() if name == "cuda" else metal_trace()


def cuda_trace() -> str:
    """What shows that a GPU for CUDA is here (a path), or nothing. Asks no driver."""
    for path in _CUDA_TRACES:
        if os.path.exists(path):  # noqa: PTH110 - a device node, not a file to open
            return path
    return _on_the_path("nvidia-smi")


def _on_the_path(program: str) -> str:
    """Where a program lies that a shell would find, or nothing."""
    paths = (os.path.join(folder, program) for folder in os.get_exec_path())  # noqa: PTH118
    return next((path for path in paths if os.access(path, os.X_OK)), "")


def metal_trace() -> str:
    """What shows that a GPU for Metal is here, or nothing."""
    return "Apple silicon" if sys.platform == "darwin" and platform.machine() == "arm64" else ""


def has_torch() -> bool:
    """Whether torch is installed; does not load it."""
    return importlib.util.find_spec("torch") is not None


def problem_of(name: GpuName, index: int = 0) -> Problem:
    """Why that GPU can't be used. Loads torch if it is installed."""
    if not has_torch():
        return _told(name, Problem("torch is not installed", HOW_TO_GET_TORCH))
    try:
        from influence.engines.torch import devices
    except (ImportError, OSError) as error:
        return _told(
            name, Problem(f"torch can't be loaded ({error})", f"install it again: {HOW_TO_GET_TORCH}")
        )
    return _told(name, Problem(*devices.problem(name, index)))


def _told(name: GpuName, problem: Problem) -> Problem:
    """The problem after what can be seen of the hardware."""
    if not problem:
        return problem
    trace = trace_of(name)
    seen = f"a GPU is here ({trace}), but" if trace else "no such GPU was seen, and"
    return Problem(f"{seen} {problem.reason}", problem.hint)
