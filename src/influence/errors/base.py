"""The root of all errors."""

from __future__ import annotations


class InfluenceError(Exception):
    """Base of all errors that influence raises on purpose.

    `message` says what happened, `hint` what to do next (may be empty).
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
