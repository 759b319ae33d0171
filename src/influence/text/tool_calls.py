"""Calls of tools in a reply, found while its text comes in.

    TextPart       what is no call: whole, and only what can't become one any more
    ToolCallPart   a call, when its last character is there

The parts depend on the text alone, not on how it was cut. What begins like a
call and is none comes back as text. Blanks around calls belong to nobody.
"""

from __future__ import annotations

import re

from influence.dataclass import dataclass
from influence.text.tool_formats import (
    ARGS_MARK,
    CALL_ID_MARK,
    ToolCall,
    ToolFormat,
    arguments_json,
    called,
    json_value,
    tool_format,
)

__all__ = ["TextPart", "ToolCall", "ToolCallParser", "ToolCallPart", "ToolFormat", "tool_format"]

MAX_CALLS = 64  # in one reply; what follows is text
MAX_CALL_CHARACTERS = 1 << 20
_MAX_FALSE_STARTS = 64  # after so many the rest is text: each may be read to its end
_MAX_DEPTH = 100

_BLANKS = " \t\r\n"
# A name and what may stand between it and its arguments: `f[ARGS]{`, `f[CALL_ID]abc[ARGS]{`, `f{`.
_NAMED = re.compile(
    rf"\s*([\w.\-]{{1,256}})(?:{re.escape(CALL_ID_MARK)}\w{{1,64}})?(?:{re.escape(ARGS_MARK)})?\s*(?=\{{)"
)
_NAMED_MOST = 512  # characters in which a match of it ends
_OUTSIDE_STRINGS = re.compile(r'[^"{}\[\]]*')
_INSIDE_STRINGS = re.compile(r'[^"\\]*')
_NO_JSON = re.compile(r"[^\s\w,:.+\-]")


@dataclass(frozen=True)
class TextPart:
    """Text of the reply; never empty."""

    text: str


@dataclass(frozen=True)
class ToolCallPart:
    """A whole call."""

    call: ToolCall


Part = TextPart | ToolCallPart


class _ValueScanner:
    """Finds the end of a JSON object or array, however its text is cut; it does not check it otherwise."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self.is_broken = False

    def end(self, text: str, start: int) -> tuple[int, bool]:
        """Read on at `start`: (where reading stopped, whether the value ends there)."""
        at = start
        while at < len(text) and not self.is_broken:
            at = self._skipped(text, at)
            if at == len(text):
                break
            character = text[at]
            if character == "\\":
                if at + 1 == len(text):
                    break  # what is escaped is still to come
                at += 1
            elif character == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if character in "{[" else -1
            at += 1
            if self._depth == 0:
                return at, True
            self.is_broken |= self._depth > _MAX_DEPTH
        return at, False

    def _skipped(self, text: str, at: int) -> int:
        """Where the next character stands that changes anything."""
        pattern = _INSIDE_STRINGS if self._in_string else _OUTSIDE_STRINGS
        match = pattern.match(text, at)
        end = at if match is None else match.end()
        if not self._in_string and _NO_JSON.search(text, at, end):
            self.is_broken = True
        return end


class _Candidate:
    """What may be a call, from its opening on; it is read until it is one or can't be."""

    def __init__(self, written_as: ToolFormat, payload: int) -> None:
        self._format = written_as
        self._name: str | None = None  # where it stands before the arguments
        self._value: int | None = None  # where the JSON begins, once that is known
        self._scanner = _ValueScanner()
        self.payload = payload  # where blanks, a name or JSON begin, after the opening
        self.end = payload  # how far it was read
        self.is_refuted = False

    def calls(self, text: str) -> list[ToolCall]:
        """The calls that it makes, `text` being all of it so far; [] if it is not whole, or refuted."""
        if self._value is None:
            self._find_value(text)
        if self._value is None:
            return []
        self.end, is_whole = self._scanner.end(text, self.end)
        self.is_refuted = self._scanner.is_broken or self.end > MAX_CALL_CHARACTERS
        if self.is_refuted or not is_whole:
            return []
        made = self._made_calls(text[self._value : self.end])
        self.is_refuted = not made
        return made

    def _find_value(self, text: str) -> None:
        """Look for the beginning of the JSON, and for a name before it."""
        rest = text[self.payload :]
        inner = rest.lstrip(_BLANKS)
        if inner.startswith(("{", "[")):
            self._value = self.payload + len(rest) - len(inner)
        elif self._format.name == "mistral":
            match = _NAMED.match(rest, 0, _NAMED_MOST)
            if match is not None:
                self._name, self._value = match[1], self.payload + match.end()
            self.is_refuted = match is None and len(rest) >= _NAMED_MOST
        else:
            self.is_refuted = bool(inner)
        self.end = self.payload if self._value is None else self._value

    def _made_calls(self, value: str) -> list[ToolCall]:
        if self._name is not None:
            arguments = arguments_json(value)
            return [] if arguments is None else [ToolCall(self._name, arguments)]
        return called(json_value(value), is_bare=self._format.is_bare and self.payload == self._value) or []


