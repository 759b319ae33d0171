"""`influence plan ORG/NAME`: what a model on a hub would take, before a byte of its weights moves."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from influence import demo
from influence.cli import remote_model
from influence.engines import bandwidth, gpus, machine
from support.cases import BY_NAME
from support.cli import Outcome, command, environment
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub, Virtual
from support.fake_weights import HeaderOnly, header_of, model_files

Run = Callable[..., Outcome]
NAME = "org/name"
PLENTY = 1 << 40
# The sizes of Llama 2 7B, which fills two files of 13.5 GB.
LARGE = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}
SMALL = BY_NAME[next(name for name in BY_NAME if name.startswith("llama"))].config


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bandwidth, "measure_bandwidth", lambda: 10e9)
    monkeypatch.setattr(machine, "available_memory", lambda: PLENTY)
    monkeypatch.setattr(gpus, "cuda_trace", lambda: "")
    monkeypatch.setattr(gpus, "metal_trace", lambda: "")
    monkeypatch.chdir(tmp_path)


def planned(influence: Run, hub: FakeHub, *args: str, name: str = NAME) -> dict[str, Any]:
    outcome = influence("plan", name, "-r", hub.url, "--json", *args)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    facts: dict[str, Any] = json.loads(outcome.stdout)
    return facts


def refused(influence: Run, hub: FakeHub, *args: str, name: str = NAME) -> tuple[dict[str, Any], str]:
    """The JSON of a plan that could not be made whole, and what was said."""
    outcome = influence("plan", name, "-r", hub.url, "--json", *args)
    assert outcome.exit_code == 1
    assert "\nhint: " in outcome.stderr
    return json.loads(outcome.stdout) if outcome.stdout else {}, outcome.stderr


def demo_files() -> dict[str, Path]:
    return {path.name: path for path in demo.folder().iterdir()}


def test_a_model_on_a_hub_is_planned_as_the_same_model_on_this_disk(
    influence: Run, fake_hub: FakeHub
) -> None:
    fake_hub.add_repo(NAME, demo_files())
    remote = planned(influence, fake_hub, "--context", "100")
    local = json.loads(influence("plan", "demo", "--context", "100", "--json").stdout)
    assert {key: remote[key] for key in local if key not in ("model", "disk")} == {
        key: local[key] for key in local if key not in ("model", "disk")
    }
    assert remote["disk"]["missing_bytes"] == remote["disk"]["files_bytes"]
    assert remote["disk"]["files_bytes"] == sum(file.stat().st_size for file in demo_files().values())


@pytest.mark.parametrize("n_shards", [1, 2, 7])
def test_not_a_byte_of_the_weights_moves(n_shards: int, influence: Run, fake_hub: FakeHub) -> None:
    files = model_files(LARGE, n_shards)
    fake_hub.add_repo(NAME, files)
    facts = planned(influence, fake_hub)
    assert facts["weights_bytes"] == 13_476_831_232
    assert facts["parameters"] == 6_738_415_616
    weights = [content for content in files.values() if isinstance(content, HeaderOnly)]
    headers = sum(len(content.header) for content in weights)
    others = sum(len(content) for content in files.values() if isinstance(content, bytes))
    index = len(files.get("model.safetensors.index.json", b""))
    assert fake_hub.bytes_served == headers + others + index  # the index is examined, then read
    assert list(Path.cwd().iterdir()) == []


def test_a_memory_that_is_too_small_is_told_before_the_download(
    influence: Run, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub.add_repo(NAME, model_files(LARGE, 2))
    monkeypatch.setattr(machine, "available_memory", lambda: 15 * 10**9)
    facts = planned(influence, fake_hub)
    left = 15 * 10**9 - 13_476_831_232 - facts["activation_bytes"]
    bytes_per_block = 64 * 32 * 2 * 4096 * 2  # positions, layers, keys and values, numbers, bytes of each
    assert not facts["fits"]
    assert facts["largest_context"] == left // bytes_per_block * 64 > 2000
    assert facts["verdict"] == "fits with --weights packed"
    monkeypatch.setattr(machine, "available_memory", lambda: 3 * 10**9)
    outcome = influence("plan", NAME, "-r", fake_hub.url)
    assert outcome.exit_code == 0
    assert "does not fit: " in outcome.stdout
    assert "influence download" not in outcome.stderr


def test_a_plan_lists_what_comes_and_what_not_and_ends_in_the_next_step(
    influence: Run, fake_hub: FakeHub
) -> None:
    more = {
        "pytorch_model.bin": Virtual(5_000_000),
        "onnx/a.onnx": b"x",
        "onnx/b.onnx": b"x",
        "README.md": b"#",
    }
    sha = fake_hub.add_repo(NAME, {**demo_files(), **more}, cardData={"license": "mit"})
    outcome = influence("plan", NAME, "-r", fake_hub.url)
    assert outcome.exit_code == 0
    assert f"main is {sha} on {fake_hub.url}, licence mit\n" in outcome.stdout
    chosen, left_out = outcome.stdout.split("to download:\n")[1].split("left out:\n")
    assert {line.split()[-1] for line in chosen.splitlines() if line} == {*demo_files(), "README.md"}
    assert "5.0 MB  pickled, which can run code: pytorch_model.bin" in left_out
    assert "onnx/a.onnx, onnx/b.onnx" in left_out
    assert outcome.stderr == f"get it: influence download {NAME} -r {fake_hub.url}\n"


def test_many_files_are_summed_up_for_people_and_listed_in_json(influence: Run, fake_hub: FakeHub) -> None:
    notes = {f"notes-{i:03}.txt": b"x" * 1000 for i in range(50)}
    fake_hub.add_repo(NAME, {**demo_files(), **notes, **{f"{i}.png": b"x" for i in range(9)}})
    text = influence("plan", NAME, "-r", fake_hub.url).stdout
    assert f"in {len(demo_files()) + 50 - 23} more (--json lists all)" in text
    assert "0.png, 1.png, 2.png and 6 more" in text
    facts = planned(influence, fake_hub)
    assert (len(facts["files"]), len(facts["left_out"])) == (len(demo_files()) + 50, 9)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "mixtral"}, "mixture-of-experts"),
        ({"model_type": "mamba"}, "state space"),
        ({**SMALL, "quantization_config": {"quant_method": "awq"}}, "quantised weights (awq)"),
        ({**SMALL, "num_attention_heads": "4"}, "num_attention_heads"),
        ({**SMALL, "vocab_size": 777}, "config.json makes it"),
    ],
)
def test_a_model_that_can_not_run_is_still_listed_with_the_reason(
    config: dict[str, Any], reason: str, influence: Run, fake_hub: FakeHub
) -> None:
    files = model_files(SMALL)
    fake_hub.add_repo(NAME, {**files, "config.json": json.dumps(config).encode()})
    facts, said = refused(influence, fake_hub)
    assert reason in facts["problem"] and reason in said
    assert facts["verdict"] == "can't be run here"
    assert [file["path"] for file in facts["files"]] == ["config.json", "model.safetensors"]
    text = influence("plan", NAME, "-r", fake_hub.url)
    assert (text.exit_code, "verdict  can't be run here: " in text.stdout) == (1, True)
    assert "model.safetensors" in text.stdout


def test_a_gated_model_says_where_its_licence_is_and_takes_a_token(influence: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, demo_files(), gated="manual")
    fake_hub.add_token("hf_granted", NAME)
    facts, said = refused(influence, fake_hub)
    assert (facts["verdict"], facts["gated"]) == ("not known", "manual")
    assert f"https://huggingface.co/{NAME}" in said and "--token" in said
    assert planned(influence, fake_hub, "--token", "hf_granted")["fits"]
    _, said = refused(influence, fake_hub, "--token", "hf_unknown")
    assert "hf_unknown" not in said


def test_what_is_not_there_is_named_with_the_next_step(influence: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, demo_files())
    fake_hub.add_repo("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    fake_hub.add_repo("org/empty", {"config.json": json.dumps(SMALL).encode()})
    assert "has no model org/nothing" in refused(influence, fake_hub, name="org/nothing")[1]
    assert "has no revision 'v9'" in refused(influence, fake_hub, "--revision", "v9")[1]
    assert "only weights in .bin" in refused(influence, fake_hub, name="org/pickled")[1]
    facts, said = refused(influence, fake_hub, name="org/empty")
    assert "has no weights" in said and facts["files"][0]["path"] == "config.json"


def test_an_index_that_names_a_missing_shard_is_told(influence: Run, fake_hub: FakeHub) -> None:
    files = model_files(SMALL, 3)
    del files["model-00002-of-00003.safetensors"]
    fake_hub.add_repo(NAME, files)
    assert "model-00002-of-00003.safetensors" in refused(influence, fake_hub)[1]


def test_a_tensor_in_two_shards_is_named(influence: Run, fake_hub: FakeHub) -> None:
    files = model_files(SMALL, 2)
    files["model-00002-of-00002.safetensors"] = files["model-00001-of-00002.safetensors"]
    fake_hub.add_repo(NAME, files)
    assert "is in another of the weight files too" in refused(influence, fake_hub)[1]


@pytest.mark.parametrize("length", [0, 7, 1 << 40, 1 << 63, (1 << 64) - 1])
def test_a_header_that_lies_about_its_length_is_refused_at_its_first_bytes(
    length: int, influence: Run, fake_hub: FakeHub
) -> None:
    files = model_files(SMALL)
    files["model.safetensors"] = HeaderOnly(length.to_bytes(8, "little") + b"{}", 1 << 30)
    fake_hub.add_repo(NAME, files)
    _, said = refused(influence, fake_hub)
    assert f"{NAME}/model.safetensors" in said
    assert fake_hub.bytes_served <= len(files["config.json"]) + 8 + 7


def test_headers_that_are_large_together_are_not_fetched(influence: Run, fake_hub: FakeHub) -> None:
    files = model_files(SMALL, 3)
    for name in files:
        if name.endswith("safetensors"):
            files[name] = HeaderOnly((60_000_000).to_bytes(8, "little"), 1 << 30)
    fake_hub.add_repo(NAME, files)
    assert "claim 180000000 bytes" in refused(influence, fake_hub)[1]
    assert fake_hub.bytes_served < 20_000


def test_a_host_that_ignores_ranges_or_lists_no_files_is_read_all_the_same(
    influence: Run, fake_hub: FakeHub
) -> None:
    fake_hub.add_repo(NAME, demo_files())
    right = planned(influence, fake_hub)
    fake_hub.mode("range200")
    found = planned(influence, fake_hub)
    assert found | {"disk": None} == right | {
        "disk": None
    }  # what is free there changes from moment to moment
    fake_hub.clear_modes()
    fake_hub.mode("notree")
    outcome = influence("plan", NAME, "-r", fake_hub.url, "--json")
    assert "only the usual files of a model were looked for" in outcome.stderr
    assert json.loads(outcome.stdout)["weights_bytes"] == right["weights_bytes"]


def test_the_shelf_and_folders_come_before_the_hub(influence: Run, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.add_repo(NAME, model_files(SMALL))
    for place in ("models/org_name", NAME):
        shutil.copytree(demo.folder(), tmp_path / place)
        outcome = influence("plan", NAME, "-r", fake_hub.url, "--json")
        assert json.loads(outcome.stdout)["disk"]["missing_bytes"] == 0
        shutil.rmtree(tmp_path / place)
    assert fake_hub.log == []
    assert "no such folder" in influence("plan", "models/nothing", "-r", fake_hub.url).stderr
    assert fake_hub.log == []


def test_a_revision_is_asked_of_the_hub_though_the_model_is_here(
    influence: Run, fake_hub: FakeHub, tmp_path: Path
) -> None:
    shutil.copytree(demo.folder(), tmp_path / "models/org_name")
    fake_hub.add_repo(NAME, {"config.json": b"{}"})
    sha = fake_hub.add_commit(NAME, model_files(SMALL), "v1")
    assert planned(influence, fake_hub, "--revision", "v1")["commit"] == sha
    assert planned(influence, fake_hub, "--revision", sha)["revision"] == sha


def test_a_begun_download_is_planned_from_the_hub(influence: Run, fake_hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "models/org_name/.influence").mkdir(parents=True)
    fake_hub.add_repo(NAME, model_files(SMALL))
    assert planned(influence, fake_hub)["hub"] == fake_hub.url


def test_the_disk_is_that_of_the_folder_where_a_download_would_go(
    influence: Run, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_hub.add_repo(NAME, demo_files())
    free = {tmp_path: 3_000_000}
    real = shutil.disk_usage
    monkeypatch.setattr(
        remote_model.shutil,  # type: ignore[attr-defined]
        "disk_usage",
        lambda path: real(path)._replace(free=free.get(Path(path), PLENTY)),
    )
    assert not planned(influence, fake_hub, "-o", "not/there/yet")["disk"]["fits"]
    assert planned(influence, fake_hub, "-o", "/")["disk"]["fits"]
    outcome = influence("plan", NAME, "-r", fake_hub.url)
    assert "3.0 MB free: NOT ENOUGH" in outcome.stdout and outcome.stderr == ""


def test_a_context_beyond_the_models_limit_is_bad_usage(influence: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, model_files(SMALL))
    outcome = influence("plan", NAME, "-r", fake_hub.url, "--context", "100000")
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "this model's limit" in outcome.stderr


def test_strange_names_in_the_list_do_nothing_to_the_terminal(influence: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, {**demo_files(), "\x1b[2J\x07\u202e.bin": b"x", "a\nb.png": b"x"})
    outcome = influence("plan", NAME, "-r", fake_hub.url)
    assert outcome.exit_code == 0
    assert all(line.isprintable() for line in outcome.stdout.splitlines())
    fake_hub.add_repo("org/evil", {**demo_files(), "..\\evil.txt": b"x"})
    assert "nothing was written" in refused(influence, fake_hub, name="org/evil")[1]


def test_a_hub_that_is_not_there_is_named_with_what_to_do(
    influence: Run, fake_hub: FakeHub, clock: FakeClock
) -> None:
    outcome = influence("plan", NAME, "-r", "https://127.0.0.1:9")
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert re.search(r"error: no connection to 127\.0\.0\.1:9: .*\nhint: .*--mirror", outcome.stderr)
    assert len(clock.slept) >= 4


def test_ctrl_c_ends_a_plan_though_every_line_is_silent(fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.add_repo(NAME, model_files(SMALL, 3))
    fake_hub.mode("stall", at=0, path="*.safetensors")
    process = subprocess.Popen(
        command("plan", NAME, "-r", fake_hub.url),
        cwd=tmp_path,
        env=environment(SSL_CERT_FILE=str(fake_hub.ca_file)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: sum(request.origin == "cdn" for request in list(fake_hub.log)) == 3)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == (b"", b"")
    assert process.returncode == 130


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_file_of_headers_alone_is_what_its_header_says() -> None:
    file = header_of({"a": (3, 5), "b": (2,)}, "F32")
    whole = file.read(0, 1 << 20)
    assert len(whole) == file.size_bytes
    safetensors = pytest.importorskip("safetensors")
    assert {name: info["shape"] for name, info in safetensors.deserialize(whole)} == {"a": [3, 5], "b": [2]}
