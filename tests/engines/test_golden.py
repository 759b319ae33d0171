"""Every engine gives the logits that transformers once gave, without torch being here.

tools/make_golden.py wrote the files; the weights are made anew from their seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from influence.engines import native
from influence.engines.base import Engine, Step
from influence.engines.reference import ReferenceEngine
from influence.models.model import Model, open_model
from influence.models.registry import FAMILIES
from support import torch_engines
from support.cases import Case
from support.checkpoints import make_checkpoint

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
TOLERANCE = 2e-4
MAX_FILE_BYTES = 100_000

ENGINES: dict[str, Callable[[Model], Engine]] = {
    "reference": lambda model: ReferenceEngine(model.spec, model.weights),
    "reference-float64": lambda model: ReferenceEngine(model.spec, model.weights, dtype=np.float64),
}


def _native(kernels: str) -> Callable[[Model], Engine]:
    return lambda model: native.load(model.spec, model.weights, kernels=kernels, threads=1)


def _torch(name: str) -> Callable[[Model], Engine]:
    return lambda model: torch_engines.make(name, model.spec, model.weights)


ENGINES |= {f"native-{name}": _native(name) for name in native.kernel_names()}
ENGINES |= {name: _torch(name) for name in torch_engines.NAMES}


def golden_cases() -> list[Any]:
    goldens = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))]
    return [pytest.param(case, id=case["name"]) for golden in goldens for case in golden["cases"]]


def test_every_family_has_a_golden_file_and_none_is_large() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(FAMILIES)
    assert all(path.stat().st_size < MAX_FILE_BYTES for path in GOLDEN.glob("*.json"))


@pytest.fixture(scope="module", params=golden_cases())
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    case: dict[str, Any] = request.param
    return case


@pytest.fixture(scope="module")
def model(golden: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The golden's, for all engines: none changes its weights."""
    case = Case(golden["name"], golden["config"], len(golden["token_ids"]), golden["seed"])
    return open_model(make_checkpoint(case, tmp_path_factory.mktemp("golden")))


@pytest.mark.parametrize("engine_name", ENGINES)
def test_the_logits_are_the_golden_ones(golden: dict[str, Any], model: Model, engine_name: str) -> None:
    if not torch_engines.can_run(engine_name, model.spec):
        pytest.skip("can't be shared out to two ranks")
    token_ids = golden["token_ids"]
    engine = ENGINES[engine_name](model)
    engine.forward([Step(engine.new_session(len(token_ids)), token_ids, n_logits=len(token_ids))])
    rows = engine.logits()[golden["positions"]]
    np.testing.assert_allclose(rows, np.array(golden["logits"]), atol=TOLERANCE, rtol=0)
    engine.close()
