"""JSON schemas from strangers: what can be enforced is kept, what can't is refused by name and place.

The dialect is draft 2020-12. Whatever that dialect calls an annotation is
dropped or ignored; a keyword that would restrict values but that the grammar
can't follow is refused, because ignoring it would break a promise. Nothing is
ever fetched: a `$ref` points into its own schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn
from urllib.parse import unquote

from influence.errors import InvalidParameter

MAX_SCHEMA_BYTES = 256 * 1024  # as compact JSON; the largest that people write by hand have 50 kB
MAX_SCHEMA_DEPTH = 128  # levels of JSON, two for each level of objects described
MAX_SUBSCHEMAS = 2000  # the parser follows so many alternatives at once
MAX_ENUM_VALUES = 2000  # of one enum
MAX_COUNT = 10_000  # of minItems, maxLength and their kin
MAX_PATTERN_CHARACTERS = 4096  # of a regular expression

_SHOWN = 80  # characters of a value that an error repeats

# Of `format` these are enforced; others are annotations, as the dialect has it.
FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)

_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "maxProperties"})
_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_ONE_SCHEMA = frozenset({"items", "additionalProperties"})
_SCHEMA_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMA_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_DROPPED = frozenset({"$schema", "$id", "$comment", "x-guidance"})

_ADVICE = "left out: it can't be enforced"
_REFUSED = {
    "not": _ADVICE,
    "if": "left out: say it with anyOf",
    "then": "left out: say it with anyOf",
    "else": "left out: say it with anyOf",
    "contains": _ADVICE,
    "minContains": _ADVICE,
    "maxContains": _ADVICE,
    "propertyNames": "left out: say it with patternProperties",
    "dependencies": _ADVICE,
    "dependentRequired": _ADVICE,
    "dependentSchemas": _ADVICE,
    "unevaluatedItems": "left out: say it with items",
    "unevaluatedProperties": "left out: say it with additionalProperties",
    "additionalItems": "left out: say it with prefixItems and items",
    "$dynamicRef": "a $ref",
    "$recursiveRef": "a $ref",
    "$anchor": "left out: a $ref names its place, as in #/$defs/name",
}
_LOOKAROUND = re.compile(r"\(\?<?[=!]")


def checked_schema(schema: object, name: str) -> str:
    """The schema as compact JSON, ready to be compiled; `name` is what errors call it.

    Raises InvalidParameter naming the keyword and its place for what is not a
    schema, can't be enforced, or goes beyond a limit above.
    """
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise unfit(name, schema, "a JSON schema: an object")
    copy = json.loads(_compact(schema, name))
    _check_depth(copy, name)
    for index, (place, subschema) in enumerate(_subschemas(copy, name)):
        if index == MAX_SUBSCHEMAS:
            raise unfit(name, "larger", f"a schema of at most {MAX_SUBSCHEMAS} subschemas")
        _check(subschema, place, copy)
    return json.dumps(copy, ensure_ascii=False, separators=(",", ":"))


def checked_pattern(pattern: object, name: str) -> str:
    """A regular expression that a grammar can follow as far as its look tells; raises InvalidParameter."""
    if not isinstance(pattern, str) or not pattern:
        raise unfit(name, pattern, "a regular expression that is not empty")
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise unfit(name, pattern, f"at most {MAX_PATTERN_CHARACTERS} characters")
    if _LOOKAROUND.search(pattern):
        raise unfit(name, pattern, "without lookahead and lookbehind")
    return pattern


def unfit(name: str, value: object, expected: str) -> InvalidParameter:
    """The error for a schema, pattern or grammar that is not taken; shows the beginning of a long value."""
    text = value if isinstance(value, str) else repr(value)
    error = InvalidParameter(name, value if len(text) <= _SHOWN else f"{text[:_SHOWN]}…", expected)
    error.hint = "docs/structured-output.md says what schemas, patterns and grammars may hold"
    return error


def _compact(schema: dict[str, Any], name: str) -> str:
    try:
        text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        n_bytes = len(text.encode())
    except RecursionError as error:
        raise _too_deep(name) from error
    except (TypeError, ValueError) as error:
        raise unfit(name, str(error), "plain JSON") from error
    if n_bytes > MAX_SCHEMA_BYTES:
        raise unfit(name, f"{n_bytes} bytes long", f"at most {MAX_SCHEMA_BYTES} bytes")
    return text


def _check_depth(value: object, name: str) -> None:
    level = [value]
    for _ in range(MAX_SCHEMA_DEPTH):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise _too_deep(name)


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _too_deep(name: str) -> InvalidParameter:
    return unfit(name, "nested more deeply", f"nested at most {MAX_SCHEMA_DEPTH} levels deep")


def _subschemas(root: object, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in the schema with its place, outer ones first; raises where one should be and is not.

    A schema is yielded before its inner ones are looked for, so that it may be changed on the way.
    """
    waiting = [(name, root)]
    while waiting:
        place, schema = waiting.pop()
        if isinstance(schema, bool):
            continue
        if not isinstance(schema, dict):
            raise unfit(place, schema, "a schema: an object, true or false")
        yield place, schema
        for keyword, value in schema.items():
            waiting += _inner(f"{place}/{keyword}", keyword, value)


