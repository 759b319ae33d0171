"""Reads JSON that a stranger wrote, value by value, building nothing that is not asked for.

The standard `json` module turns three hostile bytes into a hundred, and deep
nesting into RecursionError. Here the caller walks the text and takes what it
knows; the rest is checked and skipped. Memory is what the caller keeps, and
nesting ends where serde_json ends it, so that the verdict on any text is that
of the Rust readers of the same files: strict UTF-8, no lone surrogates, no NaN,
no number beyond a double, no trailing comma.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from typing import NoReturn

_SPACE = rb"[ \t\n\r]*+"
# A \u escape is no surrogate, or a high surrogate with its low one.
_ESCAPE = (
    rb"\\(?:[\"\\/bfnrt]|u(?:[0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}"
    rb"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
)
_STRING_BODY = rb"\"((?:[^\"\\\x00-\x1f]++|" + _ESCAPE + rb")*+)\""

_STRING = re.compile(_SPACE + _STRING_BODY)
_KEY = re.compile(_SPACE + _STRING_BODY + _SPACE + rb":")
_UNSIGNED = re.compile(_SPACE + rb"(0|[1-9][0-9]*+)(?![0-9.eE])")
_NUMBER = re.compile(_SPACE + rb"-?((?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+)")
_LITERAL = re.compile(_SPACE + rb"(?:true|false|null)")
_NULL = re.compile(_SPACE + rb"null")
_PEEK = re.compile(_SPACE + rb"(.)", re.DOTALL)
_BLANK = re.compile(_SPACE)

_MAX_DEPTH = 127  # containers inside each other; serde_json's limit of 128 counts the value too
_MAX_U64_DIGITS = 20
_UTF8_CHUNK_BYTES = 1 << 20


class JsonError(ValueError):
    """The text is no JSON, or not the JSON that was expected; says where."""

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(f"{problem} at byte {position}")


class JsonScanner:
    """A position in `text[start:stop]`; every method takes what it names and moves on.

    All raise JsonError where the text holds something else.
    """

    __slots__ = ("_depth", "_position", "_stop", "_text")

    def __init__(self, text: bytes, start: int, stop: int) -> None:
        _check_utf8(text, start, stop)
        self._text = text
        self._position = start
        self._stop = stop
        self._depth = 0

    def fail(self, problem: str) -> NoReturn:
        raise JsonError(problem, self._position)

    def peek(self) -> bytes:
        """The first character of the next value, or b"" at the end; takes nothing."""
        match = _PEEK.match(self._text, self._position, self._stop)
        return match[1] if match else b""

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Takes what `pattern` matches here, or nothing."""
        match = pattern.match(self._text, self._position, self._stop)
        if match:
            self._position = match.end()
        return match

    def members(self) -> Iterator[str]:
        """The keys of an object; the caller takes each key's value before the next key."""
        for _ in self._enclosed(b"{", b"}", "an object"):
            match = self.match(_KEY) or self.fail("expected a key and a colon")
            yield _unescape(match[1])

    def elements(self) -> Iterator[None]:
        """Once for each element of an array, which the caller takes."""
        return self._enclosed(b"[", b"]", "an array")

    def _enclosed(self, opening: bytes, closing: bytes, kind: str) -> Iterator[None]:
        if self.peek() != opening:
            self.fail(f"expected {kind}")
        self._advance()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self.fail(f"more than {_MAX_DEPTH} levels of nesting")
        separator = b"," if self.peek() != closing else self._advance()
        while separator != closing:
            yield
            separator = self._advance()
            if separator not in (b",", closing):
                self.fail(f"expected ',' or {closing.decode()!r}")
        self._depth -= 1

    def _advance(self) -> bytes:
        match = self.match(_PEEK)
        return match[1] if match else b""

    def string(self) -> str:
        match = self.match(_STRING) or self.fail("expected a string")
        return _unescape(match[1])

    def unsigned(self) -> int:
        """An integer in 0 .. 2**64 - 1, written without sign, point and exponent."""
        match = self.match(_UNSIGNED) or self.fail("expected an integer that is not negative")
        value = int(match[1]) if len(match[1]) <= _MAX_U64_DIGITS else 1 << 64
        return value if value < 1 << 64 else self.fail("an integer above 2**64 - 1")

    def null(self) -> None:
        if not self.match(_NULL):
            self.fail("expected null")

    def skip(self) -> None:
        """Takes any one value; recursion ends at the nesting limit."""
        first = self.peek()
        if first == b"{":
            for _ in self.members():
                self.skip()
        elif first == b"[":
            for _ in self.elements():
                self.skip()
        elif first == b'"':
            self.match(_STRING) or self.fail("a string that is not well-formed")
        elif number := self.match(_NUMBER):
            if _exceeds_double(number[1]):
                self.fail("a number out of range")
        elif not self.match(_LITERAL):
            self.fail("expected a value")

    def end(self) -> None:
        """Nothing but space may follow."""
        self.match(_BLANK)
        if self._position != self._stop:
            self.fail("expected the end")


def _unescape(body: bytes) -> str:
    text = body.decode()
    return str(json.loads(f'"{text}"')) if "\\" in text else text


def _check_utf8(text: bytes, start: int, stop: int) -> None:
    """In pieces, so that a huge text is never there a second time as characters."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(text)
    for begin in range(start, stop, _UTF8_CHUNK_BYTES):
        end = min(begin + _UTF8_CHUNK_BYTES, stop)
        try:
            decoder.decode(view[begin:end], final=end == stop)
        except UnicodeDecodeError as error:
            raise JsonError("text that is not UTF-8", begin + error.start) from error


def _exceeds_double(number: bytes) -> bool:
    """Whether serde_json calls this number out of range.

    It keeps the leading digits that fit 64 bits and multiplies them, as a
    double, by a power of ten, so that it refuses some numbers just below the
    largest double. Short integers and fractions can't exceed it.
    """
    mantissa, _, exponent = number.lower().partition(b"e")
    if not exponent and len(mantissa) < 300:
        return False
    whole, _, fraction = mantissa.partition(b".")
    digits = (whole + fraction).lstrip(b"0")
    n_kept = 20 if int(digits[:20] or b"0") < 1 << 64 else 19
    n_dropped = max(len(digits) - n_kept, 0)
    power = _clamped_int(exponent) - len(fraction) + n_dropped
    if not digits or power < 0:
        return False
    return power > 308 or math.isinf(float(int(digits[:n_kept])) * float(f"1e{power}"))


def _clamped_int(exponent: bytes) -> int:
    """An exponent; beyond nine digits its exact value no longer matters."""
    digits = exponent.lstrip(b"+-").lstrip(b"0") or b"0"
    size = int(digits) if len(digits) <= 9 else 10**9
    return -size if exponent.startswith(b"-") else size
