"""The models of the fake hub: commits, branches, and the JSON that the Hub makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.fake_hub.content import Content, content_of

Files = Mapping[str, bytes | str | Path | Content]
_LARGE_BYTES = 1 << 20
_LARGE_SUFFIXES = (".safetensors", ".bin", ".gguf", ".h5", ".onnx", ".pth")


@dataclass
class Repo:
    id: str
    branches: dict[str, str] = field(default_factory=dict)  # name -> commit
    commits: dict[str, dict[str, Content]] = field(default_factory=dict)
    gated: str | bool = False
    private: bool = False
    facts: dict[str, Any] = field(default_factory=dict)  # more of its JSON: downloads, tags, ...

    def commit(self, files: Files, branch: str = "main") -> str:
        """A new commit of exactly these files, and the branch on it."""
        contents = {path: content_of(value) for path, value in files.items()}
        seed = f"{self.id}:{len(self.commits)}:{branch}:{sorted(contents)}"
        sha = hashlib.sha1(seed.encode("utf-8", "surrogatepass")).hexdigest()
        self.commits[sha] = contents
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str:
        """The commit of a branch or commit, "" if there is none."""
        return self.branches.get(revision, revision if revision in self.commits else "")

    def info(self, sha: str, *, blobs: bool) -> dict[str, Any]:
        files = self.commits[sha]
        return {
            "_id": hashlib.md5(self.id.encode()).hexdigest()[:24],
            "id": self.id,
            "modelId": self.id,
            "author": self.id.split("/")[0],
            "sha": sha,
            "private": self.private,
            "gated": self.gated,
            "disabled": False,
            "lastModified": "2026-01-02T03:04:05.000Z",
            "createdAt": "2025-01-02T03:04:05.000Z",
            "downloads": 0,
            "likes": 0,
            "tags": [],
            **self.facts,
            "siblings": [self._sibling(path, files[path], blobs) for path in files],
        }

    def _sibling(self, path: str, content: Content, blobs: bool) -> dict[str, Any]:
        if not blobs:
            return {"rfilename": path}
        entry = tree_entry(path, content)
        more = {"size": entry["size"], "blobId": entry["oid"]}
        if "lfs" in entry:
            more["lfs"] = {"sha256": entry["lfs"]["oid"], "size": entry["size"], "pointerSize": 134}
        return {"rfilename": path, **more}

    def tree(self, sha: str) -> list[dict[str, Any]]:
        files = self.commits[sha]
        folders = {path.rsplit("/", 1)[0] for path in files if "/" in path}
        listed = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in sorted(folders)
        ]
        return listed + [tree_entry(path, content) for path, content in sorted(files.items())]


def is_large(path: str, content: Content) -> bool:
    """Whether the Hub keeps it outside git (LFS)."""
    return path.endswith(_LARGE_SUFFIXES) or content.size_bytes > _LARGE_BYTES


def tree_entry(path: str, content: Content) -> dict[str, Any]:
    size = content.size_bytes
    if not is_large(path, content):
        return {"type": "file", "oid": content.git_sha1, "size": size, "path": path}
    pointer = content_of(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{content.sha256}\nsize {size}\n"
    )
    lfs = {"oid": content.sha256, "size": size, "pointerSize": pointer.size_bytes}
    return {"type": "file", "oid": pointer.git_sha1, "size": size, "lfs": lfs, "path": path}
