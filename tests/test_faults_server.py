"""docs/faults-server.md names every fault of a server, and tests that exist or a reason."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PAGE = PROJECT / "docs" / "faults-server.md"

ROW = re.compile(r"^\| (S\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
BY_REASON = ("S25", "S29", "S33")  # no test could show them; the row says why


def rows() -> list[tuple[str, str, str, str]]:
    """(number, fault, what happens, shown by)"""
    return ROW.findall(PAGE.read_text())


@cache
def names_in(file: str) -> frozenset[str]:
    path = PROJECT / file
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_fault_has_one_row() -> None:
    assert [number for number, *_ in rows()] == [f"S{n}" for n in range(1, 36)]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_tests_that_a_row_names_exist(row: tuple[str, str, str, str]) -> None:
    number, _, _, shown_by = row
    named = TEST.findall(shown_by)
    assert bool(named) is (number not in BY_REASON)
    assert [f"{file}::{test}" for file, test in named if test not in names_in(file)] == []
    assert TEST.sub("", shown_by).strip(" ,") == ("" if named else "reason")
