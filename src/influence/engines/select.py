"""Which engine runs a model on which device.

    cpu      native: our C++ core
    cuda     torch, if it is installed and finds a driver (`gpus.py` says why not)
    metal    torch, likewise

`auto` takes CUDA, then Metal, then the CPU. A device that the user names is
used or refused with the reason, never replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from influence.dataclass import dataclass
from influence.engines import gpus, machine
from influence.engines.base import Engine, KvType
from influence.engines.estimate import activation_bytes
from influence.errors import DeviceUnavailable, InvalidParameter, OutOfMemory
from influence.models.model import Model
from influence.models.spec import ModelSpec

if TYPE_CHECKING:
    from influence.engines.packing import WeightFormat

Device = Literal["auto", "cpu", "metal", "cuda"]

# Of the memory beside the weights, what the sessions of a server may fill; the rest is the system's.
_KV_SHARE = 0.6


@dataclass(frozen=True)
class DeviceReport:
    """One device: whether a model can run on it here, and why not."""

    name: Literal["cpu", "metal", "cuda"]
    available: bool
    reason: str  # why it can't be used; empty if it can
    description: str  # the engine that it would use; empty if none


def devices() -> list[DeviceReport]:
    """Every device that influence has a name for."""
    return [_cpu(), _gpu("metal"), _gpu("cuda")]


def device_for(device: Device, device_index: int = 0) -> Literal["cpu", "metal", "cuda"]:
    """What runs a model under that name: itself, or for `auto` the best that is there.

    Looks for a GPU by its traces first, so that torch is loaded only where
    there is one, or where it was asked for. Raises DeviceUnavailable, and
    InvalidParameter for the index of a CPU.
    """
    if device in ("cuda", "metal"):
        _require_gpu(device, device_index)
        return device
    if device == "auto":
        for name in gpus.GPUS:
            if gpus.trace_of(name) and not gpus.problem_of(name, device_index):
                return name
    _require_cpu(device_index)
    return "cpu"


def why_cpu() -> str:
    """Why `auto` took the CPU though there are traces of a GPU; nothing where there are none."""
    for name in gpus.GPUS:
        problem = gpus.problem_of(name) if gpus.trace_of(name) else gpus.Problem()
        if problem:
            hint = f" ({problem.hint})" if problem.hint else ""
            return f"{problem.reason}{hint}"
    return ""


def gpu_trace() -> str:
    """What shows that a GPU is here, or nothing."""
    return next((trace for trace in map(gpus.trace_of, gpus.GPUS) if trace), "")


def load_engine(
    model: Model,
    device: Device = "auto",
    *,
    device_index: int = 0,
    tensor_parallel: int = 1,
    threads: int | None = None,
    kernels: str | None = None,
    context: int | None = None,
    kv_bytes: int | None = None,
    n_sessions: int = 1,
    gpu_memory: int | None = None,
    kv_type: KvType | None = None,
    weights: WeightFormat = "stored",
    packed_folder: Path | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Engine:
    """The model on a device, ready for sessions of `context` positions (None: the model's own limit).

    `kv_bytes` is the size of the KV cache, which all sessions share; without
    it, it holds `n_sessions` of `context`, if more than one as far as memory
    goes. `weights` other than "stored" are made at load; on the CPU they are
    kept in `packed_folder` if there is one; `on_note` is told if that fails, and
    which stay as they are stored. `kv_type` is how the CPU keeps keys and values, by default in 16 bits
    or as wide as the weights. `gpu_memory` bounds what a GPU gives, in bytes.
    `tensor_parallel` is how many GPUs share the model, from `device_index` on;
    `gpu_memory` and `kv_bytes` are then each one's.

    Raises DeviceUnavailable, InvalidParameter (device_index, tensor_parallel,
    threads, kernels, kv_type, context) and OutOfMemory, all before memory is
    taken, and RankFailed.
    """
    taken = device_for(device, device_index)
    _require_ranks(taken, device_index, tensor_parallel)
    n_positions = _checked_context(model.spec, context)
    if taken != "cpu":
        _refuse_cpu_choices(taken, threads=threads, kernels=kernels, kv_type=kv_type)
        from influence.engines.torch import devices as torch_devices
        from influence.engines.torch.memory import Room

        room = Room(context, n_sessions, kv_bytes, gpu_memory)
        return torch_devices.load(model, taken, device_index, room, weights, tensor_parallel)
    if kv_bytes is None and n_sessions > 1:
        kv_bytes = shared_kv_bytes(model, n_sessions, context, kv_type)
    kv_bytes = _checked_kv_bytes(model, context, n_positions, kv_bytes, kv_type)
    return _load_native(model, threads, kernels, kv_bytes, kv_type, weights, packed_folder, on_note)


def _checked_kv_bytes(
    model: Model, context: int | None, n_positions: int, kv_bytes: int | None, kv_type: KvType | None
) -> int:
    """The size of the native engine's cache; raises OutOfMemory."""
    if kv_bytes is None:
        one_session = session_kv_bytes(model, n_positions, kv_type)
        _require_memory(f"a context of {n_positions} positions", one_session + activation_bytes(model.spec))
        return one_session
    _require_positions(model, context, kv_bytes, kv_type)
    _require_memory("a KV cache of that size", kv_bytes + activation_bytes(model.spec))
    return kv_bytes


def _refuse_cpu_choices(taken: gpus.GpuName, **choices: object) -> None:
    """What shapes the CPU's engine alone is not dropped in silence where a GPU runs the model."""
    for name, value in choices.items():
        if value is not None:
            raise InvalidParameter(
                name, value, f"left out on {taken}: it is the CPU engine's; or add --device cpu"
            )


def _load_native(
    model: Model,
    threads: int | None,
    kernels: str | None,
    kv_bytes: int,
    kv_type: KvType | None,
    weights: WeightFormat,
    packed_folder: Path | None,
    on_note: Callable[[str], None],
) -> Engine:
    from influence.engines import native

    packed = None
    if weights != "stored":
        from influence.engines import packing

        packed = packing.pack_weights(
            model.weights,
            weights,
            folder=packed_folder,
            fingerprint=model.checkpoint.fingerprint(),
            kernels=native.checked_kernels(kernels),
            threads=native.checked_threads(threads),
        )
        if packed.note:
            on_note(packed.note)
    return native.load(
        model.spec,
        model.weights,
        threads=threads,
        kernels=kernels,
        kv_bytes=kv_bytes,
        kv_type=kv_type,
        mapped_files=model.checkpoint.mapped_files(),
        packed=packed,
    )


def read_ahead(model: Model, device: Device, device_index: int, weights: WeightFormat) -> object | None:
    """Begins to bring the weights in, if `load_engine` will use them where they lie and memory holds them all.

    That ends when it is done, or when what is returned is dropped. Raises as `device_for` does.
    """
    is_mapped = device_for(device, device_index) == "cpu" and weights == "stored"
    if not is_mapped or model.weights.size_bytes > machine.available_memory():
        return None
    from influence.engines import native

    return native.read_ahead(model.weights)


def weights_size(model: Model, weights: WeightFormat) -> int:
    """Bytes of the weights that a step reads, in that format."""
    if weights == "stored":
        return model.weights.size_bytes
    from influence.engines import packing

    return packing.packed_size(model.weights, weights)


def kv_bytes_per_token(model: Model) -> int:
    """What one position takes in the KV cache, over all layers."""
    from influence.engines import native

    return native.kv_block_bytes(model.spec, model.weights) // native.BLOCK_SIZE


def session_kv_bytes(model: Model, n_positions: int, kv_type: KvType | None = None) -> int:
    """What one session of so many positions takes in the KV cache, in whole blocks."""
    from influence.engines import native

    n_blocks = -(-n_positions // native.BLOCK_SIZE)
    return n_blocks * native.kv_block_bytes(model.spec, model.weights, kv_type)


def shared_kv_bytes(
    model: Model, n_sessions: int, context: int | None = None, kv_type: KvType | None = None
) -> int:
    """A KV cache for many sessions at once: what `n_sessions` full contexts take, as far as memory allows.

    That is a share of what is left beside the weights, which must stay in
    memory to be of use. A context that was chosen has room at least once, so
    that `load_engine` refuses it if it does not fit; without one a cache
    smaller than the model's own limit makes that the limit.
    """
    full_context = session_kv_bytes(model, _checked_context(model.spec, context), kv_type)
    least = session_kv_bytes(model, 1, kv_type) if context is None else full_context
    beside = machine.available_memory() - model.weights.size_bytes - activation_bytes(model.spec)
    return max(least, min(n_sessions * full_context, int(beside * _KV_SHARE)))


def cpu_kernels() -> tuple[str, ...]:
    """Names of the kernel tables that this CPU runs, the one that is chosen first."""
    from influence.engines import native

    return tuple(native.kernel_names())


def _cpu() -> DeviceReport:
    problem = _native_problem()
    if problem:
        return DeviceReport("cpu", False, problem, "")
    n_threads = machine.usable_cores()
    threads = "1 thread" if n_threads == 1 else f"{n_threads} threads"
    return DeviceReport("cpu", True, "", f"native {cpu_kernels()[0]}, {threads}")


def _native_problem() -> str:
    """Why the native engine can't be used, or nothing."""
    try:
        import influence.engines.native  # noqa: F401 - whether it loads is the question
    except ImportError as error:
        return f"the native core can't be loaded ({error})"
    return ""


def _gpu(name: gpus.GpuName) -> DeviceReport:
    problem = gpus.problem_of(name)
    if problem:
        hint = f"; {problem.hint}" if problem.hint else ""
        return DeviceReport(name, False, f"{problem.reason}{hint}", "")
    from influence.engines.torch import devices as torch_devices

    return DeviceReport(name, True, "", f"torch {torch_devices.describe(name, 0)}")


def _require_gpu(name: gpus.GpuName, device_index: int) -> None:
    problem = gpus.problem_of(name, device_index)
    if problem:
        hint = f"{problem.hint}; or use --device cpu" if problem.hint else ""
        raise DeviceUnavailable(name, problem.reason, hint=hint)


def _require_ranks(taken: str, device_index: int, n_ranks: int) -> None:
    """Only CUDA devices share a model, and all of them must be there."""
    if n_ranks == 1:
        return
    if taken != "cuda":
        raise InvalidParameter("tensor_parallel", n_ranks, f"1 on {taken}: only CUDA devices share a model")
    from influence.engines.torch import devices as torch_devices

    reason, hint = torch_devices.ranks_problem(device_index, n_ranks)
    if reason:
        raise DeviceUnavailable(taken, reason, hint=hint)


def _require_cpu(device_index: int) -> None:
    if device_index != 0:
        raise InvalidParameter("device_index", device_index, "0, because the cpu is one device")
    problem = _native_problem()
    if problem:
        raise DeviceUnavailable("cpu", problem, hint="install influence again")


def _checked_context(spec: ModelSpec, context: int | None) -> int:
    if context is None:
        return spec.max_context
    if not 1 <= context <= spec.max_context:
        raise InvalidParameter("context", context, f"1 to {spec.max_context}, which is this model's limit")
    return context


def _require_positions(model: Model, context: int | None, kv_bytes: int, kv_type: KvType | None) -> None:
    """A KV cache of a chosen size must hold a chosen context, and one block in any case."""
    from influence.engines import native

    n_positions = native.BLOCK_SIZE if context is None else context
    needed = session_kv_bytes(model, n_positions, kv_type)
    if kv_bytes < needed:
        hint = "give a larger --kv-memory" + ("" if context is None else ", or a smaller --context")
        raise OutOfMemory(f"a context of {n_positions} positions", needed, kv_bytes, hint=hint)


def _require_memory(what: str, needed: int) -> None:
    """Weights are not counted: they are mapped, and the system keeps or drops their pages as it can."""
    available = machine.available_memory()
    if needed > available:
        raise OutOfMemory(what, needed, available)
