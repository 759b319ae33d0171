"""`influence inspect`: the model and the prompt, as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import MODEL, Outcome

Run = Callable[..., Outcome]


def inspected(influence: Run, *args: str) -> dict[str, Any]:
    outcome = influence("inspect", *args, "--json")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    data: dict[str, Any] = json.loads(outcome.stdout)
    return data


def test_a_model_shows_its_spec_and_all_its_tensors(influence: Run, model_copy: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    data = inspected(influence, "model", "-m", str(model_copy), "--all")
    config = json.loads((model_copy / "config.json").read_text())
    assert data["model_type"] == config["model_type"]
    assert data["spec"]["n_layers"] == config["num_hidden_layers"]
    with safetensors.safe_open(model_copy / "model.safetensors", "numpy") as file:
        expected = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert {tensor["name"]: tensor["shape"] for tensor in data["tensors"]} == expected
    assert data["weights_bytes"] == sum(tensor["bytes"] for tensor in data["tensors"])
    [file_facts] = data["files"]
    assert file_facts == {
        "name": "model.safetensors",
        "bytes": (model_copy / "model.safetensors").stat().st_size,
    }


def test_layers_that_are_alike_share_a_line(influence: Run) -> None:
    grouped = inspected(influence, "model", "-m", MODEL)
    every = inspected(influence, "model", "-m", MODEL, "--all")
    n_layers = grouped["spec"]["n_layers"]
    counts = {tensor["name"]: tensor["count"] for tensor in grouped["tensors"]}
    assert counts["model.layers.*.self_attn.q_proj.weight"] == n_layers
    assert counts["model.embed_tokens.weight"] == 1
    assert sum(counts.values()) == len(every["tensors"])
    assert sum(t["bytes"] for t in grouped["tensors"]) == grouped["weights_bytes"]


def test_a_model_reads_as_text_too(influence: Run) -> None:
    text = influence("inspect", "model", "-m", MODEL).stdout
    for part in ("parameters", "kv cache", "spec\n  vocab_size", "files\n", "tensors\n  model."):
        assert part in text


def test_a_prompt_shows_text_tokens_and_one_bos(influence: Run) -> None:
    data = inspected(influence, "prompt", "Once upon a time", "-m", MODEL, "--raw")
    assert data["text"] == "Once upon a time"
    assert data["used_template"] is False
    assert all(set(token) == {"id", "token"} for token in data["tokens"])
    assert data["bos"]["verdict"].startswith("ok: ")
    assert data["bos"]["count_at_start"] == int(data["bos"]["added_by_tokenizer"])


def test_a_chat_prompt_is_rendered_by_the_template(influence: Run) -> None:
    data = inspected(influence, "prompt", "Hello there", "-m", MODEL, "--system", "Be kind.")
    assert data["used_template"] is True
    assert "Hello there" in data["text"] != "Hello there"
    assert data["bos"]["verdict"].startswith("ok: ")


def test_every_end_names_the_files_that_say_so(influence: Run, model_copy: Path) -> None:
    config = json.loads((model_copy / "config.json").read_text())
    eos_id = config["eos_token_id"]
    (model_copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos_id, 3]}))
    ends = {
        end["id"]: end["from"] for end in inspected(influence, "prompt", "x", "-m", str(model_copy))["eos"]
    }
    assert ends[3] == ["generation_config.json"]
    assert ends[eos_id][:2] == ["generation_config.json", "config.json"]


def test_a_prompt_reads_as_text_too(influence: Run) -> None:
    text = influence("inspect", "prompt", "Once", "-m", MODEL, "--raw").stdout
    assert text.startswith("prompt, as it is, without a chat template:\nOnce\n\n")
    assert "begins:" in text
    assert "ends at:" in text


def test_a_missing_and_a_doubled_bos_are_told() -> None:
    from influence.cli.commands.inspect_prompt import _bos_audit
    from influence.generation.prompt import Prompt

    class Adds:
        bos_id, bos_token, adds_bos = 1, "<s>", True

    class HasNone:
        bos_id, bos_token, adds_bos = None, None, False

    def verdict(tokenizer: Any, ids: list[int], *, used_template: bool = True) -> str:
        audit = _bos_audit(tokenizer, Prompt("", ids, used_template))
        return str(audit["verdict"]).partition(":")[0]

    assert verdict(Adds(), [1, 5]) == "ok"
    assert verdict(Adds(), [1, 1, 5]) == "doubled"
    assert verdict(Adds(), [5, 1]) == "missing"
    assert verdict(HasNone(), [5]) == "ok"
