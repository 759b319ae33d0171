"""Writes a model of random weights in the shape of a real one, for measuring speed without downloading.

    python tools/make_random_model.py tinyllama-1.1b -o .scratch/models/tinyllama-1.1b

The folder has what a downloaded one has, except a tokenizer:

    config.json                          as the real model's, where it matters to an engine
    model.safetensors                    or model-0000k-of-0000n.safetensors and an index

The weights are pieces of one tape of Gaussian numbers, so that writing runs at
the disk's speed and needs as much memory as one tensor. The same seed gives the
same bytes. The numbers are ordinary ones: exponents as trained weights have
them, none subnormal, and logits that stay finite.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from influence.models.binding import slot_shape
from influence.models.config import Config
from influence.models.layout import Architecture, Part, PerHead, Place
from influence.models.registry import read_architecture

Array = npt.NDArray[Any]

_LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
}

# The keys of each model's own config.json that say what is computed.
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {
        **_LLAMA, "vocab_size": 512, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 3,
        "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
    },
    "tinyllama-1.1b": {
        **_LLAMA, "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
        "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
    },
    "smollm2-135m": {
        **_LLAMA, "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
        "rope_theta": 100000.0, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0,
    },
    "llama-3.2-1b": {
        **_LLAMA, "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072,
        "rope_theta": 500000.0, "tie_word_embeddings": True, "bos_token_id": 128000, "eos_token_id": 128001,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "mistral-7b": {
        **_LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "vocab_size": 32000,
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 32768, "rope_theta": 10000.0,
        "sliding_window": 4096, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
    },
    "granite-2b": {
        **_LLAMA, "model_type": "granite", "architectures": ["GraniteForCausalLM"], "vocab_size": 49159,
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 40, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_theta": 10000000.0,
        "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0, "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22, "attention_multiplier": 0.015625, "logits_scaling": 8.0,
    },
    "phi-2": {
        "model_type": "phi", "architectures": ["PhiForCausalLM"], "hidden_act": "gelu_new", "vocab_size": 51200,
        "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "max_position_embeddings": 2048, "rope_theta": 10000.0,
        "partial_rotary_factor": 0.4, "layer_norm_eps": 1e-5, "qk_layernorm": False,
        "tie_word_embeddings": False, "bos_token_id": 50256, "eos_token_id": 50256,
    },
}  # fmt: skip

_STORED = {"bf16": ("BF16", "bfloat16"), "f16": ("F16", "float16"), "f32": ("F32", "float32")}

# A prime: a matrix read off the tape repeats no row before it has this many of them.
_TAPE_LENGTH = (1 << 22) - 3
_BIAS_STD = 0.02
_NORM_STD = 0.1
# Smaller numbers would be subnormal in float16.
_SMALLEST = 1e-4

# Where Hugging Face cuts large checkpoints.
DEFAULT_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor to write: `offset` is the value that its numbers lie around, `std` how far."""

    name: str
    shape: tuple[int, ...]
    offset: float
    std: float

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Tape:
    """Gaussian numbers of one dtype, read in a circle from places that the seed decides."""

    def __init__(self, seed: int, dtype: str) -> None:
        self._random = np.random.default_rng(seed)
        self._dtype = dtype
        self._numbers = self._random.standard_normal(_TAPE_LENGTH, dtype=np.float32)
        self._encoded: dict[tuple[float, float], Array] = {}

    def tensor(self, planned: Planned) -> Array:
        """The numbers of one tensor, flat; each call reads on from another place."""
        start = int(self._random.integers(_TAPE_LENGTH))
        return np.resize(np.roll(self._of(planned.offset, planned.std), -start), planned.size)

    def _of(self, offset: float, std: float) -> Array:
        """The whole tape around that offset, encoded once: a model has about five kinds."""
        if (offset, std) not in self._encoded:
            numbers = _without_subnormals(self._numbers * np.float32(std) + np.float32(offset))
            self._encoded[offset, std] = encode(numbers, self._dtype)
        return self._encoded[offset, std]


def encode(numbers: npt.NDArray[np.float32], dtype: str) -> Array:
    """float32 as "f32", "f16" or "bf16" (bits in uint16), rounded to nearest even; no NaN among them."""
    if dtype == "bf16":
        bits = numbers.view(np.uint32)
        rounded: Array = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
        return rounded.astype("<u2")
    return numbers.astype("<f2" if dtype == "f16" else "<f4")


