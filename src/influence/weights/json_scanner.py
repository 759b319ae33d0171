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
_NUMBER = re.compile(
    _SPACE + rb"-?((?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+)(?:[eE](?:\+|(-))?([0-9]++))?+"
)  # mantissa, minus of the exponent, exponent
_NONZERO = re.compile(rb"[1-9]")
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

    __slots__ = ("_depth", "_position", "_stop", "_text", "_view")

    def __init__(self, text: bytes, start: int, stop: int) -> None:
        _check_utf8(text, start, stop)
        self._text = text
        self._view = memoryview(text)  # slices of it are no copies
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
            yield self._characters(match)

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
        return self._characters(match)

    def _characters(self, string: re.Match[bytes]) -> str:
        start, stop = string.span(1)
        text = str(self._view[start:stop], "utf-8")
        return str(json.loads(f'"{text}"')) if "\\" in text else text

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
            if _exceeds_double(self._text, number):
                self.fail("a number out of range")
        elif not self.match(_LITERAL):
            self.fail("expected a value")

    def end(self) -> None:
        """Nothing but space may follow."""
        self.match(_BLANK)
        if self._position != self._stop:
            self.fail("expected the end")


def _check_utf8(text: bytes, start: int, stop: int) -> None:
    """In pieces, so that a huge text is never there a second time as characters."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(text)
    for begin in range(start, stop, _UTF8_CHUNK_BYTES):
        end = min(begin + _UTF8_CHUNK_BYTES, stop)
        n_pending = len(decoder.getstate()[0])  # bytes of a character that the last piece cut
        try:
            decoder.decode(view[begin:end], final=end == stop)
        except UnicodeDecodeError as error:
            raise JsonError("text that is not UTF-8", begin - n_pending + error.start) from error


def _exceeds_double(text: bytes, number: re.Match[bytes]) -> bool:
    """Whether serde_json calls this match of _NUMBER out of range.

    It keeps the leading digits that fit 64 bits and multiplies them, as a
    double, by a power of ten, so that it refuses some numbers just below the
    largest double. Copies no more of the number than those digits.
    """
    start, stop = number.span(1)
    first = _NONZERO.search(text, start, stop)
    if not first:
        return False
    point = text.find(b".", start, stop)
    whole_end = stop if point < 0 else point
    place = whole_end - first.start() + (first.start() > whole_end)  # of the first digit; 1 is the ones
    kept = text[first.start() : min(first.start() + 21, stop)].replace(b".", b"")[:20]
    kept = kept if int(kept) < 1 << 64 else kept[:19]
    power = place - len(kept) + _exponent(text, number)
    if power <= 0:
        return False
    return power > 308 or math.isinf(float(int(kept)) * float(f"1e{power}"))


def _exponent(text: bytes, number: re.Match[bytes]) -> int:
    """Its exponent; beyond nine digits the exact value no longer matters."""
    start, stop = number.span(3)
    first = _NONZERO.search(text, start, stop) if start >= 0 else None
    if not first:
        return 0
    size = int(text[first.start() : stop]) if stop - first.start() <= 9 else 10**9
    return -size if number[2] else size
