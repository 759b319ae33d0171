"""Torch engines as the laws' and goldens' tests want them; asking for one skips where torch is not installed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from influence.engines.base import Engine
from influence.models.binding import Weights
from influence.models.spec import ModelSpec

WHY_NOT = "needs torch: pip install 'influence[torch]'"

# On torch's CPU device: the plain path, and what Metal would choose.
NAMES = ("torch-cpu", "torch-metal")


def make(name: str, spec: ModelSpec, weights: Weights) -> Engine:
    torch = pytest.importorskip("torch", reason=WHY_NOT)
    from influence.engines.torch import placement
    from influence.engines.torch.engine import TorchEngine

    torch.set_num_threads(1)
    where = placement.on_cpu() if name == "torch-cpu" else placement.on_metal(torch.device("cpu"))
    return TorchEngine(spec, weights, where, n_blocks=16 * -(-spec.max_context // 64))


def makers() -> dict[str, Callable[[ModelSpec, Weights], Engine]]:
    """By name, as functions of a spec and its weights."""

    def maker(name: str) -> Callable[[ModelSpec, Weights], Engine]:
        return lambda spec, weights: make(name, spec, weights)

    return {name: maker(name) for name in NAMES}
