"""config.json and its like: loud, typed reading of JSON that somebody else wrote.

A key is read by the type it must have; anything else is an InvalidConfig that
names file and key. `null` and absence differ, as in transformers: a key that
is absent takes the default, one that is `null` is an error unless it is read
by an `optional_` method, which gives None.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from influence.errors import InvalidConfig, ModelFilesMissing, UnsupportedModel

# A real config.json has a few kB; the largest known (long rope factor lists) under 100.
MAX_JSON_BYTES = 4 << 20

# Counts up to this fit the native core's int64 arithmetic even when three are multiplied.
MAX_INT = 1 << 31

MAX_FLOAT = 3e38  # engines compute in float32


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file (UTF-8, UTF-16 or UTF-32, with or without a BOM).

    Raises ModelFilesMissing if there is no such file, InvalidConfig if it is
    not a regular file, larger than MAX_JSON_BYTES, not readable or not JSON.
    """
    return parse_json_object(_read_regular_file(path), path)


def parse_json_object(data: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in a file's content, as `read_json_object` reads it; `path` is only named in InvalidConfig."""
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InvalidConfig(path, "", "is nested too deeply") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, an integer of 5000 digits
        raise InvalidConfig(path, "", f"is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidConfig(path, "", f"must hold a JSON object, not {_kind(value)}")
    return value


def _read_regular_file(path: Path) -> bytes:
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        raise ModelFilesMissing(
            path.parent, f"there is no {path.name}", hint="give the folder of a downloaded model"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return _read_descriptor(descriptor, path)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)


def _read_descriptor(descriptor: int, path: Path) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidConfig(path, "", "is not a regular file")
    if status.st_size > MAX_JSON_BYTES:
        raise InvalidConfig(path, "", f"has {status.st_size} bytes, more than {MAX_JSON_BYTES}")
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(MAX_JSON_BYTES)


def _unreadable(path: Path, error: OSError) -> InvalidConfig:
    problem = f"can't be read: {error.strerror}"
    return InvalidConfig(path, "", problem, hint="check the file's permissions")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), f"the number {str(value)[:40]}")


class Config:
    """A JSON object of a model, read key by key. `path` and `prefix` are for error messages."""

    def __init__(self, values: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self.values = values
        self.path = path
        self._prefix = prefix

    @classmethod
    def load(cls, path: Path) -> Config:
        """Read a JSON file; raises as `read_json_object` does."""
        return cls(read_json_object(path), path)

    @classmethod
    def parse(cls, data: bytes, path: Path) -> Config:
        """From a file's content, wherever it is; `path` is only named in errors."""
        return cls(parse_json_object(data, path), path)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def integer(
        self, key: str, default: int | None = None, *, minimum: int = 1, maximum: int = MAX_INT
    ) -> int:
        """An integer in [minimum, maximum]; required if there is no default."""
        value = self._value(key, default)
        if type(value) is not int:
            raise self.invalid(key, f"must be an integer, not {_kind(value)}")
        if not minimum <= value <= maximum:
            raise self.invalid(key, f"is {str(value)[:40]}, but must be from {minimum} to {maximum}")
        return value

    def optional_integer(
        self, key: str, default: int | None = None, *, minimum: int = 1, maximum: int = MAX_INT
    ) -> int | None:
        """As `integer`, but None where the key is `null`, or absent without a default."""
        if self.values.get(key, default) is None:
            return None
        return self.integer(key, default, minimum=minimum, maximum=maximum)

    def number(
        self,
        key: str,
        default: float | None = None,
        *,
        minimum: float = -math.inf,
        maximum: float = math.inf,
        above: float = -math.inf,
    ) -> float:
        """A finite number in [minimum, maximum] and greater than `above`; required without a default."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.invalid(key, f"must be a number, not {_kind(value)}")
        if not abs(value) <= MAX_FLOAT:  # also false for NaN
            raise self.invalid(key, f"is {str(value)[:40]}, but must be a number that float32 holds")
        if not minimum <= value <= maximum:
            raise self.invalid(key, f"is {value}, but must be from {minimum:g} to {maximum:g}")
        if value <= above:
            raise self.invalid(key, f"is {value}, but must be greater than {above:g}")
        return float(value)

    def optional_number(
        self,
        key: str,
        default: float | None = None,
        *,
        minimum: float = -math.inf,
        maximum: float = math.inf,
        above: float = -math.inf,
    ) -> float | None:
        """As `number`, but None where the key is `null`, or absent without a default."""
        if self.values.get(key, default) is None:
            return None
        return self.number(key, default, minimum=minimum, maximum=maximum, above=above)

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.invalid(key, f"must be true or false, not {_kind(value)}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.invalid(key, f"must be a string, not {_kind(value)}")
        return value

    def sequence(self, key: str) -> Sequence[Any]:
        value = self._value(key, None)
        if not isinstance(value, list):
            raise self.invalid(key, f"must be a list, not {_kind(value)}")
        return value

    def section(self, key: str) -> Config | None:
        """An object inside; None where it is `null`, absent or empty."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.invalid(key, f"must be an object or null, not {_kind(value)}")
        return Config(value, self.path, f"{self._prefix}{key}.") if value else None

    def require(self, key: str, *supported: Any) -> None:
        """Refuse the model unless the key is absent, null, or one of the supported values."""
        value = self.values.get(key)
        if value is not None and value not in supported:
            raise self.unsupported(key, value, " or ".join(repr(item) for item in supported))

    def invalid(self, key: str, problem: str) -> InvalidConfig:
        """An InvalidConfig that names file and key."""
        return InvalidConfig(self.path, self._prefix + key, problem)

    def unsupported(self, key: str, value: object, supported: str) -> UnsupportedModel:
        """An UnsupportedModel that names file, key and value."""
        return UnsupportedModel(
            self.path,
            f"{self._prefix}{key} is {str(value)[:100]!r}, but only {supported} is supported",
            hint="choose another model of this family; `influence search` marks what runs here",
        )

    def _value(self, key: str, default: Any) -> Any:
        if key not in self.values and default is None:
            raise self.invalid(key, "is missing")
        return self.values.get(key, default)
