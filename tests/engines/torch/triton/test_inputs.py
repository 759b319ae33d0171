"""What a step begins with, by kernels, is what the plain steps give."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")
pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")

from influence.engines.torch import ops
from influence.engines.torch.triton import steps
from support.kernel_device import DEVICE, values


def test_embeddings_are_those_of_the_tokens() -> None:
    embed = values(7, 1100, dtype=torch.bfloat16)
    token_ids = torch.tensor([6, 0, 6, 3], device=DEVICE)
    assert torch.equal(steps.embedded(embed, token_ids, 1.5), ops.embedded(embed, token_ids, 1.5))


@pytest.mark.parametrize("shape", [(5,), (3, 5)], ids=["of all", "of each"])
def test_angles_are_those_of_the_positions(shape: tuple[int, ...]) -> None:
    positions, frequencies = torch.tensor([0, 11, 100_000], device=DEVICE), values(*shape).abs()
    for got, plain in zip(
        steps.turns(positions, frequencies, 1.2), ops.turns(positions, frequencies, 1.2), strict=True
    ):
        torch.testing.assert_close(got, plain, rtol=1e-6, atol=1e-6)


def test_places_follow_the_tables() -> None:
    tables = torch.randint(0, 1000, (40, 9), dtype=torch.int32, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(40) * 14
    got = steps.places(tables.to(DEVICE), positions.to(DEVICE))
    plain = ops.places(tables.to(DEVICE), positions.to(DEVICE))
    assert all(
        torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(got, plain, strict=True)
    )
