"""The house stands as docs/architecture.md draws it; this reads the sources.

A module imports only from floors below its own; packages on one floor do not
know each other; a library that only one place may know is imported there alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "src" / "influence"
NATIVE = PROJECT / "csrc"

FLOORS = {
    "errors": 0,
    "dataclass": 0,
    "demo": 0,
    "hub": 1,
    "weights": 1,
    "text": 1,
    "models": 2,
    "engines": 3,
    "generation": 4,
    "server": 5,
    "cli": 6,
    "__main__": 7,
}

# A library -> the only places (files or folders under src/influence) that import it.
OWNERS: dict[str, str | tuple[str, ...]] = {
    "torch": "engines/torch",
    "triton": "engines/torch/triton",
    "starlette": "server",
    "uvicorn": "server",
    "msgspec": "server",
    "prometheus_client": "server",
    "llguidance": "generation",
    "httpx2": "hub",
    "tokenizers": "text",
    "jinja2": "text",
    "click": "cli",
    "influence._native": ("engines/native.py", "engines/packing.py", "hub/checksum.py"),
}

# Engines know the boundary, never each other; `select` alone knows them all.
ENGINES = ("native", "torch", "reference")

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def place(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


@cache
def imports(file: Path) -> tuple[str, ...]:
    """The absolute names of all modules that a file imports, wherever in it; of `from a import b` both a and a.b."""
    return tuple(_imports(ast.parse(file.read_text())))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_of(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def floor_of(dotted: str) -> tuple[str, int] | None:
    """The package of our own that a dotted name belongs to, and its floor."""
    parts = dotted.split(".")
    if parts[0] != "influence" or len(parts) == 1 or parts[1] not in FLOORS:
        return None
    return parts[1], FLOORS[parts[1]]


def upward_imports(file: Path) -> list[str]:
    package = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    found = []
    for name in imports(file):
        target = floor_of(name)
        if target and target[0] != package and target[1] >= FLOORS[package]:
            found.append(name)
    return found


def test_every_module_stands_on_a_floor() -> None:
    homes = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in modules()}
    assert homes - {"__init__"} <= set(FLOORS)


@pytest.mark.parametrize("file", modules(), ids=place)
def test_a_module_imports_only_from_floors_below(file: Path) -> None:
    if place(file) != "__init__.py":
        assert upward_imports(file) == []


def test_the_package_itself_imports_nothing() -> None:
    assert set(imports(PACKAGE / "__init__.py")) <= {"__future__", "__future__.annotations"}


@pytest.mark.parametrize(("library", "owner"), OWNERS.items())
def test_a_library_is_imported_by_its_owner_alone(library: str, owner: str | tuple[str, ...]) -> None:
    owners = (owner,) if isinstance(owner, str) else owner
    strangers = {
        place(file)
        for file in modules()
        if not any(is_of(place(file).replace("/", "."), owner.replace("/", ".")) for owner in owners)
        and any(is_of(name, library) for name in imports(file))
    }
    assert strangers == set()


def is_exempt(where: str) -> bool:
    """What is made for every token is worth compiling; importing torch takes seconds, where nobody would notice."""
    made_for_every_token = {
        "engines/base.py",
        "engines/sampling.py",
        "generation/chunks.py",
        "generation/events.py",
    }
    return where in made_for_every_token or where.startswith("engines/torch/")


@pytest.mark.parametrize("file", modules(), ids=place)
def test_a_frozen_dataclass_is_one_that_compiles_nothing(file: Path) -> None:
    if not is_exempt(place(file)):
        kinds = re.findall(r"^@dataclass\(.*frozen=True.*\)", file.read_text(), re.MULTILINE)
        quick = [kind for kind in kinds if "order=True" not in kind]
        assert not quick or "influence.dataclass.dataclass" in imports(file)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_does_not_know_the_others(engine: str) -> None:
    own_files = [
        file
        for file in modules()
        if is_of(place(file).removesuffix(".py").replace("/", "."), f"engines.{engine}")
    ]
    others = [f"influence.engines.{name}" for name in (*ENGINES, "select") if name != engine]
    known = {name for file in own_files for name in imports(file) for other in others if is_of(name, other)}
    assert known == set()


def test_only_the_bindings_include_nanobind() -> None:
    including = {file.name for file in NATIVE.rglob("*.*") if "nanobind" in _include_lines(file)}
    assert {name for name in including if not name.startswith("bindings")} == set()


def _include_lines(file: Path) -> str:
    return "\n".join(line for line in file.read_text().splitlines() if line.startswith("#include"))


def engine_sources() -> list[Path]:
    return sorted([*(PACKAGE / "engines").rglob("*.py"), *NATIVE.rglob("*.cc"), *NATIVE.rglob("*.h")])


@cache
def family_names() -> frozenset[str]:
    from influence.models import registry

    return frozenset(registry.FAMILIES)


@pytest.mark.parametrize("file", engine_sources(), ids=lambda file: file.name)
def test_no_engine_knows_a_family_by_name(file: Path) -> None:
    # The names of programs ("llama.cpp") and the normal distribution's Phi(x) are not families'.
    text = re.sub(r"\w+\.c(pp)?\b|\bPhi\b", "", file.read_text())
    words = set(re.findall(r"\w+", text.lower()))
    assert words & family_names() == set()


@pytest.mark.parametrize("file", modules(), ids=place)
def test_files_and_functions_stay_short(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= MAX_FILE_LINES
    long_functions = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    }
    assert long_functions == {}


def test_the_architecture_rules_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "weights").mkdir()
    sideways = tmp_path / "weights" / "bad.py"
    sideways.write_text("def f():\n    from influence.text import tokenizer\n    import influence.cli.main\n")
    assert upward_imports(sideways) == ["influence.text", "influence.text.tokenizer", "influence.cli.main"]
