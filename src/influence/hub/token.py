"""The user's secret, and texts without secrets.

A token goes to one origin and is never shown: not in an error, a log, a
`repr`. Neither are the signed queries of storage addresses, which let their
bearer read the file, nor a proxy's password.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from influence.errors import InvalidParameter

_SHOWN = "hf_***"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,512}=*")  # b64token of RFC 6750, section 2.1
_LOOKS_SECRET = re.compile(r"\bhf_[A-Za-z0-9]+|(?<=://)[^/\s@]*@|(?i:(?<=bearer )\S+)")
_QUERY = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]+")


class Token:
    """An access token; `str` and `repr` hide it, only `header` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """InvalidParameter, without the value, unless it can stand in a header."""
        if not _TOKEN.fullmatch(text):
            raise InvalidParameter("token", _SHOWN, "letters and digits, without spaces or line ends")
        self._text = text

    @property
    def header(self) -> str:
        """The value of the Authorization header."""
        return f"Bearer {self._text}"

    def hidden_in(self, text: str) -> str:
        """The text with the token struck out."""
        return text.replace(self._text, _SHOWN)

    def __repr__(self) -> str:
        return _SHOWN


def redacted(text: str, token: Token | None = None) -> str:
    """The text without tokens, passwords in URLs, and signed queries."""
    text = _LOOKS_SECRET.sub("***", _QUERY.sub(r"\1?***", text))
    return token.hidden_in(text) if token else text


def shown_url(url: str) -> str:
    """The URL as messages show it: without user, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unreadable address"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
