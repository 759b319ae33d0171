"""Strings of strangers, made fit for a line of text."""

from __future__ import annotations

import re
import unicodedata

_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences, such as colours
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating system commands, such as titles and links
    r"|\x1b[@-_]?"
)
_DROPPED = ("Cc", "Cf", "Cs", "Co", "Cn")


def clean_text(text: str, max_characters: int = 200) -> str:
    """The text on one line, without escape sequences, control, invisible and text-turning characters."""
    plain = _ESCAPE.sub("", text[: 4 * max_characters])
    shown = "".join(
        " " if character.isspace() else character
        for character in plain
        if character.isspace() or unicodedata.category(character) not in _DROPPED
    )
    return " ".join(shown.split())[:max_characters].rstrip()