def _without_subnormals(numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.copysign(np.maximum(np.abs(numbers), np.float32(_SMALLEST)), numbers)


def plan_tensors(architecture: Architecture) -> Iterator[Planned]:
    """Every tensor of the checkpoint, layer by layer, under the family's own names."""
    spec, layout = architecture.spec, architecture.layout
    for slot, module in layout.outer.items():
        yield from _plan_slot(architecture, slot, module, layout.base + module)
    for layer in range(spec.n_layers):
        prefix = f"{layout.base}{layout.layers}.{layer}."
        for slot, place in layout.layer.items():
            module = place if isinstance(place, str) else place.module
            yield from _plan_slot(architecture, slot, place, prefix + module)
    if not layout.tied:
        yield from _plan_slot(architecture, "lm_head", layout.head[0], layout.head[0])


def _plan_slot(architecture: Architecture, slot: str, place: Place, module: str) -> Iterator[Planned]:
    spec, has_bias = architecture.spec, slot in architecture.layout.biases
    shape = slot_shape(spec, slot)
    if isinstance(place, Part):
        if slot != place.slots[0]:
            return  # the first of the slots that share a tensor has planned it
        shape = (sum(slot_shape(spec, part)[0] for part in place.slots), *shape[1:])
    if slot.endswith("norm"):
        names, shape = _norm_tensors(architecture, slot, place, module, shape)
        for name in names:
            yield Planned(f"{name}.weight", shape, 1 - spec.norm_offset, _NORM_STD)
    else:
        # Products as large as what goes in, so that attention has something to choose between.
        yield Planned(f"{module}.weight", shape, 0.0, shape[-1] ** -0.5)
    if has_bias:
        yield Planned(f"{module}.bias", shape[:1], 0.0, _BIAS_STD)


def _norm_tensors(
    architecture: Architecture, slot: str, place: Place, module: str, shape: tuple[int, ...]
) -> tuple[list[str], tuple[int, ...]]:
    """Names and shape of a norm's weights: one tensor, or one with a row for each head, or one a head."""
    if not isinstance(place, PerHead):
        return [module], shape
    n_heads = architecture.spec.n_heads if slot == "q_norm" else architecture.spec.n_kv_heads
    if "{}" in module:
        return [module.format(head) for head in range(n_heads)], (architecture.spec.head_dim,)
    return [module], (n_heads, architecture.spec.head_dim)


def write_model(
    config: Mapping[str, Any],
    folder: Path,
    *,
    dtype: str = "bf16",
    seed: int = 0,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> None:
    """A model folder of random weights for any config.json that this project reads.

    config.json is written last: a folder that has one is whole.
    """
    architecture = read_architecture(Config(config, folder / "config.json"))
    shards = _cut(list(plan_tensors(architecture)), shard_bytes // _item_size(dtype))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    tape = Tape(seed, dtype)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = _shard_name(number, len(shards))
        _write_safetensors(folder / name, shard, tape, dtype)
        weight_map |= {planned.name: name for planned in shard}
    if len(shards) > 1:
        total = sum(planned.size for shard in shards for planned in shard) * _item_size(dtype)
        _write_json(
            folder / "model.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": weight_map},
        )
    _write_json(folder / "config.json", {**config, "torch_dtype": _STORED[dtype][1]})


def _cut(plan: list[Planned], shard_size: int) -> list[list[Planned]]:
    """The tensors in their order, in groups of at most `shard_size` numbers (one tensor at least)."""
    shards: list[list[Planned]] = [[]]
    n_left = shard_size
    for planned in plan:
        if planned.size > n_left and shards[-1]:
            shards.append([])
            n_left = shard_size
        shards[-1].append(planned)
        n_left -= planned.size
    return shards


def _write_safetensors(path: Path, shard: list[Planned], tape: Tape, dtype: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for planned in shard:
        begin, end = end, end + planned.size * _item_size(dtype)
        header[planned.name] = {
            "dtype": _STORED[dtype][0],
            "shape": list(planned.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data, and every row of it, is aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for planned in shard:
            file.write(tape.tensor(planned).data)


def _shard_name(number: int, n_shards: int) -> str:
    return "model.safetensors" if n_shards == 1 else f"model-{number:05}-of-{n_shards:05}.safetensors"


def _item_size(dtype: str) -> int:
    return 4 if dtype == "f32" else 2


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shape", choices=SHAPES, help="the model whose shape to take")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--dtype", choices=_STORED, default="bf16", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--shard-bytes", type=int, default=DEFAULT_SHARD_BYTES, help="the most that one file holds"
    )
    options = parser.parse_args()
    write_model(
        SHAPES[options.shape],
        options.output,
        dtype=options.dtype,
        seed=options.seed,
        shard_bytes=options.shard_bytes,
    )


if __name__ == "__main__":
    main()
