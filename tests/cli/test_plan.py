"""`influence plan`: what a model takes against what is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from influence import demo
from influence.cli.commands import plan
from influence.engines import bandwidth, gpus, machine, select
from influence.errors import InvalidParameter
from influence.models.config import Config
from influence.models.model import open_model
from influence.weights.safetensors import read_header
from support.cli import MODEL, Outcome

Run = Callable[..., Outcome]
PLENTY = 1 << 40


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every run that does not say otherwise."""
    monkeypatch.setattr(bandwidth, "measure_bandwidth", lambda: 10e9)
    monkeypatch.setattr(machine, "available_memory", lambda: PLENTY)
    monkeypatch.setattr(gpus, "cuda_trace", lambda: "")
    monkeypatch.setattr(gpus, "metal_trace", lambda: "")


def planned(influence: Run, *args: str) -> dict[str, Any]:
    outcome = influence("plan", *args, "--json")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    data: dict[str, Any] = json.loads(outcome.stdout)
    return data


def source(*, missing_bytes: int = 0, free_bytes: int = 10**9) -> plan.Source:
    """The demo as a remote model would come: a config and a header, and no file."""
    folder = demo.folder()
    config = Config(json.loads((folder / "config.json").read_text()), Path("org/name/config.json"))
    tensors = read_header(folder / "model.safetensors").tensors
    return plan.Source("org/name", config, tensors, 4_000_000, missing_bytes, free_bytes)


def test_a_cache_of_eight_bits_is_planned_for_when_asked_for(influence: Run) -> None:
    model = open_model(demo.folder())
    data = planned(influence, MODEL, "--context", "100", "--kv-type", "q8")
    assert data["kv_bytes"] == select.session_kv_bytes(model, 100, "q8")
    assert data["needed_bytes"] < planned(influence, MODEL, "--context", "100")["needed_bytes"]


def test_the_parts_of_the_memory_are_those_of_the_model(influence: Run) -> None:
    model = open_model(demo.folder())
    data = planned(influence, MODEL, "--context", "100")
    assert data["weights_bytes"] == model.weights.size_bytes
    assert data["kv_bytes"] == 128 * select.kv_bytes_per_token(model)
    assert data["needed_bytes"] == data["weights_bytes"] + data["kv_bytes"] + data["activation_bytes"]
    assert (data["available_bytes"], data["verdict"]) == (PLENTY, "fits")
    assert data["largest_context"] == model.spec.max_context
    assert data["disk"]["files_bytes"] == sum(file.stat().st_size for file in demo.folder().iterdir())
    assert data["disk"]["missing_bytes"] == 0


def test_the_speed_is_the_bandwidth_over_the_bytes_of_a_token(influence: Run) -> None:
    data = planned(influence, MODEL, "--context", "512")
    read = data["weights_bytes"] + 256 * data["kv_bytes_per_token"]
    assert data["speed"] == {
        "memory_bytes_per_s": 10**10,
        "decode_tokens_per_s": pytest.approx(10**10 / read),
    }


def test_an_unnamed_context_is_the_usual_one_or_the_models_own_limit(
    influence: Run, model_copy: Path
) -> None:
    config = json.loads((model_copy / "config.json").read_text())
    assert planned(influence, MODEL)["context"] == config["max_position_embeddings"]
    (model_copy / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1 << 20}))
    assert planned(influence, str(model_copy))["context"] == 4096


def test_a_context_beyond_the_models_limit_is_bad_usage(influence: Run) -> None:
    outcome = influence("plan", MODEL, "--context", "1000000")
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "this model's limit" in outcome.stderr


def test_a_memory_that_holds_less_names_the_weights_or_the_largest_context() -> None:
    all_of_it = plan.facts_of(source(), 1024, PLENTY, 10e9)
    available = all_of_it["needed_bytes"] - 500 * all_of_it["kv_bytes_per_token"]
    assert plan.facts_of(source(), 1024, available, 10e9)["verdict"] == "fits with --weights packed"
    facts = plan.facts_of(source(), 1024, available, 10e9)
    assert (facts["fits"], facts["largest_context"]) == (False, 512)
    assert "fits with --weights packed; 768.0 kB are missing for 1024" in plan._as_text(facts)
    assert facts["speed"] == plan.facts_of(source(), 512, PLENTY, 10e9)["speed"]


def test_a_memory_smaller_than_the_weights_is_told_with_the_numbers() -> None:
    facts = plan.facts_of(source(), 1024, 1_000_000, 10e9)
    assert (facts["verdict"], facts["largest_context"]) == ("does not fit", 0)
    assert facts["speed"]["decode_tokens_per_s"] is None
    text = plan._as_text(facts)
    assert "does not fit: 11.5 MB are missing" in text
    assert "as slow as the disk" in text


def test_a_model_that_is_elsewhere_is_planned_from_its_headers() -> None:
    text = plan._as_text(plan.facts_of(source(missing_bytes=3_000_000), None, PLENTY, 10e9))
    assert "org/name: llama, 1.9 M parameters, BF16" in text
    assert "3.0 MB of 4.0 MB to download, 1.0 GB free\n" in text


def test_a_disk_that_is_too_small_is_told() -> None:
    facts = plan.facts_of(source(missing_bytes=3_000_000, free_bytes=2_000_000), None, PLENTY, 10e9)
    assert not facts["disk"]["fits"]
    assert "2.0 MB free: NOT ENOUGH\n" in plan._as_text(facts)


def test_a_context_is_checked_wherever_the_model_is() -> None:
    with pytest.raises(InvalidParameter, match="1 to 1024"):
        plan.facts_of(source(), 1025, PLENTY, 10e9)


def test_a_plan_reads_as_text_too(influence: Run) -> None:
    text = influence("plan", MODEL).stdout
    titles = [line.split("  ")[0] for line in text.splitlines()]
    assert titles == ["model", "weights", "kv cache", "activations", "memory", "disk", "verdict", "speed"]
    assert "fits; the largest context that does is 1024" in text
    assert "tokens/s, at this memory's 10.0 GB/s" in text


def test_a_gpu_that_is_not_planned_for_is_named(influence: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert influence("plan", MODEL).stderr == ""
    monkeypatch.setattr(gpus, "cuda_trace", lambda: "/dev/nvidia0")
    assert (
        "note: planned for the cpu and its memory: a GPU is here too (/dev/nvidia0)"
        in influence("plan", MODEL).stderr
    )


def test_a_refused_model_is_refused_with_the_reason(influence: Run, model_copy: Path) -> None:
    (model_copy / "config.json").write_text(json.dumps({"model_type": "mixtral"}))
    outcome = influence("plan", str(model_copy))
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert "mixture-of-experts" in outcome.stderr


def test_a_config_of_absurd_sizes_takes_no_memory(influence: Run, model_copy: Path) -> None:
    config = json.loads((model_copy / "config.json").read_text())
    (model_copy / "config.json").write_text(json.dumps(config | {"vocab_size": 1 << 23}))
    outcome = influence("plan", str(model_copy))
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert "embed_tokens" in outcome.stderr
