"""Weights arrive on the device as they lie in the files, stacked."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from influence.engines.torch.matrices import GroupedMatrix, PackedMatrix
from influence.engines.torch.weights import StagingBuffers, load_weights
from influence.weights.tensor import NUMPY_DTYPES, DType
from support.random_specs import Extras, random_weights, small_spec

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_q_k_and_v_are_stacked_and_so_are_gate_and_up(dtype: DType) -> None:
    spec = small_spec()
    weights = random_weights(spec, Extras(biases=True, dtype=dtype))
    loaded, slots = load_weights(spec, weights, CPU), weights.layers[1]
    layer = loaded.layers[1]
    for linear, names in ((layer.qkv, "qkv"), (layer.up, ("gate", "up")), (layer.o, "o")):
        expected = np.concatenate([slots[name].to_float32() for name in names])
        np.testing.assert_array_equal(linear.weight.float(), expected)
        bias = np.concatenate([slots[f"{name}.bias"].to_float32() for name in names])
        np.testing.assert_array_equal(linear.bias.float(), bias)
    np.testing.assert_array_equal(loaded.embed.float(), weights.outer["embed"].to_float32())


def test_a_tied_head_is_the_embedding_itself() -> None:
    spec = small_spec()
    loaded = load_weights(spec, random_weights(spec, Extras(tied=True)), CPU)
    assert loaded.head.weight.data_ptr() == loaded.embed.data_ptr()
    part = load_weights(spec, random_weights(spec, Extras(tied=True)), CPU, tied_rows=slice(7, 20))
    assert part.head.weight.data_ptr() == part.embed[7].data_ptr() and part.head.weight.shape == (13, 24)


def test_a_projection_that_lies_with_gaps_in_a_fused_one_arrives_whole() -> None:
    spec = small_spec(n_kv_heads=4)
    weights = random_weights(spec, Extras(grouped_qkv=True))
    q = weights.layers[0]["q"].to_float32()
    assert q.ndim == 3
    loaded = load_weights(spec, weights, CPU).layers[0].qkv.weight
    np.testing.assert_array_equal(loaded[: spec.q_dim], q.reshape(spec.q_dim, -1))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_matrix_larger_than_a_buffer_goes_in_pieces(dtype: DType) -> None:
    words = np.arange(7 * 6, dtype=np.uint32).reshape(7, 6)
    array = words.astype(NUMPY_DTYPES[dtype])
    target = torch.zeros(7, 6, dtype={"F32": torch.float32, "F16": torch.float16}.get(dtype, torch.bfloat16))
    buffers = StagingBuffers(pinned=False, size_bytes=2 * 6 * array.itemsize)
    buffers.move(array, target.dtype, target)
    buffers.finish()
    np.testing.assert_array_equal(target.view(torch.uint8).numpy(), array.view(np.uint8))


def test_few_bits_are_for_matrices_and_the_head_and_the_embedding_stays_stored() -> None:
    spec = small_spec()
    weights = random_weights(spec, Extras(tied=True, dtype="BF16"))
    loaded = load_weights(spec, weights, CPU, "q4")
    assert isinstance(loaded.layers[0].qkv.weight, GroupedMatrix)
    assert (loaded.layers[0].down.weight.format, loaded.head.weight.format) == ("q4", "q8")
    assert loaded.embed.dtype == torch.bfloat16
    assert isinstance(load_weights(spec, weights, CPU, "packed").head.weight, PackedMatrix)
