"""`generate --json-schema` and `--regex`, with the model that comes along."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from support.cli import MODEL, Outcome

Run = Callable[..., Outcome]

HERO = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["dog", "cat", "bird"]},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
        "friends": {"type": "array", "items": {"type": "string", "pattern": "^[A-Z][a-z]{1,8}$"}, "maxItems": 3},
    },
    "required": ["name", "kind", "age", "friends"],
    "additionalProperties": False,
}  # fmt: skip
ASK = ("generate", "Who lives in the castle?", "-m", MODEL)


def schema_file(folder: Path, schema: Any = HERO) -> str:
    path = folder / "schema.json"
    path.write_text(schema if isinstance(schema, str) else json.dumps(schema), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("seed", ["1", "2", "3", "4"])
def test_a_schema_gives_json_that_is_valid_for_it(influence: Run, tmp_path: Path, seed: str) -> None:
    outcome = influence(*ASK, "--json-schema", schema_file(tmp_path), "--seed", seed)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    jsonschema.validate(json.loads(outcome.stdout), HERO)


def test_a_pattern_gives_text_that_it_matches(influence: Run) -> None:
    outcome = influence(*ASK, "--regex", "(Lily|Tom) has [1-9] (cat|dog)s", "--temperature", "0")
    assert re.fullmatch("(Lily|Tom) has [1-9] (cat|dog)s\n", outcome.stdout)
    assert outcome.exit_code == 0


def test_the_reply_as_json_says_that_it_stopped(influence: Run, tmp_path: Path) -> None:
    outcome = influence(*ASK, "--json-schema", schema_file(tmp_path), "--json")
    reply = json.loads(outcome.stdout)
    assert reply["finish_reason"] == "stop"
    jsonschema.validate(json.loads(reply["text"]), HERO)


def test_json_that_is_cut_off_is_told(influence: Run, tmp_path: Path) -> None:
    outcome = influence(*ASK, "--json-schema", schema_file(tmp_path), "--max-tokens", "4")
    assert outcome.exit_code == 0
    assert "more --max-tokens" in outcome.stderr


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "is no JSON: Expecting property name"),
        ("[" * 100_000, "is no JSON: it is nested too deeply"),
        ("[]", "--json-schema is []"),
        ({"properties": {"a": {"not": {}}}}, "--json-schema/properties/a/not is {}"),
        ({"$ref": "https://example.org/schema"}, "nothing is ever fetched"),
        ({"type": "string", "pattern": "["}, "unclosed character class"),
        (" " * (9 << 20), "is larger than 8 MiB"),
    ],
)
def test_a_schema_that_can_t_be_used_is_refused_with_a_hint(
    influence: Run, tmp_path: Path, schema: Any, said: str
) -> None:
    outcome = influence(*ASK, "--json-schema", schema_file(tmp_path, schema))
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert said in outcome.stderr
    assert "\nhint: " in outcome.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--regex", "("), "unclosed group"),
        (("--regex", ""), "--regex is ''"),
        (("--regex", "(?=a)b"), "without lookahead"),
        (("--regex", "a", "--json-schema", "b"), "both given"),
        (("--json-schema", "nowhere.json"), "nowhere.json can't be read: No such file"),
        (("--json-schema", "/"), "can't be read: Is a directory"),
    ],
)
def test_options_that_ask_for_nothing_possible_are_bad_usage(
    influence: Run, options: tuple[str, ...], said: str
) -> None:
    outcome = influence(*ASK, *options)
    assert outcome.exit_code == 2
    assert said in outcome.stderr
    assert "\nhint: " in outcome.stderr


def test_a_byte_order_mark_before_the_schema_does_not_matter(influence: Run, tmp_path: Path) -> None:
    schema = "\ufeff" + json.dumps({"const": "yes"})
    assert influence(*ASK, "--json-schema", schema_file(tmp_path, schema)).stdout == '"yes"\n'
