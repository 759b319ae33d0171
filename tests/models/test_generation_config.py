"""generation_config.json is optional, validated, and joined with config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from influence.errors import InvalidConfig
from influence.models.config import Config
from influence.models.generation_config import GenerationConfig


def load(folder: Path, own: dict[str, Any] | None, **config: Any) -> GenerationConfig:
    if own is not None:
        (folder / "generation_config.json").write_text(json.dumps(own))
    return GenerationConfig.load(folder, Config(config, folder / "config.json"))


def test_a_missing_file_leaves_everything_unsaid(tmp_path: Path) -> None:
    assert load(tmp_path, None) == GenerationConfig()


def test_all_values_are_read(tmp_path: Path) -> None:
    own = {
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0,
        "repetition_penalty": 1.05,
        "max_new_tokens": 2048,
        "transformers_version": "4.43.0",
    }
    assert load(tmp_path, own) == GenerationConfig(
        eos_ids=frozenset({128001, 128008, 128009}),
        bos_id=128000,
        temperature=0.6,
        top_k=20,
        top_p=0.9,
        min_p=0.0,
        repetition_penalty=1.05,
        max_new_tokens=2048,
        do_sample=True,
    )


def test_eos_ids_are_the_union_of_both_files(tmp_path: Path) -> None:
    assert load(tmp_path, {"eos_token_id": [5, 7]}, eos_token_id=2).eos_ids == {2, 5, 7}
    assert load(tmp_path, {"eos_token_id": None}, eos_token_id=[2]).eos_ids == {2}


def test_the_own_bos_wins_over_the_config(tmp_path: Path) -> None:
    assert load(tmp_path, {"bos_token_id": 3}, bos_token_id=1).bos_id == 3
    assert load(tmp_path, {}, bos_token_id=1).bos_id == 1
    assert load(tmp_path, {"bos_token_id": None}, bos_token_id=None).bos_id is None


def test_null_says_nothing(tmp_path: Path) -> None:
    own = dict.fromkeys(
        ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens", "do_sample")
    )
    assert load(tmp_path, own) == GenerationConfig()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", -1),
        ("temperature", "0.7"),
        ("temperature", [0.7]),
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_p", 0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("repetition_penalty", 0),
        ("max_new_tokens", 0),
        ("do_sample", "yes"),
        ("eos_token_id", "</s>"),
        ("eos_token_id", [1, None]),
        ("eos_token_id", -1),
        ("eos_token_id", 10**12),
        ("bos_token_id", 1.0),
    ],
)
def test_an_impossible_value_is_named(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=rf"generation_config\.json: {key}"):
        load(tmp_path, {key: value})


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="NaN"):
        load(tmp_path, {"temperature": float("nan")})


def test_an_eos_of_the_config_is_validated_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"/config\.json: eos_token_id"):
        load(tmp_path, None, eos_token_id=-5)
