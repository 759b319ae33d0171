"""A whole model by kernels gives the logits of the plain steps."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")
pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")

from dataclasses import replace

from influence.engines.base import Step
from influence.engines.torch import placement
from influence.engines.torch.engine import TorchEngine
from influence.engines.torch.ops import PLAIN, Ops
from influence.engines.torch.triton.table import TRITON
from support.kernel_device import DEVICE
from support.random_specs import Extras, random_weights, small_spec


def rows_of(ops: Ops, **fields: object) -> np.ndarray:
    """Logits of a prompt, then of one token alone, then of a chunk and a token in one step."""
    spec = small_spec(n_layers=2, **fields)
    weights = random_weights(spec, Extras(biases=True, post_norms=True))
    where = replace(placement.on_cpu(), device=DEVICE, ops=ops)
    engine = TorchEngine(spec, weights, where, n_blocks=lambda: 8)
    one, other = engine.new_session(64), engine.new_session(64)
    steps = [[Step(one, [1, 2, 3, 4], 4)], [Step(one, [5])], [Step(other, [3, 1, 2], 2), Step(one, [6])]]
    rows = []
    for batch in steps:
        engine.forward(batch)
        rows.append(engine.logits().copy())
    return np.concatenate(rows)


@pytest.mark.parametrize(
    "fields",
    [{"attention_softcap": 20.0, "layer_window": (None, 3)}, {"qk_norm": "head", "parallel_block": True}],
    ids=["windows and a soft-cap", "qk-norm in a parallel block"],
)
def test_a_model_by_kernels_gives_the_plain_logits(fields: dict[str, object]) -> None:
    np.testing.assert_allclose(rows_of(TRITON, **fields), rows_of(PLAIN, **fields), atol=1e-4)
