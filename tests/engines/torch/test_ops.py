"""Each step of a block in plain PyTorch against numpy in float64, and answers that can be read off."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from influence.engines import reference
from influence.engines.torch.matrices import Heads, Linear, Norm
from influence.engines.torch.ops import (
    ACTIVATIONS,
    BLOCK_SIZE,
    activate,
    gemv,
    linear_residual,
    norm_linear,
    normed,
    paged_attention,
    rope_and_store,
)
from influence.models.spec import Activation, NormKind, QkNorm, Rope

TOLERANCE = 2e-5


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def numpy_norm(x: np.ndarray, norm: Norm) -> np.ndarray:
    if norm.kind == "layer":
        x = x - x.mean(axis=-1, keepdims=True)
    y = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + norm.eps) * (norm.weight.numpy() + norm.offset)
    return y if norm.bias is None else y + norm.bias.numpy()


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_norm_is_the_equation(kind: NormKind, offset: float) -> None:
    norm = Norm(kind, 1e-3, offset, values(33, seed=1), values(33, seed=2))
    x = values(5, 33)
    np.testing.assert_allclose(normed(x, norm), numpy_norm(x.double().numpy(), norm), atol=TOLERANCE)


def test_no_norm_changes_nothing() -> None:
    x = values(2, 3)
    assert normed(x, None) is x


def test_a_norm_and_a_stacked_product_are_those_two_in_turn() -> None:
    norm, x = Norm("rms", 1e-5, 0.0, values(24, seed=1)), values(7, 24)
    weights = Linear(values(41, 24, seed=2), values(41, seed=3))
    expected = numpy_norm(x.double().numpy(), norm) @ weights.weight.double().numpy().T + weights.bias.numpy()
    np.testing.assert_allclose(norm_linear(x, norm, weights), expected, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_product_gives_float32_without_rounding_in_between(dtype: torch.dtype) -> None:
    x, weight = values(3, 40).to(dtype), values(50, 40, seed=1).to(dtype)
    y = gemv(x, weight, torch.float32)
    assert y.dtype == torch.float32
    np.testing.assert_allclose(y, x.double().numpy() @ weight.double().numpy().T, atol=TOLERANCE)
    assert gemv(x, weight).dtype == dtype


def test_a_residual_is_scaled_added_and_keeps_its_dtype() -> None:
    x, weight, bias = (
        values(4, 24).bfloat16(),
        values(10, 24, seed=1).bfloat16(),
        values(10, seed=2).bfloat16(),
    )
    residual = values(4, 10, seed=3)
    y = linear_residual(x, weight, bias, residual, 0.5)
    product = (x @ weight.T + bias).double().numpy()
    assert y.dtype == torch.float32
    np.testing.assert_allclose(y, residual.numpy() + 0.5 * product, atol=TOLERANCE)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gated", [True, False])
def test_an_activation_is_the_reference_s(activation: Activation, gated: bool) -> None:
    gate_up = values(3, 26)
    act, numbers = reference.ACTIVATIONS[activation], gate_up.double().numpy()
    expected = act(numbers[:, :13]) * numbers[:, 13:] if gated else act(numbers)
    np.testing.assert_allclose(activate(gate_up, activation, gated), expected, atol=TOLERANCE)


def angles(n: int, half: int) -> tuple[torch.Tensor, torch.Tensor]:
    turns = values(n, half, seed=9)
    return turns.cos(), turns.sin()


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("rotary_dim", [4, 8])
@pytest.mark.parametrize("qk_norm", ["none", "head", "full"])
def test_rope_turns_q_and_k_and_stores_k_and_v(interleaved: bool, rotary_dim: int, qk_norm: QkNorm) -> None:
    heads = Heads(4, 2, 8, qk_norm)
    shapes = {"none": ((), ()), "head": ((8,), (2, 8)), "full": ((32,), (16,))}[qk_norm]
    q_norm, k_norm = (Norm("rms", 1e-5, 0.0, values(*s, seed=4)) if s else None for s in shapes)
    qkv, kv = values(3, 64), torch.zeros(2, 2, BLOCK_SIZE, 2, 8)
    slots, (cos, sin) = torch.tensor([70, 0, 127]), angles(3, rotary_dim // 2)
    q = rope_and_store(qkv, cos, sin, Rope(1e4, rotary_dim, interleaved), kv, slots, heads, q_norm, k_norm)

    numbers = qkv.double().numpy()
    parts = []
    for part, norm, n_heads in ((numbers[:, :32], q_norm, 4), (numbers[:, 32:48], k_norm, 2)):
        whole = numpy_norm(part, norm) if norm and qk_norm == "full" else part
        cut = whole.reshape(3, n_heads, 8)
        cut = numpy_norm(cut, norm) if norm and qk_norm == "head" else cut
        parts.append(reference.rotate(cut, cos.numpy(), sin.numpy(), interleaved))
    np.testing.assert_allclose(q, parts[0], atol=TOLERANCE)
    places = kv.view(2, -1, 2, 8)
    np.testing.assert_allclose(places[0, slots], parts[1], atol=TOLERANCE)
    np.testing.assert_array_equal(places[1, slots], qkv[:, 48:].reshape(3, 2, 8))
    assert torch.count_nonzero(places.abs().sum(dim=(0, 2, 3))) == 3


def test_without_rope_q_is_as_it_came() -> None:
    qkv, kv = values(2, 24), torch.zeros(2, 1, BLOCK_SIZE, 1, 8)
    q = rope_and_store(qkv, None, None, None, kv, torch.tensor([0, 1]), Heads(1, 1, 8))
    np.testing.assert_array_equal(q.flatten(1), qkv[:, :8])


def paged(lengths: list[int], n_kv_heads: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A cache whose blocks lie in no order, and the tables of sequences of these lengths."""
    n_blocks = [-(-length // BLOCK_SIZE) for length in lengths]
    order = np.random.default_rng(5).permutation(sum(n_blocks)).tolist()
    tables = torch.zeros(len(lengths), max(n_blocks), dtype=torch.int32)
    for row, n in enumerate(n_blocks):
        tables[row, :n] = torch.tensor([order.pop() for _ in range(n)])
    return values(2, sum(n_blocks), BLOCK_SIZE, n_kv_heads, head_dim, seed=6), tables


def numpy_attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, window: int | None, softcap: float | None
) -> np.ndarray:
    """(n, heads, head_dim): the newest n positions over (positions, kv heads, head_dim)."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = reference.softcap(np.einsum("qhd,khd->hqk", q, k) * scale, softcap)
    distance = np.arange(len(k) - len(q), len(k))[:, None] - np.arange(len(k))
    scores = np.where((distance >= 0) & (distance < (window or len(k))), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", weights / weights.sum(axis=-1, keepdims=True), v)


@pytest.mark.parametrize("n_queries", [[1, 1, 1], [65, 1, 7]], ids=["decode", "mixed"])
@pytest.mark.parametrize("window", [None, 1, 70])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_attention_over_scattered_blocks_is_attention(
    n_queries: list[int], window: int | None, softcap: float | None
) -> None:
    lengths = [130, 64, 7]
    kv, tables = paged(lengths, 2, 8)
    q, starts = values(sum(n_queries), 6, 8), np.cumsum([0, *n_queries])
    bounds, ends = torch.tensor(starts, dtype=torch.int32), torch.tensor(lengths, dtype=torch.int32)
    out = paged_attention(q, kv, tables, bounds, ends, 0.3, window, softcap)
    for s, length in enumerate(lengths):
        k, v = kv[:, tables[s].long()].flatten(1, 2)[:, :length].double().numpy()
        rows = slice(starts[s], starts[s + 1])
        expected = numpy_attention(q[rows].double().numpy(), k, v, 0.3, window, softcap)
        np.testing.assert_allclose(out[rows], expected, atol=TOLERANCE)


def test_a_query_that_is_one_key_finds_that_key_s_value() -> None:
    """Keys are unit vectors and the query is 1e4 times one of them: softmax is one-hot, the value shows by eye."""
    kv = torch.zeros(2, 1, BLOCK_SIZE, 1, 4)
    kv[0, 0, :4, 0] = torch.eye(4)
    kv[1, 0, :4, 0, 0] = torch.tensor([10.0, 20.0, 30.0, 40.0])
    q = torch.tensor([[[0, 0, 1e4, 0], [0, 1e4, 0, 0]]])
    table, starts, length = torch.zeros(1, 1), torch.tensor([0, 1]), torch.tensor([4])
    out = paged_attention(q, kv, table, starts, length, 1.0)
    assert out[0, :, 0].tolist() == [30.0, 20.0]
