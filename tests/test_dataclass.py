"""Our dataclass is the standard library's, which nobody can tell from it but by the time that it takes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from influence.dataclass import dataclass


class Bounds:
    """Two numbers in order; each of the classes below is made of it."""

    low: int
    high: int = 9
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    secret: str = dataclasses.field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")

    @property
    def size(self) -> int:
        return self.high - self.low


@dataclass(frozen=True)
class Ours(Bounds):
    """Ours."""

    low: int
    high: int = 9
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    secret: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True)
class Theirs(Bounds):
    """The standard library's."""

    low: int
    high: int = 9
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    secret: str = dataclasses.field(default="", repr=False)


@dataclass(frozen=True)
class OursBelow(Ours):
    """Ours, with a field more."""

    step: int = 1


@dataclasses.dataclass(frozen=True)
class TheirsBelow(Theirs):
    """The standard library's, with a field more."""

    step: int = 1


PAIRS = [(Ours, Theirs), (OursBelow, TheirsBelow)]

ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, 2), {}),
    ((1, 2, {3: "c"}, "s"), {}),
    ((), {"high": 5, "low": 4}),
    ((4,), {"secret": "s", "names": {1: "a"}}),
]
MISTAKES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((), {"high": 5}),
    ((1,), {"low": 1}),
    ((1,), {"nonsense": 1}),
    ((), {"high": 1, "nonsense": 1}),
    ((1, 2, {}, "s", 5, 6), {}),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(("values", "named"), ARGUMENTS)
@pytest.mark.parametrize(
    "question",
    [
        lambda one: repr(one).partition("(")[2],
        lambda one: [(field.name, getattr(one, field.name)) for field in dataclasses.fields(one)],
        lambda one: dataclasses.asdict(one),
        lambda one: dataclasses.astuple(one),
        lambda one: vars(dataclasses.replace(one, low=-1)),
        lambda one: (one.size, one.__match_args__, dataclasses.is_dataclass(one)),
        lambda one: one == dataclasses.replace(one),
        lambda one: one == dataclasses.replace(one, low=-1),
        lambda one: one == SimpleNamespace(**vars(one)),
        lambda one: pickle.loads(pickle.dumps(one)) == one,
        lambda one: copy.deepcopy(one) == one,
    ],
)
def test_it_answers_as_the_standard_library_s_does(
    ours: type, theirs: type, values: tuple[Any, ...], named: dict[str, Any], question: Callable[[Any], Any]
) -> None:
    assert question(ours(*values, **named)) == question(theirs(*values, **named))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(("values", "named"), MISTAKES)
def test_it_refuses_the_arguments_that_the_standard_library_s_refuses(
    ours: type, theirs: type, values: tuple[Any, ...], named: dict[str, Any]
) -> None:
    for kind in (ours, theirs):
        with pytest.raises(TypeError):
            kind(*values, **named)


@pytest.mark.parametrize("kind", [Ours, OursBelow, Theirs, TheirsBelow])
def test_it_runs_the_check_after_the_fields_are_set(kind: type) -> None:
    with pytest.raises(ValueError, match="above"):
        kind(10)


@pytest.mark.parametrize("kind", [Ours, OursBelow, Theirs, TheirsBelow])
def test_its_fields_stay(kind: type) -> None:
    one = kind(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.low = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.low
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.nonsense = 2
    assert one.low == 1


def test_equal_ones_have_equal_hashes_however_they_were_made() -> None:
    @dataclass(frozen=True)
    class Pair:
        """Hashable."""

        left: int
        right: int = 2

    assert hash(Pair(1)) == hash(Pair(right=2, left=1)) == hash((1, 2))
    assert len({Pair(1), Pair(1, 2), Pair(2)}) == 2


def test_without_eq_one_equals_itself_alone() -> None:
    @dataclass(frozen=True, eq=False)
    class Entry:
        """An identity."""

        name: str

    assert Entry("a") != Entry("a")
    assert len({Entry("a"), Entry("a")}) == 2


def test_one_that_changes_is_the_standard_library_s() -> None:
    with pytest.raises(TypeError, match="standard library"):
        dataclass(frozen=False)


def test_nothing_is_compiled_for_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr("builtins.exec", refuse)

    @dataclass(frozen=True)
    class Point:
        """Compiles nothing."""

        x: int

    assert Point(1).x == 1
