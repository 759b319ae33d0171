"""Schemas from strangers: what is kept, what is dropped, what is refused and how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from influence.errors import InvalidParameter
from influence.generation.schema_check import (
    MAX_COUNT,
    MAX_ENUM_VALUES,
    MAX_SCHEMA_DEPTH,
    checked_pattern,
    checked_schema,
)


def kept(schema: object) -> Any:
    return json.loads(checked_schema(schema, "schema"))


def refused(schema: object) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as caught:
        checked_schema(schema, "schema")
    return caught.value


def test_what_restricts_values_is_kept_in_its_order() -> None:
    schema = {
        "type": "object",
        "properties": {"b": {"type": "string", "pattern": "^x"}, "a": {"$ref": "#/$defs/x~1y"}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"x/y": {"enum": [1, None, "é"]}},
    }
    assert json.dumps(kept(schema)) == json.dumps(schema)


def test_the_given_schema_is_not_changed() -> None:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "format": "path"}
    checked_schema(schema, "schema")
    assert schema == {"$schema": "https://json-schema.org/draft/2020-12/schema", "format": "path"}


def test_annotations_go_and_options_of_the_library_can_t_be_slipped_in() -> None:
    schema = {"$id": "http://x/y", "$comment": "c", "x-guidance": {"lenient": True}, "type": "string"}
    assert kept(schema) == {"type": "string"}


@pytest.mark.parametrize(
    ("name", "stays"), [("date-time", True), ("uuid", True), ("path", False), (3, False)]
)
def test_an_unknown_format_is_an_annotation(name: object, stays: bool) -> None:
    assert ("format" in kept({"type": "string", "format": name})) is stays


def test_properties_may_be_named_like_keywords() -> None:
    schema = {"properties": {"not": {"type": "string"}, "if": True, "$ref": {}}, "required": ["not"]}
    assert kept(schema) == schema


def test_values_may_look_like_keywords() -> None:
    schema = {"const": {"not": 1, "$ref": "http://x"}, "enum": [{"if": 1}], "default": {"minItems": -1}}
    assert kept(schema) == schema


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"not": {}}, "schema/not"),
        ({"properties": {"a": {"anyOf": [{}, {"if": {}}]}}}, "schema/properties/a/anyOf/1/if"),
        ({"$defs": {"x": {"items": {"uniqueItems": True}}}}, "schema/$defs/x/items/uniqueItems"),
        ({"patternProperties": {"^a": {"contains": {}}}}, "schema/patternProperties/^a/contains"),
        (
            {"additionalProperties": {"dependentRequired": {}}},
            "schema/additionalProperties/dependentRequired",
        ),
        ({"prefixItems": [{"propertyNames": {}}]}, "schema/prefixItems/0/propertyNames"),
        ({"items": {"$id": "x"}}, "schema/items/$id"),
        ({"items": [{}]}, "schema/items"),
        ({"items": 3}, "schema/items"),
        ({"anyOf": []}, "schema/anyOf"),
        ({"allOf": [3]}, "schema/allOf/0"),
        ({"properties": []}, "schema/properties"),
        ({"type": "text"}, "schema/type"),
        ({"type": ["string", 3]}, "schema/type"),
        ({"type": []}, "schema/type"),
        ({"required": True}, "schema/required"),
        ({"enum": []}, "schema/enum"),
        ({"enum": list(range(MAX_ENUM_VALUES + 1))}, "schema/enum"),
        ({"minItems": MAX_COUNT + 1}, "schema/minItems"),
        ({"maxLength": -1}, "schema/maxLength"),
        ({"maxItems": True}, "schema/maxItems"),
        ({"maxItems": 1.5}, "schema/maxItems"),
        ({"minProperties": 2}, "schema/minProperties"),
        ({"minimum": 3, "exclusiveMinimum": True}, "schema/exclusiveMinimum"),
        ({"maximum": "3"}, "schema/maximum"),
        ({"pattern": "(?=a)b"}, "schema/pattern"),
        ({"pattern": "x" * 5000}, "schema/pattern"),
        ({"patternProperties": {"(?<!a)b": {}}}, "schema/patternProperties"),
        ({"$ref": "#/$defs/none"}, "schema/$ref"),
        ({"$ref": "#name"}, "schema/$ref"),
        ({"$ref": "#/required/0", "required": ["a"]}, "schema/$ref"),
        ({"$ref": 3}, "schema/$ref"),
    ],
)
def test_what_can_t_be_enforced_is_refused_with_its_place(schema: object, place: str) -> None:
    assert refused(schema).name == place


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9/x", "https://x/y#/a", "file:///etc/passwd", "other.json"]
)
def test_a_remote_reference_is_refused_and_says_that_nothing_is_fetched(target: str) -> None:
    assert "nothing is ever fetched" in refused({"items": {"$ref": target}}).message


@pytest.mark.parametrize("schema", [False, None, 3, "{}", []])
def test_only_an_object_is_a_schema(schema: object) -> None:
    assert refused(schema).name == "schema"


def test_true_allows_anything() -> None:
    assert kept(True) == {}


@pytest.mark.parametrize("n_levels", [MAX_SCHEMA_DEPTH, 900, 20_000])
def test_deep_nesting_is_refused(n_levels: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(n_levels):
        schema = {"items": schema}
    assert "levels deep" in refused(schema).message


def test_the_deepest_schema_allowed_is_taken() -> None:
    schema: dict[str, Any] = {}
    for _ in range(MAX_SCHEMA_DEPTH - 1):
        schema = {"items": schema}
    assert kept(schema) == schema


@pytest.mark.parametrize(
    "schema",
    [
        {"description": "x" * 300_000},
        {"properties": {f"p{i}": {} for i in range(5000)}},
        {"default": float("nan")},
        {"default": {1, 2}},
        {"default": "\ud800"},
    ],
)
def test_what_is_too_large_or_no_json_is_refused(schema: object) -> None:
    error = refused(schema)
    assert error.name == "schema"
    assert len(error.message) < 300


def test_an_error_shows_the_beginning_of_a_long_value() -> None:
    assert len(refused({"not": {"enum": ["x" * 10_000]}}).message) < 300


@pytest.mark.parametrize("pattern", ["", None, 3, "(?!a)", "(?<=a)b"])
def test_a_pattern_that_no_grammar_follows_is_refused(pattern: object) -> None:
    with pytest.raises(InvalidParameter, match="regex is"):
        checked_pattern(pattern, "regex")


def test_a_named_group_is_no_lookbehind() -> None:
    assert checked_pattern("(?<year>[0-9]{4})", "regex") == "(?<year>[0-9]{4})"
