"""What weights in few bits cost a model: by its loss on texts, and by errors of matrices.

    python benchmarks/bench_quality.py -m FOLDER --texts stories.json --peer-python PATH
    python benchmarks/bench_quality.py -m demo --made-stories 100 --peer-python PATH

Our formats run as they are used, activations rounded too. llama.cpp's are its own
rounding of the weights, computed by its library in the peer's Python and run in
float32 by our engine: its loss without the error of its activations. README.md
beside this file says what each column is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from influence import _native, demo
from influence.engines import machine, native
from influence.engines.base import Step
from influence.engines.packing import PackedWeights, pack_weights
from influence.models.binding import Weights
from influence.models.model import Model, open_model
from influence.text.tokenizer import Tokenizer
from influence.weights.tensor import Tensor
from model_files import PROJECT, count

Floats = npt.NDArray[np.float32]
Logprobs = npt.NDArray[np.float64]
Ids = list[int]

FORMATS: tuple[Literal["q8", "q4"], ...] = ("q8", "q4")
PEERS = ("Q8_0", "Q4_0", "Q4_K_M")
MATRIX_PEERS = ("Q8_0", "Q4_0", "Q4_K")
_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
_LONGEST_TEXT = 512  # tokens
_UNSEEN_SEED = 2_000_000_000  # tools/train_demo.py trains on small ones


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one format over all texts."""

    nats_per_token: float
    divergence: float  # Kullback-Leibler, from the stored weights' distribution, nats a token
    n_tokens: int


def main() -> int:
    options = _parser().parse_args()
    model = open_model(demo.folder() if str(options.model) == "demo" else options.model)
    texts = _token_ids(Tokenizer.load(model.folder), _texts(options))
    stored = _logprobs(model, _replaced(model.weights, {}), None, texts)
    print(f"{'weights':10} {'nats a token':>14} {'more':>9} {'divergence':>12}")
    own = _loss(stored, stored, texts)
    _print_loss("stored", own, own)
    for form in FORMATS:
        packed = pack_weights(
            model.weights,
            form,
            folder=None,
            fingerprint="",
            kernels=native.kernel_names()[0],
            threads=_threads(),
        )
        _print_loss(form, _loss(_logprobs(model, model.weights, packed, texts), stored, texts), own)
    for peer in PEERS if options.peer_python else ():
        weights = _as_peer(model, peer, options.peer_python)
        _print_loss(peer, _loss(_logprobs(model, weights, None, texts), stored, texts), own)
    print()
    _print_matrix_errors(options.peer_python)
    return 0


def _texts(options: argparse.Namespace) -> list[str]:
    if options.texts:
        return [str(text).strip() for text in json.loads(options.texts.read_text())[: options.n_texts]]
    sys.path.insert(0, str(PROJECT))
    from tools.storyteller.conversation import plain_story

    random = Random(_UNSEEN_SEED)
    return [str(plain_story(random)) for _ in range(options.made_stories)]


def _token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """BOS and each text, cut off."""
    bos = tokenizer.id_of(tokenizer.bos_token) if tokenizer.bos_token else None
    first = [] if bos is None else [bos]
    return [[*first, *tokenizer.encode(text, add_special_tokens=False)][:_LONGEST_TEXT] for text in texts]


# Losses.


