"""Every family gives the logits that transformers gives.

The reference engine runs checkpoints that transformers saved, and transformers
runs checkpoints that this project's own writer made (so that names and config
spellings are compared in both directions).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from influence.engines.base import Step
from influence.engines.reference import ReferenceEngine
from influence.models.model import open_model
from influence.weights.tensor import DType
from support.cases import FAMILIES, Case
from support.checkpoints import make_checkpoint, make_checkpoint_by_transformers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-4


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def transformers_logits(folder: Path, token_ids: list[int]) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Logits of all positions, computed in float32, and what the loader had to say."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    with torch.no_grad():
        logits = model(torch.tensor([token_ids]), use_cache=False).logits[0]
    return logits.numpy(), report


def our_logits(folder: Path, case: Case) -> npt.NDArray[np.float32]:
    model = open_model(folder)
    engine = ReferenceEngine(model.spec, model.weights)
    engine.forward([Step(engine.new_session(case.context), case.token_ids(), n_logits=case.n_tokens)])
    return engine.logits()


@pytest.mark.parametrize("case", FAMILIES, ids=lambda case: case.name)
def test_a_checkpoint_saved_by_transformers_gives_its_logits(case: Case, tmp_path: Path) -> None:
    folder = make_checkpoint_by_transformers(case, tmp_path)
    expected, _ = transformers_logits(folder, case.token_ids())
    assert np.abs(expected).max() > 0.5  # a model of zeros would prove nothing
    np.testing.assert_allclose(our_logits(folder, case), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", FAMILIES, ids=lambda case: case.name)
def test_transformers_reads_our_own_checkpoint_the_same_way(case: Case, tmp_path: Path) -> None:
    folder = make_checkpoint(case, tmp_path)
    expected, report = transformers_logits(folder, case.token_ids())
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    np.testing.assert_allclose(our_logits(folder, case), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("case", FAMILIES, ids=lambda case: case.name)
def test_rounded_weights_give_the_logits_of_those_weights(case: Case, dtype: DType, tmp_path: Path) -> None:
    folder = make_checkpoint(case, tmp_path, dtype)
    expected, _ = transformers_logits(folder, case.token_ids())
    np.testing.assert_allclose(our_logits(folder, case), expected, atol=TOLERANCE, rtol=0)