def _inner(place: str, keyword: str, value: object) -> list[tuple[str, object]]:
    """The schemas directly under one keyword."""
    if keyword in _ONE_SCHEMA:
        return [(place, value)]
    if keyword in _SCHEMA_LISTS and isinstance(value, list):
        return [(f"{place}/{index}", inner) for index, inner in enumerate(value)]
    if keyword in _SCHEMA_MAPS and isinstance(value, dict):
        return [(f"{place}/{key}", inner) for key, inner in value.items()]
    return []


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_type(value: object) -> bool:
    names = value if isinstance(value, list) and value else [value]
    return all(isinstance(name, str) and name in _TYPES for name in names)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


# A keyword -> what its value must pass, and how an error says so.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(_COUNTS, (_is_count, f"a whole number from 0 to {MAX_COUNT}")),
    # More can't be promised: a grammar does not know whether it saw a key before.
    "minProperties": (lambda value: _is_count(value) and value <= 1, "0 or 1"),
    **dict.fromkeys(_NUMBERS, (_is_number, "a number")),
    **dict.fromkeys(
        _SCHEMA_LISTS, (lambda value: isinstance(value, list) and value != [], "a list of schemas")
    ),
    **dict.fromkeys(_SCHEMA_MAPS, (lambda value: isinstance(value, dict), "an object of schemas")),
    "items": (lambda value: not isinstance(value, list), "one schema; a list of them is prefixItems"),
    "type": (_is_type, f"of {', '.join(sorted(_TYPES))}"),
    "required": (_are_names, "a list of property names"),
    "enum": (
        lambda value: isinstance(value, list) and 1 <= len(value) <= MAX_ENUM_VALUES,
        f"a list of 1 to {MAX_ENUM_VALUES} values",
    ),
    "uniqueItems": (lambda value: value is False, _ADVICE),
    "$ref": (
        lambda value: isinstance(value, str) and value.startswith("#"),
        "a place in this schema, as in #/$defs/name: nothing is ever fetched",
    ),
}


def _check(schema: dict[str, Any], place: str, root: dict[str, Any]) -> None:
    """Raise for a keyword of one subschema that can't be enforced; drop those that do not count."""
    if "$id" in schema and schema is not root:
        _refuse(place, "$id", schema, "at the schema's root alone")
    for keyword in _DROPPED & schema.keys():
        del schema[keyword]
    for keyword in schema:
        if keyword in _REFUSED:
            _refuse(place, keyword, schema, _REFUSED[keyword])
        is_sound, expected = _RULES.get(keyword, (lambda value: True, ""))
        if not is_sound(schema[keyword]):
            _refuse(place, keyword, schema, expected)
    if "$ref" in schema and not _resolves(root, schema["$ref"]):
        _refuse(place, "$ref", schema, "a place that this schema has")
    for pattern in schema.get("patternProperties", ()):
        checked_pattern(pattern, f"{place}/patternProperties")
    if "pattern" in schema:
        checked_pattern(schema["pattern"], f"{place}/pattern")
    if schema.get("format") not in FORMATS:
        schema.pop("format", None)


def _refuse(place: str, keyword: str, schema: dict[str, Any], expected: str) -> NoReturn:
    raise unfit(f"{place}/{keyword}", schema[keyword], expected)


def _resolves(root: object, reference: str) -> bool:
    """Whether a JSON pointer in a fragment (RFC 6901, section 6) leads to a schema of `root`."""
    pointer = unquote(reference.removeprefix("#"))
    if pointer and not pointer.startswith("/"):
        return False
    found = root
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isascii() and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict) and key in found:
            found = found[key]
        else:
            return False
    return isinstance(found, (dict, bool))
