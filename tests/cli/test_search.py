"""`influence search`: what a hub lists, what runs here, and answers that are no list."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from influence.cli import output, search_table
from influence.cli.commands.search import search as command
from influence.engines import machine
from influence.hub.client import MAX_RESULTS, SORTS
from influence.hub.records import summary_of
from support.cli import Outcome
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub

Run = Callable[..., Outcome]
MEMORY = 8_000_000_000
CHAT = "small/Chat-1B"
ESCAPES = "\x1b[2J\x1b]0;title\x07\x1b[31mred\u202e\n"


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: MEMORY)


def add(
    hub: FakeHub, name: str, n: int = 10**9, kind: str = "llama", dtype: str = "BF16", **facts: Any
) -> None:
    """A model as the Hub lists one of `n` parameters."""
    hub.add_repo(
        name,
        {},
        **{
            "tags": ["transformers", "safetensors", kind],
            "pipeline_tag": "text-generation",
            "config": {"model_type": kind, "architectures": ["SomeForCausalLM"]},
            "safetensors": {"parameters": {dtype: n}, "total": n},
            **facts,
        },
    )


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:
    """Five models, in the order in which the hub lists them."""
    add(fake_hub, "big/Moe-8x7B", 46 * 10**9, "mixtral", downloads=7)
    add(fake_hub, "big/Gated-1B", gated="manual", likes=5)
    add(fake_hub, CHAT, 1_100_048_384, downloads=1_234_567, likes=89)
    add(fake_hub, "big/Chat-70B", 70 * 10**9)
    add(fake_hub, "old/Pickled", tags=["pytorch", "llama"], safetensors=None, pipeline_tag=None)
    return fake_hub


def found(influence: Run, hub: FakeHub, *args: str) -> list[dict[str, Any]]:
    outcome = influence("search", "", "-r", hub.url, "--json", *args)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    models: list[dict[str, Any]] = json.loads(outcome.stdout)
    return models


def verdict(influence: Run, hub: FakeHub) -> str:
    """Of the one model there."""
    (model,) = found(influence, hub)
    return str(model["verdict"])


def test_a_table_names_every_model_and_says_whether_it_runs(influence: Run, hub: FakeHub) -> None:
    outcome = influence("search", "", "-r", hub.url)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    head, *rows, _, _ = outcome.stdout.splitlines()
    cells = [re.split(" {2,}", row) for row in rows]
    assert re.split(" {2,}", head) == [
        *("model", "author", "downloads", "likes", "task", "parameters", "gated", "runs here")
    ]
    assert cells[2] == [CHAT, "small", "1234567", "89", "text-generation", "1100048384", "-", "yes"]
    assert [row[-1] for row in cells] == [
        "no: a mixture of experts",
        "yes",
        "yes",
        "no: needs 168.3 GB of memory",
        "no: not in safetensors",
    ]
    assert [row[6] for row in cells] == ["-", "manual", "-", "-", "-"]
    assert cells[4][4:6] == ["-", "-"]


def test_the_table_ends_in_the_command_that_gets_the_best(influence: Run, hub: FakeHub) -> None:
    last = influence("search", "", "-r", hub.url).stdout.splitlines()[-1]
    assert last == f"influence download {CHAT} -r {hub.url}"


def test_a_gated_model_is_the_best_only_if_no_other_runs(influence: Run, hub: FakeHub) -> None:
    last = influence("search", "big", "-r", hub.url).stdout.splitlines()[-1]
    assert last == f"influence download big/Gated-1B -r {hub.url} --token TOKEN"
    last = influence("search", "moe", "-r", hub.url).stdout.splitlines()[-1]
    assert "none of these is known to run here" in last


def test_json_is_an_array_with_exact_numbers(influence: Run, hub: FakeHub) -> None:
    models = found(influence, hub)
    assert models[2] == {
        "id": CHAT,
        "author": "small",
        "downloads": 1_234_567,
        "likes": 89,
        "pipeline_tag": "text-generation",
        "library": None,
        "architecture": "llama",
        "parameters": 1_100_048_384,
        "weights_bytes": 2_200_096_768,
        "needed_bytes": 2_200_096_768 * 12 // 10 + 300_000_000,
        "gated": None,
        "private": False,
        "last_modified": "2026-01-02T03:04:05.000Z",
        "supported": True,
        "fits": True,
        "verdict": "yes",
    }
    assert [model["supported"] for model in models] == [False, True, True, True, False]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"kind": "gemma3"}, "no: it sees or hears"),
        ({"kind": "mamba"}, "no: a state space model"),
        ({"kind": "t5"}, "no: an encoder-decoder"),
        ({"kind": "bert"}, "no: encoder only"),
        ({"kind": "brandnew"}, "no: unknown kind brandnew"),
        (
            {"config": {"model_type": "llama", "quantization_config": {"quant_method": "awq"}}},
            "no: quantised (awq)",
        ),
        (
            {"config": {"model_type": "llama", "quantization_config": {"bits": 4}}},
            "no: quantised (of an unknown method)",
        ),
        ({"tags": ["llama", "safetensors", "4-bit"]}, "no: quantised (4-bit)"),
        ({"dtype": "I32"}, "no: weights in I32"),
        ({"safetensors": {"parameters": {"F16": 10**9, "I64": 1024}}}, "yes"),
        ({"library_name": "peft"}, "no: an adapter"),
        (
            {"config": {"model_type": "llama", "architectures": ["LlamaForTokenClassification"]}},
            "no: gives labels, not text",
        ),
        ({"n": 3_900_000_000}, "yes, but tight: 9.7 GB"),
        ({"n": 4_000_000_001}, "no: needs 9.9 GB of memory"),
        ({"safetensors": None}, "yes, if it fits: size not told"),
        ({"config": None}, "yes"),
        ({"config": None, "tags": ["safetensors"]}, "maybe: kind not told"),
        ({"config": None, "tags": [], "safetensors": None}, "not told"),
    ],
)
def test_the_verdict_follows_from_the_list_alone(
    facts: dict[str, Any], told: str, influence: Run, fake_hub: FakeHub
) -> None:
    add(fake_hub, "org/name", **facts)
    assert verdict(influence, fake_hub) == told
    assert [request.path.split("?")[0] for request in fake_hub.log] == ["/api/models"]


@pytest.mark.parametrize(
    ("size", "names"),
    [
        ("2B", ["big/Gated-1B", CHAT]),
        ("1B", ["big/Gated-1B"]),
        ("1500m", ["big/Gated-1B", CHAT]),
        ("2GB", ["big/Gated-1B"]),
        ("2.3 gb", ["big/Gated-1B", CHAT]),
        ("1T", ["big/Moe-8x7B", "big/Gated-1B", CHAT, "big/Chat-70B"]),
    ],
)
def test_a_largest_size_leaves_out_what_is_larger_or_not_known(
    size: str, names: list[str], influence: Run, hub: FakeHub
) -> None:
    assert [model["id"] for model in found(influence, hub, "--max-size", size)] == names


def test_models_of_the_right_size_are_looked_for_behind_the_limit(influence: Run, fake_hub: FakeHub) -> None:
    for i in range(600):
        add(fake_hub, f"large/model-{i}", 70 * 10**9)
    add(fake_hub, "small/model")
    assert [m["id"] for m in found(influence, fake_hub, "--max-size", "2B", "-l", "1")] == ["small/model"]


@pytest.mark.parametrize(
    "args",
    [
        ("--limit", "0"),
        ("--limit", "-1"),
        ("--limit", "1000000000"),
        ("--limit", "x"),
        ("--max-size", "seven"),
        ("--max-size", "-7B"),
        ("--max-size", "7"),
        ("--sort", "size"),
        ("--author", "a\x1bb"),
        ("--mirror", "ftp://hub.test"),
        ("--mirror", "http://hub.test"),
        ("--token", "two words"),
    ],
)
def test_a_value_out_of_range_is_bad_usage_and_asks_nobody(
    args: tuple[str, str], influence: Run, fake_hub: FakeHub
) -> None:
    outcome = influence("search", "x", "-r", fake_hub.url, *args)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "\nhint: " in outcome.stderr and "two words" not in outcome.stderr
    assert fake_hub.log == []


def test_what_the_user_asks_for_is_asked_of_the_hub(influence: Run, hub: FakeHub) -> None:
    influence(
        *("search", "tiny", "llama", "-r", hub.url, "-a", "small", "--sort", "likes", "--task", "text2text")
    )
    assert "search=tiny+llama&author=small&pipeline_tag=text2text&sort=likes&limit=20&" in hub.log[0].path


def test_every_order_of_the_hub_can_be_chosen() -> None:
    (sort,) = (parameter for parameter in command.params if parameter.name == "sort")
    (limit,) = (parameter for parameter in command.params if parameter.name == "limit")
    assert set(sort.type.choices) == set(SORTS)  # type: ignore[attr-defined]
    assert limit.type.max == MAX_RESULTS  # type: ignore[attr-defined]


def test_nothing_found_is_said_with_what_to_do_and_is_no_failure(influence: Run, hub: FakeHub) -> None:
    outcome = influence("search", "zzz", "-r", hub.url)
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert "matches 'zzz'" in outcome.stderr and "hint: try fewer or shorter words" in outcome.stderr
    assert "leave out --author" in influence("search", "zzz", "-r", hub.url, "-a", "small").stderr
    assert json.loads(influence("search", "zzz", "-r", hub.url, "--json").stdout) == []


def test_ten_thousand_models_are_listed_each_once(
    influence: Run, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are followed; a name that comes twice is listed once."""
    entries = [{"id": f"org/name-{i}", "downloads": i} for i in range(MAX_RESULTS + 500)]
    pages = [entries[i : i + 500] for i in range(0, len(entries), 500)]
    pages[1] = [*pages[0][:10], *pages[1]]
    listed = [entry for page in pages for entry in page]
    monkeypatch.setattr(
        fake_hub, "_search", lambda request, query: fake_hub._page(request, listed, query, 500)
    )
    outcome = influence("search", "name", "-r", fake_hub.url, "-l", str(MAX_RESULTS))
    names = [line.split()[0] for line in outcome.stdout.splitlines()[1:-2]]
    assert names == [f"org/name-{i}" for i in range(MAX_RESULTS)]
    assert len(fake_hub.log) == 21