class ToolCallParser:
    """One reply's text in, its parts out; `finish` once, at the end."""

    def __init__(self, written_as: ToolFormat) -> None:
        self._format = written_as
        self._buffer = ""  # what was not told yet; with a candidate, from its opening on
        self._candidate: _Candidate | None = None
        self._is_beginning = True  # nothing was told yet
        self._is_after_call = False  # nothing but blanks since a call
        self._closings: tuple[str, ...] = ()  # of these one may follow the call
        self._n_calls = 0
        self._n_false_starts = 0

    def push(self, text: str) -> list[Part]:
        """The parts that this text makes certain."""
        self._buffer += text
        return self._drained(is_last=False)

    def finish(self) -> list[Part]:
        """The rest; a call that was cut off is text."""
        return self._drained(is_last=True)

    def _drained(self, *, is_last: bool) -> list[Part]:
        parts: list[Part] = []
        while True:
            if self._candidate is not None:
                found = self._read(self._candidate, is_last)
            else:
                found = self._between(is_last)
            if found is None:
                return parts
            parts += found

    # Each of these two returns None where only more text can tell.

    def _between(self, is_last: bool) -> list[Part] | None:
        """Text up to the next opening."""
        if self._is_after_call and not self._skip_to_text(is_last):
            return None
        length = self._open()
        if length is None:
            held = 0 if is_last else self._n_held()
            length = len(self._buffer) - held
            if not is_last:  # blanks may turn out to stand before a call
                length = len(self._buffer[:length].rstrip(_BLANKS))
            if length == 0:
                return None
        return self._told(length)

    def _read(self, candidate: _Candidate, is_last: bool) -> list[Part] | None:
        """The calls of a candidate, or its opening as text."""
        calls = candidate.calls(self._buffer)
        if calls and self._n_calls + len(calls) <= MAX_CALLS:
            self._n_calls += len(calls)
            self._buffer = self._buffer[candidate.end :]
            self._candidate = None
            self._is_beginning, self._is_after_call = False, True
            self._closings = self._format.closings
            return [ToolCallPart(call) for call in calls]
        if not (calls or candidate.is_refuted or is_last):
            return None
        self._n_false_starts += 1
        self._candidate = None
        return self._told(max(candidate.payload, 1))

    def _skip_to_text(self, is_last: bool) -> bool:
        """Drop blanks after a call, and one closing mark; whether it is known what follows."""
        ignored = _BLANKS + (";" if self._format.is_bare else "")
        self._buffer = self._buffer.lstrip(ignored)
        for closing in self._closings:
            if self._buffer.startswith(closing):
                self._buffer = self._buffer[len(closing) :].lstrip(ignored)
                self._closings = ()
        if not is_last and any(closing.startswith(self._buffer) for closing in self._closings):
            return False
        return bool(self._buffer)

    def _open(self) -> int | None:
        """Begin a candidate at the first opening in the buffer; the length of the text before it."""
        if self._n_calls >= MAX_CALLS or self._n_false_starts >= _MAX_FALSE_STARTS:
            return None
        text = self._buffer
        found = [(text.find(opening), opening) for opening in self._format.openings]
        found = [(at, opening) for at, opening in found if at >= 0]
        first = len(text) - len(text.lstrip(_BLANKS))
        if (
            self._format.is_bare
            and (self._is_beginning or self._is_after_call)
            and text[first:].startswith("{")
        ):
            found.append((first, ""))
        if not found:
            return None
        at, opening = min(found)
        length = len(text[:at].rstrip(_BLANKS))
        # Of `functools[` the bracket belongs to the JSON.
        payload = at - length + len(opening.removesuffix("[") if "]" not in opening else opening)
        self._candidate = _Candidate(self._format, payload)
        return length

    def _n_held(self) -> int:
        """Length of the longest end of the buffer with which an opening may begin."""
        return max(_overlap(self._buffer, opening) for opening in self._format.openings)

    def _told(self, length: int) -> list[Part]:
        """The first characters of the buffer as text."""
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        if not text:
            return []
        self._is_beginning = self._is_after_call = False
        return [TextPart(text)]


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that `mark`, not complete in it, begins with."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if mark.startswith(text[-length:]):
            return length
    return 0
