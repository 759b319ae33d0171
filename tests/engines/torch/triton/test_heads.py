"""Rope, the cache and attention as kernels against the plain steps, and answers that can be read off."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")
pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")

from influence.engines.paging import BLOCK_SIZE
from influence.engines.torch import ops
from influence.engines.torch.matrices import Heads, Linear, Norm
from influence.engines.torch.triton import launch
from influence.engines.torch.triton.table import TRITON
from influence.models.spec import QkNorm, Rope
from support.kernel_device import DEVICE, paged, values

SLOTS = torch.tensor([130, 3, 64], device=DEVICE)


def project_both(
    n: int,
    rotary_dim: int,
    interleaved: bool,
    qk_norm: QkNorm = "none",
    norm_shapes: tuple[tuple[int, ...], ...] = (),
) -> tuple[torch.Tensor, ...]:
    """q and the cache by the kernels, then by the plain steps: 2 heads over 1, of 12 dimensions."""
    heads = Heads(2, 1, 12, qk_norm)
    rope = Rope(1e4, rotary_dim, interleaved) if rotary_dim else None
    cos, sin = (values(n, rotary_dim // 2, seed=s) if rope else None for s in (1, 2))
    norms = [Norm("rms", 1e-5, 0.0, values(*shape, seed=3)) for shape in norm_shapes] or [None, None]
    x, norm = values(n, 40), Norm("layer", 1e-5, 1.0, values(40, seed=4))
    weights = Linear(values(4 * 12, 40, seed=5) / 10, values(4 * 12, seed=6))
    results = []
    for table in (TRITON, ops.PLAIN):
        kv = torch.full((2, 3, BLOCK_SIZE, 1, 12), 7.0, device=DEVICE)
        q = table.project_heads(x, norm, weights, cos, sin, rope, kv, SLOTS[:n], heads, *norms)
        results += [q, kv]
    return tuple(results)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("rotary_dim", [0, 6, 12])
@pytest.mark.parametrize("interleaved", [False, True])
def test_heads_are_projected_turned_and_stored(n: int, rotary_dim: int, interleaved: bool) -> None:
    q, kv, plain_q, plain_kv = project_both(n, rotary_dim, interleaved)
    torch.testing.assert_close(q, plain_q, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kv, plain_kv, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    ("qk_norm", "shapes"),
    [("head", ((12,), (12,))), ("head", ((2, 12), (1, 12))), ("full", ((24,), (12,)))],
    ids=["head", "weights of each head", "full"],
)
def test_q_and_k_are_normed_before_they_turn(
    n: int, qk_norm: QkNorm, shapes: tuple[tuple[int, ...], ...]
) -> None:
    q, kv, plain_q, plain_kv = project_both(n, 6, True, qk_norm, shapes)
    torch.testing.assert_close(q, plain_q, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kv, plain_kv, rtol=1e-4, atol=1e-4)


def attend_both(
    n_queries: list[int],
    lengths: list[int],
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    window: int | None = None,
    softcap: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    kv, tables = paged(lengths, n_kv_heads, head_dim, dtype)
    q = values(sum(n_queries), n_heads, head_dim, seed=8, dtype=dtype)
    starts = torch.tensor([0, *n_queries], device=DEVICE).cumsum(0).int()
    given = (
        q,
        kv,
        tables,
        starts,
        torch.tensor(lengths, dtype=torch.int32, device=DEVICE),
        0.3,
        window,
        softcap,
    )
    return TRITON.paged_attention(*given), ops.paged_attention(*given)


@pytest.mark.parametrize("n_queries", [[1, 1, 1], [65, 1, 7]], ids=["decode", "mixed"])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (1, None), (70, 2.0)])
def test_attention_is_the_plain_one(n_queries: list[int], window: int | None, softcap: float | None) -> None:
    got, plain = attend_both(n_queries, [130, 64, 7], 6, 2, 24, window, softcap)
    torch.testing.assert_close(got, plain, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("n_heads", "n_kv_heads", "head_dim"), [(2, 2, 16), (7, 1, 40), (18, 1, 8)], ids=["own", "of 7", "of 18"]
)
@pytest.mark.parametrize("n_queries", [1, 20])
def test_any_group_of_heads_and_any_size_fill_a_tile(
    n_queries: int, n_heads: int, n_kv_heads: int, head_dim: int
) -> None:
    got, plain = attend_both([n_queries, n_queries], [200, 70], n_heads, n_kv_heads, head_dim)
    torch.testing.assert_close(got, plain, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_attention_in_half_precision_is_within_its_rounding(dtype: torch.dtype, error: float) -> None:
    got, plain = attend_both([1, 9], [150, 40], 4, 2, 32, dtype=dtype)
    torch.testing.assert_close(got, plain, rtol=0, atol=error)


def test_splits_are_combined_in_order_and_the_counters_stay_at_zero() -> None:
    """One sequence is split; most parts of a short one see nothing, and add nothing."""
    for length in (3, 500):
        (first, plain), (second, _) = (attend_both([1], [length], 4, 2, 16) for _ in range(2))
        assert torch.equal(first, second)
        torch.testing.assert_close(first, plain, rtol=1e-5, atol=2e-6)
    assert launch.arrivals(DEVICE).count_nonzero() == 0


@pytest.mark.parametrize("n_queries", [1, 2])
def test_a_query_that_is_one_key_finds_that_key_s_value(n_queries: int) -> None:
    """Keys are unit vectors and a query is 1e4 times one of them: softmax is one-hot, the value shows by eye."""
    kv = torch.full((2, 1, BLOCK_SIZE, 1, 4), torch.nan)
    kv[0, 0, :4, 0] = torch.eye(4)
    kv[1, 0, :4, 0] = torch.tensor([[10.0], [20.0], [30.0], [40.0]])
    q = torch.tensor([[[0, 0, 1e4, 0], [0, 1e4, 0, 0]]]).expand(n_queries, 2, 4).contiguous()
    tensors = (q, kv, torch.zeros(1, 1, dtype=torch.int32), torch.tensor([0, n_queries], dtype=torch.int32))
    length = torch.tensor([4], dtype=torch.int32, device=DEVICE)
    out = TRITON.paged_attention(*(t.to(DEVICE) for t in tensors), length, 1.0)
    assert out[-1, :, 0].tolist() == [30.0, 20.0]
