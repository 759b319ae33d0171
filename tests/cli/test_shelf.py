"""`list` and `show`: what lies on this disk, sound or not, ours or the user's own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from influence import demo
from influence.cli import shelf
from influence.hub.manifest import Manifest, write_manifest
from influence.hub.safe_folder import SafeFolder
from support.cli import MODEL, Outcome

Run = Callable[..., Outcome]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ./models/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def put(models: Path, name: str) -> Path:
    return Path(shutil.copytree(demo.folder(), models / name))


def download(models: Path, repo: str, verified_at: float = 1_700_000_000.0) -> Path:
    """A copy of the demo with the manifest of a download."""
    folder = put(models, repo.replace("/", "_"))
    (folder / ".influence").mkdir()
    with SafeFolder(folder) as safe:
        write_manifest(safe, Manifest(repo, "main", COMMIT, "https://hub.example", verified_at, ()))
    return folder


def listed(influence: Run) -> list[dict[str, Any]]:
    outcome = influence("list", "--json")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(outcome.stdout)["models"]
    return found


def shown(influence: Run, model: str) -> dict[str, Any]:
    outcome = influence("show", model, "--json")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    found: dict[str, Any] = json.loads(outcome.stdout)
    return found


def test_a_download_is_listed_by_its_repository_and_an_own_folder_by_its_path(
    influence: Run, models: Path
) -> None:
    download(models, "some-org/Tiny_Story-2M")
    put(models, "mine")
    own, downloaded = listed(influence)
    assert (own["name"], downloaded["name"]) == ("models/mine", "some-org/Tiny_Story-2M")
    assert downloaded["folder"] == "models/some-org_Tiny_Story-2M"
    for model in (own, downloaded):
        assert influence("show", model["name"]).exit_code == 0


def test_a_download_that_was_moved_is_listed_by_a_name_that_finds_it(influence: Run, models: Path) -> None:
    download(models, "org/name").rename(models / "copy")
    [model] = listed(influence)
    assert model["name"] == "models/copy"
    assert shown(influence, model["name"])["repo"] == "org/name"


def test_a_listed_model_has_its_sizes(influence: Run, models: Path) -> None:
    folder = put(models, "mine")
    [model] = listed(influence)
    config = json.loads((folder / "config.json").read_text())
    assert model["architecture"] == config["model_type"]
    assert model["context"] == config["max_position_embeddings"]
    assert model["dtype"] == "BF16"
    assert model["size_bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    assert model["problem"] is None
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(folder / "model.safetensors", "numpy") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    assert model["parameters"] == sum(rows * (rest[0] if rest else 1) for rows, *rest in shapes)


def cut(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100_000)


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def leave_a_layer_over(folder: Path) -> None:
    """Weights that the config leaves no place for."""
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] -= 1
    (folder / "config.json").write_text(json.dumps(config))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (empty, "there is no config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    "cut": (cut, "model.safetensors"),
    "foreign": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "mamba"}'),
        "mamba: state",
    ),
    "left over": (leave_a_layer_over, "have no place in this model"),
    "no json": (lambda folder: (folder / "config.json").write_text("<html>"), "not valid JSON"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_listed_with_the_reason_and_hides_no_other(
    influence: Run, models: Path, case: str
) -> None:
    spoil, reason = BROKEN[case]
    put(models, "sound")
    spoil(put(models, "broken"))
    broken, sound = listed(influence)
    assert reason in broken["problem"]
    assert sound["problem"] is None
    text = influence("list").stdout
    assert "models/broken  can't be run: " in text
    assert text.splitlines()[0].split() == ["model", "architecture", "parameters", "dtype", "size", "context"]


def test_what_is_no_folder_is_not_listed(influence: Run, models: Path) -> None:
    (models / "notes.txt").write_text("x")
    (models / ".cache").mkdir()
    assert listed(influence) == []


def test_an_empty_shelf_is_said_on_stderr(influence: Run, models: Path) -> None:
    outcome = influence("list")
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert "no models in ./models/" in outcome.stderr
    models.rmdir()
    assert listed(influence) == []


def test_an_unfinished_download_is_listed_as_that(influence: Run, models: Path) -> None:
    (models / "org_name" / ".influence" / "parts").mkdir(parents=True)
    (models / "org_name" / ".influence" / "parts" / "x.part").write_bytes(b"1234")
    [model] = listed(influence)
    assert model["is_partial"] and model["problem"].startswith("its download is not complete")
    assert "models/org_name  can't be run: its download is not complete" in influence("list").stdout
    assert "not complete" in influence("show", "org/name").stderr


def test_a_sound_model_with_an_unfinished_update_is_shown_with_a_note(influence: Run, models: Path) -> None:
    folder = download(models, "org/name")
    (folder / ".influence" / "parts").mkdir()
    (folder / ".influence" / "parts" / "x.part").write_bytes(b"")
    outcome = influence("show", "org/name")
    assert outcome.exit_code == 0
    assert "what was there before is used" in outcome.stderr
    done = influence("generate", "Once", "-m", "org/name", "--max-tokens", "1")
    assert (done.exit_code, "what was there before is used" in done.stderr) == (0, True)


def test_a_name_with_line_breaks_stays_on_its_line(influence: Run, models: Path) -> None:
    put(models, "two\nlines")
    assert len(influence("list").stdout.splitlines()) == 2


def test_a_model_shows_where_it_came_from_and_when_it_was_verified(influence: Run, models: Path) -> None:
    download(models, "org/name")
    found = shown(influence, "org/name")
    assert (found["repo"], found["commit"]) == ("org/name", COMMIT)
    assert found["verified_at"] == "2023-11-14T22:13:20+00:00"


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_manifest_leaves_a_folder_of_the_users_own(
    influence: Run, models: Path, content: bytes
) -> None:
    (download(models, "org/name") / ".influence" / "manifest.json").write_bytes(content)
    assert listed(influence)[0]["name"] == "models/org_name"
    assert shown(influence, "org/name")["commit"] is None


@pytest.mark.parametrize("seconds", [1e300, -1e300])
def test_a_time_that_is_none_is_left_out(influence: Run, models: Path, seconds: float) -> None:
    download(models, "org/name", seconds)
    assert shown(influence, "org/name")["verified_at"] is None


def test_the_demo_shows_its_template_and_its_end(influence: Run) -> None:
    found = shown(influence, MODEL)
    assert found["chat_templates"] == ["default"]
    assert found["eos"] == [{"id": 1, "token": "<|end|>"}]
    text = influence("show", MODEL).stdout
    for part in ("architecture   llama", "chat template  default", "ends at        1 '<|end|>'"):
        assert part in text


def test_ids_are_those_of_all_files_and_known_without_a_tokenizer(influence: Run, model_copy: Path) -> None:
    (model_copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 1]}))
    assert [end["id"] for end in shown(influence, str(model_copy))["eos"]] == [1, 3]
    (model_copy / "tokenizer.json").unlink()
    found = shown(influence, str(model_copy))
    assert found["eos"] == [{"id": 1, "token": None}, {"id": 3, "token": None}]
    assert "tokenizer.json" in found["tokenizer_problem"]
    assert "can't be read" in influence("show", str(model_copy)).stdout


def test_an_end_beyond_the_vocabulary_has_no_text(influence: Run, model_copy: Path) -> None:
    (model_copy / "generation_config.json").write_text(json.dumps({"eos_token_id": 1_000_000}))
    assert {"id": 1_000_000, "token": None} in shown(influence, str(model_copy))["eos"]


def test_a_model_without_a_template_says_so(influence: Run, model_copy: Path) -> None:
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (model_copy / name).unlink(missing_ok=True)
    assert shown(influence, str(model_copy))["chat_templates"] == []
    assert "none: prompts are given as they are" in influence("show", str(model_copy)).stdout


CARDS = {
    "---\nlicense: apache-2.0\ntags:\n- x\n---\n# Title\n": "apache-2.0",
    "---\r\nlanguage: en\r\nlicense: 'mit'\r\n---\r\n": "mit",
    "---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\n---": "llama3",
    "---\nlicense: other\n---\n": "other",
    "---\nlicense:\n- cc-by-4.0\n---\n": "cc-by-4.0",
    "---\nlicense: gemma # see below\n---\n": "gemma",
    "---\ntags: [x]\n---\nlicense: not here\n": None,
    "# license: mit\nlicense: mit\n": None,
    "---\nlicense: mit\n": None,
    "---\nlicense:\n---\n": None,
    "": None,
}


@pytest.mark.parametrize("card", CARDS)
def test_the_licence_is_what_the_model_card_names(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert shelf.licence(tmp_path) == CARDS[card]


def test_a_card_that_is_absent_or_no_text_names_no_licence(tmp_path: Path) -> None:
    assert shelf.licence(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert shelf.licence(tmp_path) is None
    (tmp_path / "README.md").unlink()
    os.mkfifo(tmp_path / "README.md")
    assert shelf.licence(tmp_path) is None


def test_a_model_that_is_not_there_is_an_error(influence: Run, models: Path) -> None:
    outcome = influence("show", "org/name")
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert "models/org_name" in outcome.stderr
