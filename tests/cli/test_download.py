"""`influence download`: what comes, what is said of it, and what never gets a name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import Outcome
from support.downloads import content_of
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub
from support.hub_models import FOLDER, NAME, SHARDS, demo_files, published, sharded

Run = Callable[..., Outcome]
TOKEN = "hf_verySecretTokenOfATest"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(influence: Run, fake_hub: FakeHub, clock: FakeClock) -> Run:
    """`influence` with the fake hub as its mirror; no output may ever hold the token (D50)."""

    def command(*args: str) -> Outcome:
        outcome = influence(*args, *([] if "-r" in args else ["-r", fake_hub.url]))
        assert TOKEN not in outcome.stdout + outcome.stderr
        assert "Signature=" not in outcome.stdout + outcome.stderr
        return outcome

    return command


def events(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def host(url: str) -> str:
    return url.partition("://")[2]


def test_a_downloaded_model_is_as_published_and_runs_by_its_name(
    run: Run, influence: Run, fake_hub: FakeHub
) -> None:
    sha = fake_hub.add_repo(NAME, demo_files())
    outcome = run("download", NAME)
    assert (outcome.exit_code, outcome.stdout) == (0, f"{FOLDER}\n")
    assert content_of(FOLDER) == published(fake_hub)
    assert f"{NAME} at {sha[:12]}: {len(demo_files())} files" in outcome.stderr
    assert f"-m {NAME}" in outcome.stderr.splitlines()[-1]
    told = influence("generate", "Once upon a time", "-m", NAME, "--max-tokens", "3", "--seed", "0")
    assert (told.exit_code, bool(told.stdout.strip())) == (0, True)
    assert influence("list").stdout.splitlines()[1].startswith(f"{NAME} ")
    assert sha in influence("show", NAME).stdout


@pytest.mark.parametrize("named", [["-m", NAME], ["--model", NAME], [NAME], [NAME, "-m", NAME]])
def test_a_model_is_named_by_an_option_or_an_argument(run: Run, fake_hub: FakeHub, named: list[str]) -> None:
    fake_hub.add_repo(NAME, demo_files())
    assert run("download", *named).exit_code == 0
    assert content_of(FOLDER) == published(fake_hub)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "no model is named"),
        ([NAME, "-m", "org/other"], "two models are named"),
        (["name"], "must be ORG/NAME"),
        (["../up"], "must be ORG/NAME"),
        ([NAME, "-r", "http://hub.example"], "--allow-http"),
        ([NAME, "-r", "ftp://hub.example"], "a URL such as https://hf-mirror.com"),
        ([NAME, "--revision", "../x"], "a branch, a tag or a commit"),
        ([NAME, "--connections", "0"], "0 is not in the range"),
        ([NAME, "--token", "two words"], "without spaces"),
        ([NAME, "--include", "*.txt"], "patterns that leave a file"),
    ],
)
def test_bad_usage_exits_2_and_writes_nothing(
    run: Run, fake_hub: FakeHub, args: list[str], said: str
) -> None:
    fake_hub.add_repo(NAME, demo_files())
    outcome = run("download", *args)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert said in outcome.stderr and "\nhint: " in outcome.stderr
    assert not Path("models").exists()


def test_a_model_that_is_here_already_is_not_asked_for_again(run: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, demo_files())
    run("download", NAME)
    before = fake_hub.bytes_served
    again = run("download", NAME)
    assert (again.exit_code, fake_hub.bytes_served) == (0, before)
    assert "all of it was here already" in again.stderr


def test_only_what_a_model_needs_comes_and_a_dry_run_says_what_not_and_why(
    run: Run, fake_hub: FakeHub
) -> None:
    fake_hub.add_repo(NAME, sharded())
    text = run("download", NAME, "--dry-run").stdout
    for said in (
        "model-00001-of-00003.safetensors  3.0 MB",
        "sha256",
        "git-sha1",
        "pickled, which can run code",
    ):
        assert said in text
    assert "6 files, 9.0 MB" in text
    facts = json.loads(run("download", NAME, "--dry-run", "--json").stdout)
    assert not Path("models").exists()
    assert (
        facts["missing_bytes"] == facts["total_bytes"] == sum(file["size_bytes"] for file in facts["files"])
    )
    assert not any(request.path.endswith(".safetensors") for request in fake_hub.log)
    run("download", NAME)
    assert set(content_of(FOLDER)) == {file["path"] for file in facts["files"]}
    assert {entry["path"] for entry in facts["left_out"]} == set(sharded()) - set(content_of(FOLDER))
    assert json.loads(run("download", NAME, "--dry-run", "--json").stdout)["missing_bytes"] == 0


def test_patterns_revision_and_folder_are_the_users(run: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, sharded())
    old = fake_hub.add_commit(NAME, {"config.json": b'{"old": 1}', "pytorch_model.bin": b"x"}, "v1")
    args = ["--revision", "v1", "-o", "my shelf", "--include", "*.json", "--include", "*.bin"]
    outcome = run("download", NAME, *args)
    assert outcome.stdout == "my shelf/org_name\n"
    assert content_of(Path(outcome.stdout.strip())) == {
        "config.json": b'{"old": 1}',
        "pytorch_model.bin": b"x",
    }
    assert outcome.stderr.endswith("-m 'my shelf/org_name'\n")
    assert old[:12] in outcome.stderr
    run("download", NAME, "--exclude", "*.safetensors")
    assert set(content_of(FOLDER)) == {"config.json", "tokenizer.json", "model.safetensors.index.json"}


def test_the_events_are_one_object_a_line(run: Run, fake_hub: FakeHub) -> None:
    sha = fake_hub.add_repo(NAME, sharded())
    outcome = run("download", NAME, "--json")
    assert outcome.stderr == ""
    first, *_, installed, last = events(outcome)
    assert (first["event"], first["sha"], first["n_files"]) == ("planned", sha, 6)
    assert (installed["event"], last["event"]) == ("installed", "finished")
    moved = [event["done_bytes"] for event in events(outcome) if event["event"] == "progress"]
    assert moved == sorted(moved) and moved[-1] == first["total_bytes"] == last["total_bytes"]
    assert last["folder"] == str(FOLDER)
    assert last["verified"] == {"sha256": 3, "git_sha1": 3, "unhashed": []}
    assert (last["repo"], last["commit"], last["mirror"]) == (NAME, sha, fake_hub.url)
    assert last["verified_with"] is None


def test_quiet_says_the_folder_alone(run: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, demo_files())
    outcome = run("download", NAME, "--quiet")
    assert (outcome.stdout, outcome.stderr) == (f"{FOLDER}\n", "")


def test_whose_word_a_hash_is_is_said(run: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, demo_files())
    alone = run("download", NAME).stderr
    assert f"the hashes are {host(fake_hub.url)}'s own word; --verify-with https://huggingface.co" in alone
    both = run("download", NAME, "--verify-with", fake_hub.other_url).stderr
    assert f"{host(fake_hub.url)} and {host(fake_hub.other_url)} list the same" in both
    assert {request.origin for request in fake_hub.log if request.is_file} == {"hub", "cdn"}


def test_a_second_host_that_lists_something_else_ends_it_before_a_file_comes(
    run: Run, fake_hub: FakeHub
) -> None:
    sha = fake_hub.add_repo(NAME, demo_files())
    listed = fake_hub.repos[NAME].tree(sha)
    listed[0]["oid"] = "1" * 40
    answer = {"body": json.dumps(listed).encode(), "headers": {"Content-Type": "application/json"}}
    fake_hub.mode("answer", path=f"/api/models/{NAME}/tree/{sha}", times=1, **answer)
    outcome = run("download", NAME, "--verify-with", fake_hub.other_url)
    assert outcome.exit_code == 1
    for said in (listed[0]["path"], host(fake_hub.url), host(fake_hub.other_url), "1" * 40):
        assert str(said) in outcome.stderr
    assert not Path("models").exists()
    assert fake_hub.bytes_served == 0


def test_a_host_is_no_witness_of_itself(run: Run, fake_hub: FakeHub) -> None:
    assert run("download", NAME, "--verify-with", fake_hub.url).exit_code == 2


def test_a_shard_that_is_missing_ends_it_before_the_weights_move_d47(run: Run, fake_hub: FakeHub) -> None:
    files = {path: content for path, content in sharded().items() if path != SHARDS[1]}
    fake_hub.add_repo(NAME, files)
    outcome = run("download", NAME)
    assert outcome.exit_code == 1
    assert SHARDS[1] in outcome.stderr
    assert not Path("models").exists()


def damaged(hub: FakeHub) -> None:
    hub.add_repo(NAME, demo_files())
    hub.mode("corrupt", path="model.safetensors", at=1000)


ENDS: dict[str, tuple[Callable[[FakeHub], object], str, str]] = {
    "no such model": (lambda hub: None, "has no model org/name", "influence search"),
    "gated": (
        lambda hub: hub.add_repo(NAME, demo_files(), gated="auto"),
        "its licence must be accepted first",
        "--token",
    ),
    "gated, and not granted": (
        lambda hub: (hub.add_repo(NAME, demo_files(), gated="auto"), hub.add_token(TOKEN)),
        "was not granted access",
        "ask for access",
    ),
    "a token that is none": (
        lambda hub: hub.add_repo(NAME, demo_files()),
        "does not accept the token",
        "make a new one",
    ),
    "refused": (
        lambda hub: (hub.add_repo(NAME, demo_files()), hub.mode("refuse")),
        "invalid request",
        "another mirror",
    ),
    "a web page": (
        lambda hub: (hub.add_repo(NAME, demo_files()), hub.mode("page")),
        "a web page",
        "sign in",
    ),
    "pickled weights alone": (
        lambda hub: hub.add_repo(NAME, {"config.json": b"{}", "pytorch_model.bin": b"x"}),
        "no safetensors weights",
        "can run code",
    ),
    "a name that is a device somewhere": (
        lambda hub: hub.add_repo(NAME, {"con.json": b"{}", "model.safetensors": b"x"}),
        "con.json",
        "nothing was written",
    ),
    "nothing at all": (lambda hub: hub.add_repo(NAME, {}), "an empty list of files", "influence search"),
    "to http": (
        lambda hub: (hub.add_repo(NAME, demo_files()), hub.mode("http")),
        "not encrypted",
        "another mirror",
    ),
    "damaged twice": (damaged, "model.safetensors: the content is sha256", "another mirror"),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_does_not_come_right_has_its_own_error_and_next_step(
    run: Run, fake_hub: FakeHub, case: str
) -> None:
    prepare, said, hinted = ENDS[case]
    prepare(fake_hub)
    outcome = run("download", NAME, *(["--token", TOKEN] if "grant" in case or "token" in case else []))
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    error, hint = outcome.stderr.splitlines()[-2:]
    assert error.startswith("error: ") and said in error
    assert hint.startswith("hint: ") and hinted in hint
    assert not FOLDER.exists() or content_of(FOLDER) == {}


def test_a_gated_model_is_refused_before_a_folder_is_made(run: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, demo_files(), gated="auto")
    for more in ([], ["--dry-run"]):
        outcome = run("download", NAME, *more)
        assert (outcome.exit_code, outcome.stdout) == (1, "")
        assert "its licence must be accepted first" in outcome.stderr
    assert not Path("models").exists()


def test_names_that_lead_out_are_not_even_chosen(run: Run, fake_hub: FakeHub, here: Path) -> None:
    evil = {"../evil.json": b"{}", "../../evil.json": b"{}", "/tmp/evil.json": b"{}"}
    fake_hub.add_repo(NAME, demo_files() | evil)
    assert run("download", NAME).exit_code == 0
    assert content_of(FOLDER) == demo_files()
    outcome = run("download", NAME, "--include", "*.json")
    assert outcome.exit_code == 1
    assert "nothing was written" in outcome.stderr
    assert not {*here.rglob("evil.json"), *here.parent.glob("evil.json")}


def test_the_token_goes_to_the_mirror_alone(run: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, sharded(), gated="manual")
    fake_hub.add_token(TOKEN, NAME)
    assert run("download", NAME, "--token", TOKEN, "--json").exit_code == 0
    carrying = {
        request.origin for request in fake_hub.log if TOKEN in request.headers.get("authorization", "")
    }
    assert carrying == {"hub"}
    assert {request.origin for request in fake_hub.log} == {"hub", "cdn"}
    own = (path for path in Path().rglob("*") if path.is_file())
    assert not any(TOKEN.encode() in path.read_bytes() for path in own)


def test_another_models_folder_and_a_users_own_files_are_not_replaced(run: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo("a_b/c", demo_files())
    fake_hub.add_repo("a/b_c", demo_files())
    run("download", "a_b/c")
    outcome = run("download", "a/b_c")
    assert outcome.exit_code == 1
    assert "another model, a_b/c" in outcome.stderr and "--output" in outcome.stderr
    fake_hub.add_repo(NAME, demo_files())
    FOLDER.mkdir()
    (FOLDER / "config.json").write_text("mine")
    outcome = run("download", NAME)
    assert (outcome.exit_code, (FOLDER / "config.json").read_text()) == (1, "mine")
    assert "was not downloaded by influence" in outcome.stderr


def test_a_model_of_another_name_now_is_said(run: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo("new/home", demo_files())
    fake_hub.renamed[NAME] = "new/home"
    fake_hub.repos[NAME] = fake_hub.repos["new/home"]
    outcome = run("download", NAME)
    assert "calls org/name new/home now" in outcome.stderr
    assert outcome.stdout == f"{FOLDER}\n"


def test_a_mirror_that_lists_no_files_gives_the_usual_ones(run: Run, fake_hub: FakeHub) -> None:
    fake_hub.add_repo(NAME, sharded())
    fake_hub.mode("notree")
    outcome = run("download", NAME)
    assert outcome.exit_code == 0
    assert "note: " in outcome.stderr and "only the usual files" in outcome.stderr
    assert set(SHARDS) <= set(content_of(FOLDER))


def test_a_file_of_which_nobody_tells_a_hash_is_named(run: Run, fake_hub: FakeHub) -> None:
    sha = fake_hub.add_repo(NAME, demo_files())
    fake_hub.mode("notree")
    fake_hub.serve(f"/{NAME}/resolve/{sha}/config.json", demo_files()["config.json"], headers={})
    outcome = run("download", NAME)
    assert (outcome.exit_code, content_of(FOLDER)["config.json"]) == (0, demo_files()["config.json"])
    assert "nobody tells a hash of config.json" in outcome.stderr
    assert "not verified, as nobody tells a hash: config.json\n" in outcome.stderr
    Path(FOLDER).rename("elsewhere")
    last = events(run("download", NAME, "--json"))[-1]
    assert last["verified"]["unhashed"] == ["config.json"]


def test_the_hubs_own_client_finds_what_came_to_be_right(run: Run, fake_hub: FakeHub) -> None:
    from huggingface_hub import HfApi

    sha = fake_hub.add_repo(NAME, sharded())
    run("download", NAME)
    api = HfApi(endpoint=fake_hub.url, token=False)

    def verdict() -> Any:
        return api.verify_repo_checksums(NAME, revision=sha, local_dir=str(FOLDER))

    assert (verdict().mismatches, verdict().checked_count) == ([], 6)
    with (FOLDER / SHARDS[0]).open("r+b") as file:
        file.write(b"X")
    assert [found["path"] if isinstance(found, dict) else found.path for found in verdict().mismatches] == [
        SHARDS[0]
    ]
