"""How a device's memory is shared out."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from influence.engines.torch import devices, memory, placement
from influence.engines.torch.engine import block_bytes
from influence.engines.torch.memory import Room
from influence.errors import OutOfMemory
from influence.models.model import Model, open_model
from support.checkpoints import BY_NAME, make_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(make_checkpoint(next(iter(BY_NAME.values())), tmp_path_factory.mktemp("model")))


def per_block(model: Model) -> int:
    return block_bytes(model.spec, torch.float32)


@pytest.fixture
def fixed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose free memory nothing takes from: the weights are counted as if they were there before."""
    monkeypatch.setattr(memory, "free_bytes", lambda where: 1 << 40)


@pytest.mark.usefixtures("fixed_memory")
def test_the_cache_holds_what_the_sessions_need_or_what_memory_allows(model: Model) -> None:
    engine = devices.load_on(model, placement.on_cpu(), Room(context=128))
    assert engine.kv_pool.n_blocks == 2
    engine = devices.load_on(model, placement.on_cpu(), Room(context=128, n_sessions=8))
    assert engine.kv_pool.n_blocks == 16
    budget = memory.activation_bytes(model.spec) + 5 * per_block(model) + 1
    engine = devices.load_on(model, placement.on_cpu(), Room(context=128, n_sessions=8, memory_bytes=budget))
    assert engine.kv_pool.n_blocks == 5
    engine = devices.load_on(model, placement.on_cpu(), Room(context=128, kv_bytes=9 * per_block(model)))
    assert engine.kv_pool.n_blocks == 9


@pytest.mark.usefixtures("fixed_memory")
def test_what_does_not_fit_is_refused_with_the_numbers(model: Model) -> None:
    little = memory.activation_bytes(model.spec) + per_block(model)
    with pytest.raises(OutOfMemory, match="a KV cache of 128 positions"):
        devices.load_on(model, placement.on_cpu(), Room(128, memory_bytes=little))
    with pytest.raises(OutOfMemory, match="a KV cache of 640 positions"):
        room = Room(64, kv_bytes=10 * per_block(model), memory_bytes=little)
        devices.load_on(model, placement.on_cpu(), room)
    with pytest.raises(OutOfMemory, match="the model on cpu") as caught:
        devices.load_on(model, placement.on_cpu(), Room(64, memory_bytes=1000))
    assert "--gpu-memory" in caught.value.hint
