"""What torch says of this machine's GPUs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from influence.engines import gpus, select
from influence.engines.torch import devices, placement
from influence.engines.torch.memory import Room
from influence.errors import DeviceUnavailable
from influence.models.model import Model, open_model
from support.checkpoints import BY_NAME, make_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(make_checkpoint(next(iter(BY_NAME.values())), tmp_path_factory.mktemp("model")))


def cuda_build(monkeypatch: pytest.MonkeyPatch, n_devices: int) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)


def test_a_torch_for_the_cpu_alone_is_the_wrong_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    reason, hint = devices.problem("cuda", 0)
    assert torch.__version__ in reason and "for the CPU alone" in reason and "torch for CUDA" in hint


def test_a_driver_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_build(monkeypatch, 0)
    monkeypatch.setattr(gpus, "cuda_trace", lambda: "/dev/nvidia0")
    found = gpus.problem_of("cuda")
    assert found.reason == "a GPU is here (/dev/nvidia0), but torch found no driver that works, or no GPU"
    assert "nvidia-smi" in found.hint


def test_an_index_out_of_range_is_told_with_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_build(monkeypatch, 2)
    assert devices.problem("cuda", 1) == ("", "")
    reason, hint = devices.problem("cuda", 2)
    assert reason == "there is no GPU number 2" and "2 GPUs, numbers 0 to 1" in hint


def test_ranks_need_a_gpu_each_and_what_they_meet_by(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_build(monkeypatch, 4)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    assert devices.ranks_problem(0, 4) == devices.ranks_problem(2, 2) == ("", "")
    reason, hint = devices.ranks_problem(2, 3)
    assert reason == "3 GPUs from number 2 on were asked for" and "there are 4 GPUs, numbers 0 to 3" in hint
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    assert "has no NCCL" in devices.ranks_problem(0, 2)[0]


def test_more_gpus_than_there_are_are_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_build(monkeypatch, 2)
    with pytest.raises(DeviceUnavailable, match="3 GPUs from number 0 on were asked for"):
        select.load_engine(model, "cuda", tensor_parallel=3)


def test_metal_is_asked_for_its_build_its_gpu_and_its_only_number(monkeypatch: pytest.MonkeyPatch) -> None:
    mps = torch.backends.mps
    monkeypatch.setattr(mps, "is_built", lambda: False)
    assert "built without Metal" in devices.problem("metal", 0)[0]
    monkeypatch.setattr(mps, "is_built", lambda: True)
    monkeypatch.setattr(mps, "is_available", lambda: False)
    assert "no Metal GPU" in devices.problem("metal", 0)[0]
    monkeypatch.setattr(mps, "is_available", lambda: True)
    assert devices.problem("metal", 0) == ("", "")
    assert "no GPU number 1" in devices.problem("metal", 1)[0]


def test_a_loaded_model_says_where_it_runs(model: Model) -> None:
    engine = devices.load_on(model, placement.on_cpu(), Room(64), form="q8")
    assert engine.description == "torch cpu, q8 weights"
