"""A model of ours as the file that llama.cpp reads, so that both run the same numbers.

GGUF, version 3, little-endian (ggml's docs/gguf.md):

    "GGUF"  u32 version  u64 n_tensors  u64 n_metadata
    metadata   each: string key, u32 type, value                 string: u64 length, UTF-8
    tensors    each: string name, u32 n_dims, u64 dims (innermost first), u32 type, u64 offset
    padding to 32, then the data; every tensor padded to 32

Matrices keep their stored type, norms become float32. A tokenizer is only a list of
texts, if there is one at all: benchmarks feed token ids.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from influence.models.model import Model
from influence.models.rope import rope_frequencies
from influence.models.spec import ModelSpec, Rope
from influence.weights.tensor import Tensor

_ALIGNMENT = 32
_U32, _I32, _F32, _STRING, _ARRAY = 4, 5, 6, 8, 9  # types of metadata values
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # types of tokens
Value = str | int | float | Sequence[str] | npt.NDArray[Any]
_TENSOR_TYPES = {"F32": 0, "F16": 1, "BF16": 30}
_FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}

_OUTER = {"embed": "token_embd", "final_norm": "output_norm", "lm_head": "output"}
_LAYER = {
    "attn_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


class NotExportable(Exception):
    """The model computes something that this file's two llama.cpp architectures do not."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of the file. Its rows are turned to llama.cpp's order when written."""

    name: str
    dtype: str
    array: npt.NDArray[Any]
    head_dim: int = 0  # not 0: rows of heads, whose rotary pairs must become neighbours

    @property
    def padded_bytes(self) -> int:
        return -(-self.array.nbytes // _ALIGNMENT) * _ALIGNMENT


def export_gguf(model: Model, path: Path, vocabulary: Sequence[str] = ()) -> None:
    """Write `model` to `path`, whole or not at all; `vocabulary`: each token's text. Raises NotExportable."""
    spec = model.spec
    _require_llama_arithmetic(spec)
    entries = list(_entries(model))
    metadata = {**_metadata(spec, _matrix_type(model)), **_tokenizer(vocabulary)}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(entries), len(metadata)))
        for key, value in metadata.items():
            file.write(_string(key) + _value(value))
        offset = 0
        for entry in entries:
            file.write(_tensor_info(entry, offset))
            offset += entry.padded_bytes
        _pad(file)
        for entry in entries:
            file.write(_rows_in_order(entry).data)
            _pad(file)
    partial.rename(path)


def _require_llama_arithmetic(spec: ModelSpec) -> None:
    plain = (
        spec.norm == "rms"
        and spec.norm_offset == 0.0
        and spec.gated_mlp
        and spec.activation == "silu"
        and not spec.parallel_block
        and spec.qk_norm == "none"
        and spec.attention_softcap is None
        and spec.logit_softcap is None
    )
    one_rope = len(spec.ropes) == 1 and set(spec.layer_rope) == {0}
    if not plain or not one_rope or spec.ropes[0].rotary_dim != spec.head_dim:
        raise NotExportable("only Llama's arithmetic, with Granite's scales, is written for llama.cpp here")


def _metadata(spec: ModelSpec, matrix_type: str) -> dict[str, Value]:
    arch = "granite" if _has_scales(spec) else "llama"
    scales = {
        "attention.scale": spec.attention_scale,
        "embedding_scale": spec.embedding_scale,
        "residual_scale": spec.residual_scale,
        "logit_scale": 1 / spec.logit_scale,  # llama.cpp divides by it
    }
    shape: dict[str, int | float] = {
        "vocab_size": spec.vocab_size,
        "context_length": spec.max_context,
        "embedding_length": spec.hidden_size,
        "block_count": spec.n_layers,
        "feed_forward_length": spec.intermediate_size,
        "attention.head_count": spec.n_heads,
        "attention.head_count_kv": spec.n_kv_heads,
        "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim,
        "attention.layer_norm_rms_epsilon": spec.norm_eps,
        "rope.dimension_count": spec.head_dim,
        "rope.freq_base": float(spec.ropes[0].theta),
        **(scales if arch == "granite" else {}),
    }
    return {
        "general.architecture": arch,
        "general.file_type": _FILE_TYPES[matrix_type],
        **{f"{arch}.{key}": value for key, value in shape.items()},
    }


