"""The model folders and GGUF files that benchmarks run on: made on first use, and read once."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gguf_export import export_gguf
from influence.models.model import Model

PROJECT = Path(__file__).resolve().parent.parent
CACHE = PROJECT / ".scratch" / "models"
_CHUNK_BYTES = 64 << 20


def random_model(shape: str, dtype: str, cache: Path) -> Path:
    """A random model of that shape in the cache, made if it is not there."""
    folder = cache / f"{shape}-{dtype}"
    if not (folder / "config.json").exists():
        print(f"writing {folder}", file=sys.stderr)
        tool = PROJECT / "tools" / "make_random_model.py"
        subprocess.run([sys.executable, tool, shape, "-o", folder, "--dtype", dtype], check=True)
    return folder


def gguf_of(model: Model, cache: Path, vocabulary: Sequence[str] = ()) -> Path:
    """The model as llama.cpp reads it, written once for each state of its files and vocabulary."""
    path = cache / f"{_state(model, vocabulary)}.gguf"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        print(f"writing {path}", file=sys.stderr)
        export_gguf(model, path, vocabulary)
    read_once([path])
    return path


def converted(model: Model, cache: Path, python: Path, peer: str, form: str) -> Path:
    """The model as `peer`'s own converter writes it with weights of that form, once for each state of its files."""
    path = cache / f"{_state(model)}-{peer}-{form}"
    if not path.exists():
        partial = path.with_name(f"{path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        cache.mkdir(parents=True, exist_ok=True)
        print(f"writing {path}", file=sys.stderr)
        script = Path(__file__).parent / f"{peer}_export.py"
        subprocess.run([python, script, model.folder, partial, form], check=True)
        partial.rename(path)
    read_once(list(path.iterdir()))
    return path


def _state(model: Model, vocabulary: Sequence[str] = ()) -> str:
    """A name for the files as they are now, and for a vocabulary."""
    states = [
        (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in model.checkpoint.files
    ]
    key = hashlib.sha256(repr((states, vocabulary) if vocabulary else states).encode()).hexdigest()[:12]
    return f"{model.folder.resolve().name}-{key}"


def read_once(files: Sequence[Path]) -> None:
    """Bring the files into the page cache, so that no turn waits for a disk."""
    buffer = bytearray(_CHUNK_BYTES)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def write_result(name: str, table: str, text: str) -> None:
    """Keep a table and its numbers as results/NAME.md and .json."""
    results = PROJECT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(text + "\n")
    (results / f"{name}.md").write_text(f"```\n{table}\n```\n")


def count(text: str) -> int:
    """An option's type: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def counts(text: str) -> list[int]:
    """An option's type: such numbers with commas between."""
    return [count(part) for part in text.split(",")]