def _logprobs(
    model: Model, weights: Weights, packed: PackedWeights | None, texts: Sequence[Ids]
) -> list[Logprobs]:
    """Of every token after each position of each text, (positions, vocab_size)."""
    engine = native.load(model.spec, weights, threads=_threads(), kv_type="f32", packed=packed)
    rows = []
    for token_ids in texts:
        session = engine.new_session(len(token_ids))
        engine.forward([Step(session, token_ids[:-1], n_logits=len(token_ids) - 1)])
        logits = engine.logits().astype(np.float64)
        rows.append(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        session.close()
    engine.close()
    return rows


def _loss(rows: Sequence[Logprobs], stored: Sequence[Logprobs], texts: Sequence[Ids]) -> Loss:
    n_tokens = sum(len(row) for row in rows)
    nats = -sum(row[np.arange(len(row)), ids[1:]].sum() for row, ids in zip(rows, texts, strict=True))
    divergence = sum((np.exp(own) * (own - row)).sum() for row, own in zip(rows, stored, strict=True))
    return Loss(nats / n_tokens, divergence / n_tokens, n_tokens)


def _print_loss(name: str, loss: Loss, stored: Loss) -> None:
    more = loss.nats_per_token - stored.nats_per_token
    print(f"{name:10} {loss.nats_per_token:14.5f} {more:9.5f} {loss.divergence:12.5f}", flush=True)


# Weights as llama.cpp rounds them.


def _as_peer(model: Model, mixture: str, python: Path) -> Weights:
    """The model in float32, every matrix that a step reads rounded as llama.cpp's mixture of types says."""
    wanted: dict[str, tuple[str, Tensor]] = {}
    n_layers = len(model.weights.layers)
    for index, layer in enumerate(model.weights.layers):
        for slot in _MATRICES:
            if slot in layer:
                wanted[f"{index}.{slot}"] = _type_of(mixture, slot, index, n_layers), layer[slot]
    head = model.weights.outer.get("lm_head", model.weights.outer["embed"])
    wanted["head"] = ("Q8_0" if mixture == "Q8_0" else "Q6_K"), head
    arrays = {name: (peer, tensor.to_float32()) for name, (peer, tensor) in wanted.items()}
    return _replaced(model.weights, _rounded(arrays, python))


def _type_of(mixture: str, slot: str, index: int, n_layers: int) -> str:
    """llama-quantize's choice for models of the Llama kind: Q4_K_M gives some values and downs more bits."""
    if mixture != "Q4_K_M":
        return mixture
    eighth = n_layers // 8
    has_more_bits = index < eighth or index >= 7 * n_layers // 8 or (index - eighth) % 3 == 2
    return "Q6_K" if slot in ("v", "down") and has_more_bits else "Q4_K"


def _rounded(arrays: Mapping[str, tuple[str, Floats]], python: Path) -> dict[str, Floats]:
    """Each array as its ggml type keeps it."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "in.npz"), Path(folder, "out.npz")
        named: dict[str, Any] = {f"{peer}|{name}": array for name, (peer, array) in arrays.items()}
        np.savez(given, **named)
        script = Path(__file__).parent / "peer_ggml_types.py"
        subprocess.run([python, script, given, made], check=True)
        with np.load(made) as rounded:
            return {name.split("|")[1]: rounded[name] for name in rounded.files}


def _replaced(weights: Weights, arrays: Mapping[str, Floats]) -> Weights:
    """The weights in float32, these matrices in place of their own."""

    def float32(tensor: Tensor, name: str) -> Tensor:
        return _float32(tensor.name, arrays[name] if name in arrays else tensor.to_float32())

    layers = tuple(
        {slot: float32(tensor, f"{index}.{slot}") for slot, tensor in layer.items()}
        for index, layer in enumerate(weights.layers)
    )
    outer = {slot: float32(tensor, slot) for slot, tensor in weights.outer.items()}
    if "head" in arrays:
        outer["lm_head"] = _float32("head", arrays["head"])
    return Weights(outer, layers)


def _float32(name: str, array: Floats) -> Tensor:
    return Tensor.whole(name, "F32", array.shape, memoryview(array.tobytes()))


# Errors of matrices.


def _print_matrix_errors(python: Path | None) -> None:
    """Root mean square of the error over that of the weights, for each format and kind of weights."""
    made = dict(_made_matrices())
    columns = [*FORMATS, *(MATRIX_PEERS if python else ())]
    print("of the weights".ljust(22) + "".join(f"{column:>9}" for column in columns))
    for name, matrix in made.items():
        kept: dict[str, Floats] = {form: _as_packed(matrix, form) for form in FORMATS}
        if python:
            for peer in MATRIX_PEERS:
                kept |= {peer: _rounded({"matrix": (peer, matrix)}, python)["matrix"]}
        errors = [
            np.sqrt(np.square(kept[column] - matrix).mean() / np.square(matrix).mean()) for column in columns
        ]
        print(name.ljust(22) + "".join(f"{error:9.4f}" for error in errors), flush=True)


def _made_matrices() -> Iterator[tuple[str, Floats]]:
    random, shape = np.random.default_rng(0), (512, 2048)
    yield "normal", random.standard_normal(shape).astype(np.float32)
    yield "Laplace", random.laplace(size=shape).astype(np.float32)
    for degrees in (4, 3):
        yield f"Student's t of {degrees}", random.standard_t(degrees, shape).astype(np.float32)
    columns = np.exp(0.5 * random.standard_normal(shape[1]))
    yield "normal, loud columns", (random.standard_normal(shape) * columns).astype(np.float32)


def _as_packed(matrix: Floats, form: Literal["q8", "q4"]) -> Floats:
    """What the format keeps of a matrix, read off a product with single columns, which is exact."""
    rows, cols = matrix.shape
    data = np.zeros(_native.packed_bytes(form, rows, cols), np.uint8)
    kernels = native.kernel_names()[0]
    _native.pack(matrix, form, data, kernels, _threads())
    table = _native.kernels.Kernels(kernels)
    kept = np.zeros((cols, rows), np.float32)
    table.multiply_packed(table.prepare(form, np.eye(cols, dtype=np.float32)), data, kept)
    return kept.T


def _threads() -> int:
    return machine.usable_cores()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("-m", "--model", type=Path, required=True, help="a model folder, or demo")
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument("--texts", type=Path, metavar="FILE", help="a JSON list of texts")
    texts.add_argument(
        "--made-stories", type=count, metavar="N", help="stories like the demo model's, of another seed"
    )
    parser.add_argument("--n-texts", type=count, default=100, help="of the file (default: 100)")
    parser.add_argument("--peer-python", type=Path, help="a Python with llama-cpp-python")
    return parser


if __name__ == "__main__":
    sys.exit(main())
