"""Which engine a device gets, and why not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from influence.engines import gpus, machine, native, select
from influence.engines.estimate import activation_bytes
from influence.errors import DeviceUnavailable, InvalidParameter, OutOfMemory
from influence.models.model import Model, open_model
from support.checkpoints import BY_NAME, make_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(make_checkpoint(next(iter(BY_NAME.values())), tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_cpu_has_the_native_engine(model: Model, device: select.Device) -> None:
    engine = select.load_engine(model, device, context=64)
    assert engine.description == select.devices()[0].description
    assert engine.kv_pool.n_blocks * engine.kv_pool.block_size == 64
    engine.close()


def test_the_kv_cache_holds_the_context_that_was_asked_for(model: Model) -> None:
    context = min(100, model.spec.max_context)
    engine = select.load_engine(model, context=context)
    pool = engine.kv_pool
    assert context <= pool.n_blocks * pool.block_size < context + pool.block_size
    assert pool.block_bytes == select.kv_bytes_per_token(model) * pool.block_size
    engine.close()


def test_threads_and_kernels_are_handed_on(model: Model) -> None:
    engine = select.load_engine(model, threads=1, kernels="generic", context=64)
    assert engine.description == "native generic, 1 thread"
    engine.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"device_index": 1},
        {"context": 0},
        {"context": 1 << 40},
        {"kernels": "abacus"},
        {"threads": 0},
        {"tensor_parallel": 2},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_named(model: Model, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        select.load_engine(model, **wrong)
    assert [caught.value.name] == list(wrong)


@pytest.fixture
def no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "cuda_trace", lambda: "")
    monkeypatch.setattr(gpus, "metal_trace", lambda: "")


@pytest.mark.usefixtures("no_traces")
@pytest.mark.parametrize("device", ["cuda", "metal"])
def test_without_torch_a_gpu_is_refused_with_how_to_get_it(
    model: Model, device: gpus.GpuName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "has_torch", lambda: False)
    with pytest.raises(DeviceUnavailable, match="no such GPU was seen, and torch is not installed") as caught:
        select.load_engine(model, device)
    assert "pip install 'influence[torch]'" in caught.value.hint
    monkeypatch.setattr(gpus, f"{device}_trace", lambda: "/dev/gpu7")
    with pytest.raises(DeviceUnavailable, match=r"a GPU is here \(/dev/gpu7\), but torch is not installed"):
        select.load_engine(model, device)


@pytest.mark.usefixtures("no_traces")
def test_every_device_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "has_torch", lambda: False)
    monkeypatch.setattr(gpus, "cuda_trace", lambda: "/dev/nvidia0")
    reports = {report.name: report for report in select.devices()}
    assert list(reports) == ["cpu", "metal", "cuda"]
    assert reports["cpu"].available and not reports["cpu"].reason
    assert not reports["cuda"].available
    for part in ("/dev/nvidia0", "torch is not installed", "pip install 'influence[torch]'"):
        assert part in reports["cuda"].reason


@pytest.mark.usefixtures("no_traces")
def test_auto_takes_cuda_then_metal_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "problem_of", lambda name, index=0: gpus.Problem())
    assert select.device_for("auto") == "cpu"
    monkeypatch.setattr(gpus, "metal_trace", lambda: "Apple silicon")
    assert (select.device_for("auto"), select.why_cpu()) == ("metal", "")
    monkeypatch.setattr(gpus, "cuda_trace", lambda: "/dev/nvidia0")
    assert select.device_for("auto") == "cuda"
    monkeypatch.setattr(gpus, "problem_of", lambda name, index=0: gpus.Problem("it is broken", "mend it"))
    assert (select.device_for("auto"), select.why_cpu()) == ("cpu", "it is broken (mend it)")


@pytest.mark.usefixtures("no_traces")
def test_a_machine_without_a_gpu_is_never_asked_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "problem_of", None)
    assert select.device_for("auto") == "cpu"


def test_running_a_model_on_the_cpu_loads_no_torch() -> None:
    code = (
        "import sys; from influence import demo; from influence.engines import select;"
        "from influence.models.model import open_model;"
        "select.load_engine(open_model(demo.folder()), 'cpu', context=64); select.gpu_trace();"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_driver_s_traces_show_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus, "_CUDA_TRACES", (str(tmp_path / "nvidia0"),))
    assert gpus.cuda_trace() == ""
    (tmp_path / "nvidia0").touch()
    assert gpus.cuda_trace() == str(tmp_path / "nvidia0")


def test_a_driver_s_program_shows_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'nowhere'}:{tmp_path}")
    monkeypatch.setattr(gpus, "_CUDA_TRACES", ())
    program = tmp_path / "nvidia-smi"
    program.touch()
    assert gpus.cuda_trace() == ""
    program.chmod(0o755)
    assert gpus.cuda_trace() == str(program)


def test_too_little_memory_is_refused_before_the_engine_is_made(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 1 << 10)
    monkeypatch.setattr(native, "load", None)  # would fail differently
    with pytest.raises(OutOfMemory, match="a context of 64 positions"):
        select.load_engine(model, context=64)


def test_a_kv_cache_of_a_given_size_is_shared_by_all_sessions(model: Model) -> None:
    block = select.session_kv_bytes(model, 1)
    engine = select.load_engine(model, context=64, kv_bytes=10 * block + 1)
    assert engine.kv_pool.n_blocks == 10
    engine.close()


@pytest.mark.parametrize(
    ("kv_bytes", "context", "what"),
    [
        (1, None, "a context of 64 positions"),
        (1, 64, "a context of 64"),
        (1 << 60, 64, "a KV cache of that"),
    ],
)
def test_a_kv_cache_too_small_or_too_large_is_refused(
    model: Model, kv_bytes: int, context: int | None, what: str
) -> None:
    with pytest.raises(OutOfMemory, match=what):
        select.load_engine(model, context=context, kv_bytes=kv_bytes)


def test_a_server_s_kv_cache_is_what_its_sessions_need_within_a_share_of_the_memory(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = select.session_kv_bytes(model, 128)
    assert select.shared_kv_bytes(model, 4, 128) == 4 * one
    beside = model.weights.size_bytes + activation_bytes(model.spec)
    monkeypatch.setattr(machine, "available_memory", lambda: beside + 10 * one)
    assert select.shared_kv_bytes(model, 4, 128) == 4 * one
    assert select.shared_kv_bytes(model, 100, 128) == 6 * one
    monkeypatch.setattr(machine, "available_memory", lambda: beside // 2)
    assert select.shared_kv_bytes(model, 100, 128) == one
    assert select.shared_kv_bytes(model, 100) == select.session_kv_bytes(model, 1)


def test_an_engine_for_many_sessions_has_a_cache_for_them(model: Model) -> None:
    engine = select.load_engine(model, "cpu", context=128, n_sessions=3)
    assert engine.kv_pool.n_blocks == 6
    engine.close()


def test_a_native_core_that_cannot_be_loaded_is_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("influence.engines.native")
    monkeypatch.setitem(sys.modules, "influence.engines.native", None)
    [cpu, *_] = select.devices()
    assert not cpu.available and "can't be loaded" in cpu.reason
    with pytest.raises(DeviceUnavailable, match="can't be loaded"):
        select.load_engine(model, "cpu")


@pytest.mark.parametrize("choice", [{"threads": 2}, {"kernels": "generic"}, {"kv_type": "q8"}])
def test_a_choice_for_the_cpu_is_refused_where_a_gpu_was_taken(
    model: Model, choice: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "device_for", lambda device, index: "cuda")
    with pytest.raises(InvalidParameter, match=r"left out on cuda.*--device cpu"):
        select.load_engine(model, "auto", **choice)