def _tokenizer(vocabulary: Sequence[str]) -> dict[str, Value]:
    """Texts of tokens in the manner of Llama 2: three special ones, the bytes, and then words."""
    if not vocabulary:
        return {"tokenizer.ggml.model": "no_vocab"}
    kinds = [_BYTE if text.startswith("<0x") else _NORMAL for text in vocabulary]
    kinds[:3] = [_UNKNOWN, _CONTROL, _CONTROL]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.scores": np.zeros(len(vocabulary), np.float32),
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def _has_scales(spec: ModelSpec) -> bool:
    scales = (spec.embedding_scale, spec.residual_scale, spec.logit_scale)
    return scales != (1.0, 1.0, 1.0) or spec.attention_scale != spec.head_dim**-0.5


def _matrix_type(model: Model) -> str:
    return model.weights.layers[0]["q"].dtype


def _entries(model: Model) -> Iterator[Entry]:
    spec, rope = model.spec, model.spec.ropes[0]
    for slot, tensor in model.weights.outer.items():
        yield _entry(spec, _named(_OUTER, slot), slot, tensor)
    if rope.scaling.kind != "default":
        yield Entry("rope_freqs.weight", "F32", _rope_divisors(rope, spec.max_context))
    for layer, slots in enumerate(model.weights.layers):
        for slot, tensor in slots.items():
            yield _entry(spec, f"blk.{layer}.{_named(_LAYER, slot)}", slot, tensor)


def _named(names: dict[str, str], slot: str) -> str:
    if slot not in names:
        raise NotExportable(f"there is no place for the tensor {slot} in llama.cpp's llama")
    return names[slot]


def _entry(spec: ModelSpec, name: str, slot: str, tensor: Tensor) -> Entry:
    if slot.endswith("norm"):
        return Entry(f"{name}.weight", "F32", tensor.to_float32())
    halves = slot in ("q", "k") and not spec.ropes[0].interleaved
    return Entry(f"{name}.weight", tensor.dtype, tensor.array, spec.head_dim if halves else 0)


def _rope_divisors(rope: Rope, context: int) -> npt.NDArray[np.float32]:
    """What llama.cpp divides each plain rotary frequency by, (rotary_dim / 2,)."""
    frequencies, attention_factor = rope_frequencies(rope, context)
    if attention_factor != 1.0:
        raise NotExportable(f"rope scaling {rope.scaling.kind} is not written for llama.cpp here")
    plain, _ = rope_frequencies(Rope(rope.theta, rope.rotary_dim), context)
    divisors = np.frombuffer(plain, np.float32) / np.frombuffer(frequencies, np.float32)
    return divisors.astype(np.float32, copy=False)


def _rows_in_order(entry: Entry) -> npt.NDArray[Any]:
    """The rows with each head's rotary pairs (i, i + head_dim / 2) as neighbours (2 i, 2 i + 1)."""
    if not entry.head_dim:
        return np.ascontiguousarray(entry.array)
    columns = entry.array.shape[-1]
    halves = entry.array.reshape(-1, 2, entry.head_dim // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(-1, columns)


def _tensor_info(entry: Entry, offset: int) -> bytes:
    dims = entry.array.shape[::-1]
    return (
        _string(entry.name)
        + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        + struct.pack("<IQ", _TENSOR_TYPES[entry.dtype], offset)
    )


def _value(value: Value) -> bytes:
    if isinstance(value, np.ndarray):
        kind = _F32 if value.dtype == np.float32 else _I32
        return struct.pack("<IIQ", _ARRAY, kind, value.size) + value.tobytes()
    if isinstance(value, Sequence) and not isinstance(value, str):
        texts = b"".join(_string(text) for text in value)
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + texts
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    return struct.pack("<If", _F32, value)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _pad(file: BinaryIO) -> None:
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
