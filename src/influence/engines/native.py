"""The CPU engine: the C++ core behind the engine boundary.

Weights go to the core as views of the mapped files; only norms and biases, a
few thousand numbers a layer, are widened to float32 there. Logits stay in the core's
memory; `logits()` is a view of it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from influence import _native
from influence.engines import machine
from influence.engines.base import Blocks, Engine, KvPool, KvType, Session, Step
from influence.engines.sampling import Draw, Sample, uniform
from influence.errors import ContextFull, InvalidParameter, OutOfMemory
from influence.models.binding import Weights
from influence.models.rope import rope_frequencies
from influence.models.spec import ModelSpec
from influence.weights.tensor import Tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from influence.engines.packing import PackedWeights

Slots = dict[str, _native.Stored | _native.Packed]
MappedFile = tuple[Path, memoryview]  # a file, and its bytes
BLOCK_SIZE: int = _native.BLOCK_POSITIONS
# Fewer multiplications than this, 50 microseconds of one thread's, are not worth meeting other threads
# after every stage.
SHARED_WORK = 1 << 20
# Raised whenever the same tokens would leave other keys and values in the cache: prompts kept on disk hold them.
_ARITHMETIC = 2


def kernel_names() -> list[str]:
    """The kernel tables that this CPU runs, best first."""
    return list(_native.kernels.supported())


def read_once(words: npt.NDArray[np.uint64]) -> None:
    """Read every byte of `words` from memory as fast as a loop can; other threads of Python run meanwhile."""
    _native.kernels.read_once(words)


def load(
    spec: ModelSpec,
    weights: Weights,
    *,
    threads: int | None = None,
    kernels: str | None = None,
    kv_bytes: int | None = None,
    kv_type: KvType | None = None,
    mapped_files: Sequence[MappedFile] = (),
    packed: PackedWeights | None = None,
    shared_work: int = SHARED_WORK,
) -> NativeEngine:
    """An engine over `weights`, which it keeps alive.

    `threads` is the physical cores this process may use if not given; `kernels`
    the best table for this CPU. `kv_bytes` bounds the KV cache: without it the
    cache may grow to one session of the model's full context or to half of the
    memory that is available now, whichever is less; memory is taken as
    positions are filled. `kv_type` is float32 for float32 weights, else float16;
    q8 takes half of float16's memory.
    `mapped_files` are the files under the weights: if one is cut short while
    the engine lives, the process ends with a message instead of a bus error.
    `packed` are matrices of `weights` in fewer bits, which take their place.
    A step of fewer multiplications than `shared_work` runs on one thread.

    Raises InvalidParameter for an unknown or unsupported table, OutOfMemory if
    not even one block fits `kv_bytes`.
    """
    return NativeEngine(
        spec,
        weights,
        threads=checked_threads(threads),
        kernels=checked_kernels(kernels),
        kv_bytes=kv_bytes,
        kv_type=kv_type or _kv_type_for(weights),
        mapped_files=mapped_files,
        packed=packed,
        shared_work=shared_work,
    )


def kv_block_bytes(spec: ModelSpec, weights: Weights, kv_type: KvType | None = None) -> int:
    """Bytes of one block of `BLOCK_SIZE` positions, over all layers, as `load` would make it."""
    return int(_native.kv_block_bytes(_native_spec(spec), kv_type or _kv_type_for(weights)))


def read_ahead(weights: Weights) -> _native.ReadAhead:
    """Begins to bring mapped weights in, in the order in which a pass meets them; ends when it is done or dropped."""
    head = weights.outer.get("lm_head", weights.outer["embed"])
    tensors = [tensor for layer in weights.layers for tensor in layer.values()]
    return _native.ReadAhead([tensor.data for tensor in (*tensors, head)])


class NativeSession(Session):
    def __init__(self, handle: _native.Session) -> None:
        self.handle = handle
        self.context = int(handle.context)

    @property
    def position(self) -> int:
        return int(self.handle.position)

    def rewind(self, position: int) -> None:
        self._check(position)
        self.handle.rewind(position)

    def fork(self, position: int) -> NativeSession:
        self._check(position)
        return NativeSession(self.handle.fork(position))

    def read_blocks(self, first: int, n: int) -> Blocks:
        try:
            return self.handle.read_blocks(first, n)
        except ValueError as error:
            raise InvalidParameter("blocks", (first, n), str(error)) from error

    def append_blocks(self, blocks: Blocks) -> None:
        n_positions = len(blocks) * BLOCK_SIZE
        if self.position + n_positions > self.context:
            raise ContextFull(self.position, n_positions, self.context)
        try:
            self.handle.append_blocks(blocks)
        except MemoryError as error:
            raise OutOfMemory("the KV cache", blocks.nbytes, 0) from error
        except ValueError as error:
            raise InvalidParameter("blocks", blocks.shape, str(error)) from error

    def close(self) -> None:
        self.handle.close()

    def _check(self, position: int) -> None:
        if not 0 <= position <= self.position:
            raise InvalidParameter("position", position, f"between 0 and {self.position}")


class NativeEngine(Engine):
    is_bit_exact = True

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        *,
        threads: int,
        kernels: str,
        kv_bytes: int | None,
        kv_type: KvType,
        mapped_files: Sequence[MappedFile],
        packed: PackedWeights | None,
        shared_work: int,
    ) -> None:
        self.spec = spec
        self._mapped_files = (*mapped_files, *([packed.mapped_file] if packed and packed.mapped_file else []))
        for path, mapping in self._mapped_files:
            _native.watch_mapped_file(mapping, str(path))
        native_spec = _native_spec(spec)
        self._block_bytes = int(_native.kv_block_bytes(native_spec, kv_type))
        self._decoder: _native.Decoder | None = _native.Decoder(
            native_spec,
            *_all_slots(weights, packed),
            kernels,
            threads,
            kv_type,
            _n_blocks(spec, self._block_bytes, kv_bytes),
            shared_work,
        )
        rounding = packed.format if packed and not packed.exact else "stored"
        self.kv_identity = f"native {_ARITHMETIC} {kernels} {kv_type} {rounding}"
        form = f", {packed.format} weights" if packed else ""
        self.description = f"native {kernels}, {threads} thread{'s' if threads > 1 else ''}{form}"

    @property
    def kv_pool(self) -> KvPool:
        return KvPool(BLOCK_SIZE, self._core.n_blocks, self._core.n_free_blocks, self._block_bytes)

    def new_session(self, context: int) -> NativeSession:
        if not 1 <= context <= self.spec.max_context:
            raise InvalidParameter("context", context, f"between 1 and {self.spec.max_context}")
        ropes = [rope_frequencies(rope, context) for rope in self.spec.ropes]
        return NativeSession(self._core.new_session(context, ropes))

    def forward(self, steps: Sequence[Step]) -> int:
        try:
            self._core.forward([self._native_step(step) for step in steps])
        except MemoryError as error:
            needed = sum(self._blocks_wanted(step) for step in steps) * self._block_bytes
            free = self._core.n_free_blocks * self._block_bytes
            raise OutOfMemory("the KV cache", needed, free) from error
        except ValueError as error:
            raise InvalidParameter("steps", len(steps), str(error)) from error
        return self._core.n_logits

    def logits(self) -> npt.NDArray[np.float32]:
        return self._core.logits()

    def sample(self, draws: Sequence[Draw]) -> list[Sample]:
        return [self._sample(draw) for draw in draws]

    def close(self) -> None:
        self._decoder = None
        for _, mapping in self._mapped_files:
            _native.unwatch_mapped_file(mapping)
        self._mapped_files = ()

    def _sample(self, draw: Draw) -> Sample:
        """By the core where it can; else, and for the error of a row that it refuses, by the definition."""
        params = draw.params
        if draw.is_plain:
            chance = uniform(params.seed, draw.position)
            temperature = 0.0 if params.is_greedy else params.temperature
            found = self._core.choose(draw.row, temperature, params.top_k, params.top_p, params.min_p, chance)
            if found is not None:
                return Sample(found, None)
        from influence.engines.choosing import sample_row  # numpy, which a plain draw has no use for

        return sample_row(self.logits()[draw.row], draw)

    @property
    def _core(self) -> _native.Decoder:
        if self._decoder is None:
            raise InvalidParameter("engine", "closed", "open")
        return self._decoder

    def _native_step(self, step: Step) -> tuple[_native.Session, array[int], int]:
        session = step.session
        if not isinstance(session, NativeSession):
            raise InvalidParameter("session", type(session).__name__, "a session of this engine")
        if session.position + len(step.token_ids) > session.context:
            raise ContextFull(session.position, len(step.token_ids), session.context)
        return session.handle, _token_array(step.token_ids), step.n_logits

    def _blocks_wanted(self, step: Step) -> int:
        pool = self.kv_pool
        end = step.session.position + len(step.token_ids)
        return pool.blocks_for(end) - pool.blocks_for(step.session.position)


def _token_array(token_ids: Sequence[int]) -> array[int]:
    try:
        return array("i", token_ids)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidParameter("token_ids", "one beyond 32 bits", "ids of the vocabulary") from error


def checked_threads(threads: int | None) -> int:
    """The threads to use, by default the physical cores that this process may; raises InvalidParameter."""
    if threads is None:
        return machine.usable_cores()
    if not 1 <= threads <= 1024:
        raise InvalidParameter("threads", threads, "between 1 and 1024")
    return threads


def checked_kernels(kernels: str | None) -> str:
    """The table to use, by default the best for this CPU; raises InvalidParameter."""
    supported = kernel_names()
    if kernels is None:
        return supported[0]
    if kernels not in supported:
        raise InvalidParameter("kernels", kernels, f"one that this CPU runs: {', '.join(supported)}")
    return kernels


def _kv_type_for(weights: Weights) -> KvType:
    """Float16 keeps more of a key than bfloat16 models had themselves; float32 models get float32."""
    return "f32" if weights.layers[0]["k"].dtype == "F32" else "f16"


def _n_blocks(spec: ModelSpec, block_bytes: int, kv_bytes: int | None) -> int:
    full_context = -(-spec.max_context // BLOCK_SIZE)
    if kv_bytes is None:
        return max(1, min(full_context, machine.available_memory() // 2 // block_bytes))
    if kv_bytes < block_bytes:
        raise OutOfMemory(f"a KV cache of {BLOCK_SIZE} positions", block_bytes, kv_bytes)
    return kv_bytes // block_bytes


def _native_spec(spec: ModelSpec) -> _native.Spec:
    native = _native.Spec()
    for name in (
        "vocab_size", "hidden_size", "intermediate_size", "n_layers", "n_heads", "n_kv_heads", "head_dim",
        "norm_eps", "norm_offset", "parallel_block", "attention_scale", "embedding_scale", "residual_scale",
        "logit_scale",
    ):  # fmt: skip
        setattr(native, name, getattr(spec, name))
    native.norm = getattr(_native.Norm, spec.norm)
    native.activation = getattr(_native.Activation, spec.activation)
    native.qk_norm = getattr(_native.QkNorm, spec.qk_norm)
    native.attention_softcap = spec.attention_softcap or 0.0
    native.logit_softcap = spec.logit_softcap or 0.0
    native.layer_rope = [-1 if rope is None else rope for rope in spec.layer_rope]
    native.layer_window = [window or 0 for window in spec.layer_window]
    native.set_ropes([(rope.rotary_dim, rope.interleaved) for rope in spec.ropes])
    return native


def _all_slots(weights: Weights, packed: PackedWeights | None) -> tuple[Slots, list[Slots]]:
    """Outer slots and those of each layer, with packed matrices in the place of stored ones."""
    outer, layers = _native_slots(weights.outer), [_native_slots(layer) for layer in weights.layers]
    if packed is None:
        return outer, layers
    return {**outer, **packed.outer}, [
        {**slots, **small} for slots, small in zip(layers, packed.layers, strict=True)
    ]


def _native_slots(slots: Mapping[str, Tensor]) -> Slots:
    return {slot: stored(tensor) for slot, tensor in slots.items()}


def stored(tensor: Tensor) -> _native.Stored:
    """A tensor as the core takes it, where it lies."""
    return _native.Stored(tensor.data, tensor.dtype, tensor.shape, tensor.strides)
