"""Every way influence can fail, as one tree.

    InfluenceError
    ├── ModelError                 something about a model on this disk
    │   ├── ModelFilesMissing      a folder, or a file that must be in it, is not there
    │   ├── InvalidConfig          config.json (or a file like it) says something impossible
    │   ├── UnsupportedModel       a sound model of a kind that no engine here runs
    │   └── InvalidCheckpoint      the weights are damaged or do not fit the config
    ├── TokenizerError             tokenizer.json or the chat template is unusable
    ├── EngineError
    │   ├── DeviceUnavailable      the device asked for is not on this machine
    │   ├── ContextFull            the prompt does not fit the context
    │   ├── OutOfMemory            weights or KV cache do not fit the memory
    │   └── NumericError           the model computed NaN or infinity
    └── RequestError               what was asked for can't be done
        ├── InvalidParameter       a value out of its range
        └── ServerBusy             no place for another request now

A leaf is a situation that a user can be in. Its constructor takes facts and
builds the message; `hint` is the next thing to do. Errors are raised at the
lowest floor that knows the facts and caught in `cli/failure.py` (exit codes)
and the server (statuses) alone. The Hub's branch of the tree grows here too
when the Hub package does.
"""

from __future__ import annotations

from pathlib import Path


class InfluenceError(Exception):
    """Base of all errors that influence raises on purpose.

    `message` says what happened, `hint` what to do next (may be empty).
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


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


class EngineError(InfluenceError):
    """Running the model failed."""


class DeviceUnavailable(EngineError):
    """The device that the user named is not usable on this machine; says why."""

    def __init__(self, device: str, reason: str, *, hint: str = "") -> None:
        super().__init__(
            f"device {device!r} is not available: {reason}",
            hint=hint or "use --device cpu, or --device auto; `influence doctor` lists the devices",
        )
        self.device = device


class ContextFull(EngineError):
    """More positions were asked for than the context has."""

    def __init__(self, n_tokens: int, n_wanted: int, context: int) -> None:
        super().__init__(
            f"the prompt has {n_tokens} tokens and at least {n_wanted} more are needed, "
            f"but the context is {context}",
            hint="shorten the prompt, or give a larger --context if the model allows it",
        )
        self.n_tokens = n_tokens
        self.n_wanted = n_wanted
        self.context = context


def _size(n_bytes: int) -> str:
    """Bytes for people: decimal units, as disks and memory are sold."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} bytes"


class OutOfMemory(EngineError):
    """What is asked for needs more memory than there is; gives both numbers."""

    def __init__(self, what: str, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(
            f"{what} needs {_size(needed_bytes)}, but {_size(available_bytes)} are free",
            hint="give a smaller --context, choose a smaller model, or close other programs",
        )
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class NumericError(EngineError):
    """The model computed NaN or infinity; nothing was made up in its place."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(
            f"the model gave {what} at position {position}",
            hint="the weights are probably damaged: verify them, or download the model again",
        )
        self.position = position


class RequestError(InfluenceError):
    """What was asked for can't be done."""


class InvalidParameter(RequestError):
    """A value out of its range; names the parameter, the value, and the range."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(
            f"{name} is {value!r}, but must be {expected}",
            hint="see --help for the ranges",
        )
        self.name = name
        self.value = value
        self.expected = expected


class ServerBusy(RequestError):
    """No place for another request now; try again after `retry_after_s` seconds."""

    def __init__(self, n_waiting: int, retry_after_s: float) -> None:
        super().__init__(
            f"{n_waiting} requests are waiting already",
            hint=f"try again in {retry_after_s:.0f} s",
        )
        self.retry_after_s = retry_after_s
