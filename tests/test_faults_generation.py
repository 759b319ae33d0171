"""docs/faults-generation.md names every fault of a request, and tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PAGE = PROJECT / "docs" / "faults-generation.md"

ROW = re.compile(r"^\| (G\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> list[tuple[str, str, str, str]]:
    """(number, fault, what happens, shown by)"""
    return ROW.findall(PAGE.read_text())


@cache
def names_in(file: str) -> frozenset[str]:
    path = PROJECT / file
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_fault_has_one_row() -> None:
    assert [number for number, *_ in rows()] == [f"G{n}" for n in range(1, 21)]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_tests_that_a_row_names_exist(row: tuple[str, str, str, str]) -> None:
    shown_by = row[3]
    named = TEST.findall(shown_by)
    assert named
    assert [f"{file}::{test}" for file, test in named if test not in names_in(file)] == []
    assert TEST.sub("", shown_by).strip(" ,") == ""
