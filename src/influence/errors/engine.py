"""Running a model."""

from __future__ import annotations

from influence.errors.base import InfluenceError


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

    def __init__(self, what: str, needed_bytes: int, available_bytes: int, *, hint: str = "") -> None:
        super().__init__(
            f"{what} needs {_size(needed_bytes)}, but {_size(available_bytes)} are free",
            hint=hint or "give a smaller --context, choose a smaller model, or close other programs",
        )
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class RankFailed(EngineError):
    """One of the processes that share a model failed or ended, and all others were ended with it."""

    def __init__(self, who: str, cause: str, *, hint: str = "") -> None:
        super().__init__(f"{who} failed: {cause}", hint=hint or "start again, with fewer GPUs if it recurs")


class NumericError(EngineError):
    """The model computed NaN or infinity; nothing was made up in its place."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(
            f"the model gave {what} at position {position}",
            hint="the weights are probably damaged: verify them, or download the model again",
        )
        self.position = position