@pytest.mark.parametrize(
    ("body", "content_type", "told"),
    [
        (b'[{"id": "org/na', "application/json", "is not JSON"),
        (b'{"error": "busy"}', "application/json", "is not the list that it should be"),
        (b"<html><title>Caf\xc3\xa9 \x1b[31mWiFi</title>", "text/html", "Caf\u00e9 WiFi"),
        (b"\xff\xfe\x00", "application/json", "is not JSON"),
        (b"[" * 100_000, "application/json", "is not JSON"),
    ],
)
def test_an_answer_that_is_none_is_an_error_with_a_next_step(
    body: bytes, content_type: str, told: str, influence: Run, fake_hub: FakeHub
) -> None:
    fake_hub.serve("/api/models", body, headers={"Content-Type": content_type})
    outcome = influence("search", "x", "-r", fake_hub.url)
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert told in outcome.stderr and "\nhint: " in outcome.stderr and "\x1b" not in outcome.stderr


def test_escape_codes_in_names_and_facts_reach_nobody(influence: Run, fake_hub: FakeHub) -> None:
    evil = {"pipeline_tag": ESCAPES, "library_name": ESCAPES, "tags": [ESCAPES], "lastModified": ESCAPES}
    entries = [
        {"id": f"org/{ESCAPES}"},
        {"id": "org/name", **evil, "config": {"model_type": ESCAPES, "architectures": [ESCAPES]}},
        {"id": "org/name"},
    ]
    fake_hub.serve("/api/models", json.dumps(entries).encode())
    for args in ((), ("--json",)):
        outcome = influence("search", "x", "-r", fake_hub.url, *args)
        assert outcome.exit_code == 0
        assert outcome.stdout.count("org/name") == 1 + outcome.stdout.count("download org/name")
        assert all(text.isprintable() for text in outcome.stdout.splitlines())


