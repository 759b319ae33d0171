"""`influence verify`: what is damaged, and that only this comes anew."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from influence.cli import sealed
from support.cli import Outcome, run_python
from support.downloads import content_of
from support.fake_hub import FakeHub
from support.hub_models import FOLDER, NAME, SHARDS, published, sharded

Run = Callable[..., Outcome]
BLOCK = 1 << 20
TOKEN = "hf_verySecretTokenOfATest"


@pytest.fixture
def hub(fake_hub: FakeHub, influence: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A hub, and a model of it in ./models/; what was asked for so far is forgotten."""
    monkeypatch.chdir(tmp_path)
    fake_hub.add_repo(NAME, sharded())
    assert influence("download", NAME, "-r", fake_hub.url, "--quiet").exit_code == 0
    fake_hub.log.clear()
    return fake_hub


def flip(path: Path, *places: int) -> None:
    """One bit at each place, with size and time as before."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def as_json(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outcome.stdout)
    return found


@pytest.mark.parametrize("named", [NAME, str(FOLDER)])
def test_a_sound_model_is_said_to_be_and_nobody_is_asked(influence: Run, hub: FakeHub, named: str) -> None:
    outcome = influence("verify", named)
    assert outcome.exit_code == 0
    assert outcome.stdout == f"{NAME}: all 6 files, 9.0 MB, are as they were published\n"
    assert as_json(influence("verify", named, "--json"))["sound"]
    assert influence("verify", named, "--repair").exit_code == 0
    assert hub.log == []


def test_damage_is_listed_with_its_bytes(influence: Run, hub: FakeHub) -> None:
    flip(FOLDER / SHARDS[1], 5, BLOCK + 5, 3_000_000)
    (FOLDER / "config.json").unlink()
    outcome = influence("verify", NAME)
    assert outcome.exit_code == 1
    assert outcome.stdout.splitlines() == [
        "config.json is missing",
        "  bytes 0 to 1",
        f"{SHARDS[1]} has other bytes than were published",
        "  bytes 0 to 3000000",
        f"{NAME}: 2 of 6 files are damaged, 3.0 MB of 9.0 MB",
    ]
    assert f"hint: `influence verify {NAME} --repair`" in outcome.stderr
    facts = as_json(influence("verify", NAME, "--json"))
    assert not facts["sound"] and not facts["repaired"]
    assert [entry["ranges"] for entry in facts["damaged"]] == [[[0, 2]], [[0, 3_000_001]]]
    assert hub.log == []


def test_a_repair_fetches_the_bad_ranges_alone_from_where_the_model_came(
    influence: Run, hub: FakeHub
) -> None:
    flip(FOLDER / SHARDS[1], 5, 2 * BLOCK + 5)
    outcome = influence("verify", NAME, "--repair")
    assert outcome.exit_code == 0
    bad = BLOCK + (3_000_001 - 2 * BLOCK)
    assert hub.bytes_served == bad
    assert "repaired" in outcome.stdout
    assert influence("verify", NAME).exit_code == 0
    there = published(hub)
    assert content_of(FOLDER) == {path: there[path] for path in content_of(FOLDER)}


def test_a_repair_takes_the_same_commit_though_the_branch_has_moved(influence: Run, hub: FakeHub) -> None:
    right = content_of(FOLDER)
    hub.add_commit(NAME, {"config.json": b"new", "model.safetensors": b"new"})
    flip(FOLDER / SHARDS[0], 5)
    facts = as_json(influence("verify", NAME, "--repair", "--json", "--mirror", hub.other_url))
    assert facts["repaired"] and facts["sound"]
    assert content_of(FOLDER) == right
    assert "hub" not in {request.origin for request in hub.log}


def test_a_repair_from_a_hub_that_lost_the_model_fails_and_says_so(influence: Run, hub: FakeHub) -> None:
    flip(FOLDER / SHARDS[0], 5)
    del hub.repos[NAME]
    outcome = influence("verify", NAME, "--repair", "--token", TOKEN)
    assert outcome.exit_code == 1
    assert "error: " in outcome.stderr and "hint: " in outcome.stderr
    assert TOKEN not in outcome.stdout + outcome.stderr


def test_what_was_not_downloaded_can_not_be_verified(influence: Run, model_copy: Path) -> None:
    outcome = influence("verify", str(model_copy))
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert "no .influence/manifest.json to compare with" in outcome.stderr
    assert "hint: only a model that influence downloaded can be verified" in outcome.stderr
    assert influence("verify", "org/nowhere").exit_code == 1
    assert not (model_copy / ".influence").exists()


@pytest.mark.parametrize("content", [b'{"format": 1, "repo": 5}', b"", b"[1]"])
def test_a_manifest_that_is_none_is_no_crash(influence: Run, hub: FakeHub, content: bytes) -> None:
    (FOLDER / ".influence" / "manifest.json").write_bytes(content)
    outcome = influence("verify", NAME)
    assert outcome.exit_code == 1
    assert "bug" not in outcome.stderr


def test_in_a_process_that_may_open_no_socket_it_works(hub: FakeHub) -> None:
    flip(FOLDER / SHARDS[0], 5)
    source = f"""
import sys
from {sealed.__name__} import attempts, seal
seal()
from influence.cli.main import main
codes = [main(["verify", "{NAME}"]), main(["list"]), main(["rm", "{NAME}", "--yes"])]
sys.exit(0 if codes == [1, 0, 0] and not attempts() else f"{{codes}} {{attempts()}}")
"""
    done = run_python(source)
    assert done.returncode == 0, done.stderr
