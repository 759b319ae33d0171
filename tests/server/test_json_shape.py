"""The shape of JSON, seen without walking it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from influence.server.errors import ApiError
from influence.server.json_shape import require_shape

VALUES = strategies.recursive(
    strategies.none() | strategies.integers() | strategies.text('a"\\[]{},:é'),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text('k"\\[]{}'), inner),
    max_leaves=20,
)


def fits(body: bytes, *, max_depth: int = 64, max_values: int = 10_000) -> bool:
    try:
        require_shape(body, max_depth=max_depth, max_values=max_values)
    except ApiError as error:
        assert error.status == 400
        return False
    return True


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


def n_values(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(n_values(key) + n_values(inner) for key, inner in value.items())
    if isinstance(value, list):
        return 1 + sum(map(n_values, value))
    return int(isinstance(value, str))


@settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_depth_and_number_are_those_that_a_parser_finds(value: Any) -> None:
    body = json.dumps(value, ensure_ascii=False).encode()
    deep, many = depth_of(value), n_values(value)
    assert fits(body, max_depth=deep, max_values=many)
    assert deep == 0 or not fits(body, max_depth=deep - 1)
    assert many == 0 or not fits(body, max_values=many - 1)


@pytest.mark.parametrize("text", ["[{" * 100_000, '\\"[' * 100_000, "\\" * 100_001 + '"['])
def test_a_text_may_hold_whatever_it_likes(text: str) -> None:
    assert fits(json.dumps({"prompt": text}).encode(), max_depth=1, max_values=3)
