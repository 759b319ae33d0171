"""How JSON is nested and how much is in it, told before anything walks it.

Only passes over bytes that run in C, and one over the brackets once they are known to be
few: a body of megabytes made to be slow must not hold up the streams of others.
What is no JSON may be told wrongly from its first fault on; the decoder ends there too.
"""

from __future__ import annotations

from influence.server.errors import ApiError, invalid

_OPENING = b"[{"
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def require_shape(body: bytes | bytearray, *, max_depth: int, max_values: int) -> None:
    """Raises ApiError (400) for JSON deeper than `max_depth` or with more lists, objects and strings than allowed."""
    # Pairs from the left, so that a quote after an escaped backslash stays one.
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    n_strings = plain.count(b'"') // 2
    if n_strings > max_values:
        raise _too_much(max_values)
    brackets = b"".join(plain.split(b'"')[::2]).translate(None, _ALL_BUT_BRACKETS)
    if n_strings + len(brackets) // 2 > max_values:
        raise _too_much(max_values)
    if depth(brackets) > max_depth:
        raise invalid(f"the body is nested deeper than {max_depth} levels", code="invalid_json")


def depth(brackets: bytes) -> int:
    """The most that are open at once."""
    n_open = deepest = 0
    for bracket in brackets:
        if bracket in _OPENING:
            n_open += 1
            deepest = max(deepest, n_open)
        else:
            n_open -= 1
    return deepest


def _too_much(max_values: int) -> ApiError:
    return invalid(f"the body holds more than {max_values} lists, objects and strings", code="invalid_json")