def test_a_next_page_on_another_host_is_not_visited(influence: Run, fake_hub: FakeHub) -> None:
    link = f'<{fake_hub.other_url}/api/models/elsewhere?cursor=1>; rel="next"'
    fake_hub.serve("/api/models", b'[{"id": "org/name"}]', headers={"Link": link})
    outcome = influence("search", "name", "-r", fake_hub.url)
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert "its next page is elsewhere" in outcome.stderr
    assert {request.origin for request in fake_hub.log} == {"hub"}


def test_a_rate_limit_is_counted_down_once_without_a_terminal(
    influence: Run, hub: FakeHub, clock: FakeClock
) -> None:
    hub.mode("answer", times=1, status=429, headers={"RateLimit": '"api";r=0;t=55'}, path="/api/models")
    outcome = influence("search", "", "-r", hub.url)
    assert outcome.exit_code == 0
    assert sum(clock.slept) == 55
    assert len(outcome.stderr.splitlines()) == 1
    assert "next try in 55 s" in outcome.stderr


def test_a_token_goes_to_the_hub_it_was_given_for_and_is_shown_nowhere(
    influence: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_token("hf_given")
    monkeypatch.setenv("HF_TOKEN", "hf_ofTheEnvironment")
    from_environment = influence("search", "chat", "-r", hub.url)
    given = influence("search", "chat", "-r", hub.url, "--token", "hf_given")
    refused = influence("search", "chat", "-r", hub.url, "--token", "hf_unknown")
    sent = [request.headers.get("authorization") for request in hub.log]
    assert sent == [None, "Bearer hf_given", *["Bearer hf_unknown"] * (len(sent) - 2)]
    assert (from_environment.exit_code, given.exit_code) == (0, 0)
    assert "not sent to" in from_environment.stderr
    for outcome in (from_environment, given, refused):
        assert not re.search(r"hf_\w", outcome.stdout + outcome.stderr)


WIDE = "a-very-long-organisation-name/and-an-even-longer-name-of-a-model-Instruct-v0.1"


def row(**facts: Any) -> dict[str, Any]:
    return {
        "id": WIDE,
        "author": WIDE.split("/")[0],
        "downloads": 60_000_000,
        "likes": 1,
        "gated": "auto",
        "pipeline_tag": "text-generation",
        "parameters": 7 * 10**9,
        "verdict": "yes",
        **facts,
    }


@pytest.mark.parametrize("width", [200, 150, 120, 100, 80, 40])
def test_a_narrow_terminal_drops_columns_and_never_cuts_a_name(width: int) -> None:
    head, *rows = search_table.for_people([row(), row(id="a/b")], width).splitlines()
    assert rows[0].startswith(f"{WIDE}  ") and rows[0].endswith("  yes")
    assert all(len(line) <= max(width, 120) for line in (head, *rows))
    assert {"model", "parameters", "runs here"} <= set(re.split(" {2,}", head))


def test_numbers_are_rounded_for_people_and_exact_for_programs() -> None:
    assert "  60.0 M  " in search_table.for_people([row()], 300)
    assert "  60000000  " in search_table.for_programs([row()])


def test_no_cell_of_a_programs_table_but_the_last_holds_a_space() -> None:
    models = [row(pipeline_tag="text to text", gated=None, parameters=None, verdict="no: two words")]
    assert search_table.for_programs(models).splitlines()[1].split()[4:] == [
        *("text_to_text", "-", "-", "no:", "two", "words")
    ]


def test_a_terminal_gets_the_table_as_wide_as_it_is(
    influence: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "90")
    head = influence("search", "", "-r", hub.url).stdout.splitlines()[0]
    assert "author" not in head and "parameters" in head


def test_a_recorded_answer_of_the_hub_is_listed(influence: Run, fake_hub: FakeHub, shared_data: Path) -> None:
    recorded = shared_data / "hub-api/recorded/search-list.models.json"
    fake_hub.serve("/api/models", recorded.read_bytes())
    kimi, minimax = found(influence, fake_hub)
    assert (kimi["author"], kimi["architecture"], kimi["parameters"]) == ("moonshotai", "kimi_k2", None)
    assert (kimi["verdict"], minimax["verdict"]) == ("no: a mixture of experts",) * 2


def test_a_config_of_a_stranger_is_no_trap() -> None:
    for config in (None, [], "x", {"model_type": 3, "architectures": {}, "quantization_config": []}):
        summary = summary_of({"id": "a/b", "config": config})
        assert summary is not None
        assert (summary.model_type, summary.architectures, summary.quantisation) == ("", (), "")
