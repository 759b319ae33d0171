"""Models that the fake hub offers to tests of the commands."""

from __future__ import annotations

import json
from pathlib import Path

from influence import demo
from support.fake_hub import FakeHub, Virtual
from support.fake_hub.repos import Files

NAME = "org/name"
FOLDER = Path("models/org_name")
SHARDS = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]


def demo_files() -> dict[str, bytes]:
    """The demo model: one that runs."""
    return {path.name: path.read_bytes() for path in sorted(demo.folder().iterdir()) if path.is_file()}


def sharded(shard_bytes: int = 3_000_000) -> Files:
    """Weights in three files that only look like some, and what else lies beside them."""
    index = {"metadata": {}, "weight_map": {f"layer.{n}": name for n, name in enumerate(SHARDS)}}
    return {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps(index),
        **{name: Virtual(shard_bytes + n, seed=n) for n, name in enumerate(SHARDS)},
        "pytorch_model.bin": b"pickled",
        "original/consolidated.00.pth": b"pickled too",
    }


def published(hub: FakeHub, name: str = NAME) -> dict[str, bytes]:
    """All files of a model's main branch."""
    repo = hub.repos[name]
    contents = repo.commits[repo.branches["main"]]
    return {path: content.read(0, content.size_bytes) for path, content in contents.items()}
