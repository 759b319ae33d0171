"""A model's files on this disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from influence.errors.base import InfluenceError

if TYPE_CHECKING:
    from pathlib import Path


class ModelError(InfluenceError):
    """Something about a model on this disk."""


class ModelFilesMissing(ModelError):
    """A model folder, or a file that must be in it, is not there."""

    def __init__(self, path: Path, missing: str, *, hint: str) -> None:
        super().__init__(f"{path}: {missing}", hint=hint)
        self.path = path


class InvalidConfig(ModelError):
    """A JSON file of the model says something impossible; names file and key."""

    def __init__(self, path: Path, key: str, problem: str, *, hint: str = "") -> None:
        where = f"{path}: {key}" if key else f"{path}"
        super().__init__(
            f"{where}: {problem}",
            hint=hint or "the file is damaged or was edited by hand: download the model again",
        )
        self.path = path
        self.key = key


class UnsupportedModel(ModelError):
    """A sound model of a kind that no engine here runs; says why and what to use instead."""

    def __init__(self, path: Path, reason: str, *, hint: str) -> None:
        super().__init__(f"{path}: {reason}", hint=hint)
        self.path = path


class InvalidCheckpoint(ModelError):
    """The weights are damaged or do not fit the config; names file and tensor."""

    def __init__(self, path: Path, problem: str, *, tensor: str = "", hint: str = "") -> None:
        where = f"{path}: tensor {tensor!r}" if tensor else f"{path}"
        super().__init__(
            f"{where}: {problem}",
            hint=hint or "the file is damaged or incomplete: download it again",
        )
        self.path = path
        self.tensor = tensor


class TokenizerError(InfluenceError):
    """tokenizer.json, tokenizer_config.json or the chat template is unusable."""

    def __init__(self, path: Path, problem: str, *, hint: str = "") -> None:
        super().__init__(
            f"{path}: {problem}",
            hint=hint or "the file is damaged or of an unknown kind: download the model again",
        )
        self.path = path
