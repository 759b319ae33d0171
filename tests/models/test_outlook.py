"""What a list tells of a model agrees with what its config.json would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from influence.errors import UnsupportedModel
from influence.hub.records import summary_of
from influence.models.config import Config
from influence.models.outlook import Outlook, outlook
from influence.models.registry import FAMILIES, REFUSALS, family_of


def outlook_on(**facts: Any) -> Outlook:
    summary = summary_of({"id": "org/name", **facts})
    assert summary is not None
    return outlook(summary)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_is_supported_by_its_config_or_its_tag(model_type: str) -> None:
    assert outlook_on(config={"model_type": model_type}).is_supported
    assert outlook_on(tags=["transformers", "safetensors", model_type]).is_supported


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.kind)
def test_every_known_kind_that_does_not_run_is_named_by_its_config_or_its_tag(refusal: Any) -> None:
    for model_type in sorted(refusal.model_types):
        assert outlook_on(config={"model_type": model_type}).problem == refusal.kind
        assert outlook_on(tags=["safetensors", model_type]).problem == refusal.kind


def test_what_the_list_does_not_tell_is_not_guessed() -> None:
    nothing = outlook_on()
    assert (nothing.is_supported, nothing.weights_bytes, nothing.problem) == (None, None, "")
    assert outlook_on(safetensors={"parameters": {"NEW9": 5}}).weights_bytes is None


def test_the_weights_are_the_sum_over_their_dtypes() -> None:
    found = outlook_on(safetensors={"parameters": {"F32": 3, "BF16": 5, "I8": 1, "F4": 4}})
    assert found.weights_bytes == 12 + 10 + 1 + 2


def test_real_configs_get_the_same_verdict_from_a_list_as_from_the_file(shared_data: Path) -> None:
    """The Hub's list holds these three keys of a config.json."""
    n_configs = 0
    for path in sorted((shared_data / "configs").glob("*.json")):
        values = json.loads(path.read_text())
        listed = {
            key: values[key]
            for key in ("model_type", "architectures", "quantization_config")
            if key in values
        }
        try:
            family_of(Config(values, path))
            runs = True
        except UnsupportedModel:
            runs = False
        assert outlook_on(config=listed).is_supported is runs, path.name
        n_configs += 1
    assert n_configs > 10
