"""Torch engines as the laws' and goldens' tests want them; asking for one skips where torch is not installed."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from influence.engines.base import Engine
from influence.errors import InvalidParameter
from influence.models.binding import Weights
from influence.models.spec import ModelSpec

WHY_NOT = "needs torch: pip install 'influence[torch]'"

# On torch's CPU device: the plain path, what Metal would choose, and two processes. `make test-gpu` adds GPUs.
NAMES = (
    "torch-cpu",
    "torch-metal",
    "torch-2-ranks",
    *(("torch-gpu", "torch-2-gpus") if os.environ.get("INFLUENCE_TEST_GPU") else ()),
)
_ON_RANKS: dict[str, Any] = {"torch-2-ranks": "cpu", "torch-2-gpus": "cuda"}  # and on which devices


def make(name: str, spec: ModelSpec, weights: Weights) -> Engine:
    torch = pytest.importorskip("torch", reason=WHY_NOT)
    from influence.engines.torch import placement
    from influence.engines.torch.engine import TorchEngine

    torch.set_num_threads(1)
    if name in _ON_RANKS:
        return _on_ranks(torch, _ON_RANKS[name], spec, weights)
    where = {
        "torch-cpu": placement.on_cpu,
        "torch-metal": lambda: placement.on_metal(torch.device("cpu")),
        "torch-gpu": lambda: _gpu(torch, placement),
    }[name]()
    return TorchEngine(spec, weights, where, n_blocks=lambda: 16 * -(-spec.max_context // 64))


def can_run(name: str, spec: ModelSpec) -> bool:
    """Whether the engine of that name can run any weights of the spec: one head can't be shared out to two ranks."""
    if name not in _ON_RANKS:
        return True
    pytest.importorskip("torch", reason=WHY_NOT)
    from influence.engines.torch.parallel.cuts import cut

    try:
        cut(spec, 0, 2)
    except InvalidParameter:
        return False
    return True


def _on_ranks(torch: Any, kind: Any, spec: ModelSpec, weights: Weights) -> Engine:
    if kind == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    from influence.engines.torch.memory import Room
    from influence.engines.torch.parallel.engine import TeamEngine

    return TeamEngine(spec, weights, team_of(2, kind), Room(context=None, n_sessions=16))


@cache
def team_of(n_ranks: int, kind: Any = "cpu") -> Any:
    """Ranks, the same for all tests of a run: torch takes seconds to load."""
    from influence.engines.torch.parallel.commands import RankDevice
    from influence.engines.torch.parallel.team import Team

    team = Team([RankDevice(kind, rank) for rank in range(n_ranks)])
    atexit.register(team.close)
    return team


def _gpu(torch: Any, placement: Any) -> Any:
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = False
        return placement.on_cuda(0)
    if torch.backends.mps.is_available():
        return placement.on_metal()
    return pytest.fail("INFLUENCE_TEST_GPU is set, but torch finds no GPU")


def makers() -> dict[str, Callable[[ModelSpec, Weights], Engine]]:
    """By name, as functions of a spec and its weights."""

    def maker(name: str) -> Callable[[ModelSpec, Weights], Engine]:
        return lambda spec, weights: make(name, spec, weights)

    return {name: maker(name) for name in NAMES}
