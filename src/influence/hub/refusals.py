"""An answer that is none, as the situation that the user is in.

The Hub names its reason in X-Error-Code; the status alone misleads: a missing
model is 401 to a stranger (so that private ones can't be guessed), a gated one
401 or 403 (huggingface_hub, utils/_http.py, `hf_raise_for_status`). A 403
without a code is not the Hub's: mirrors, proxies and their filters send it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from influence.dataclass import dataclass
from influence.errors import (
    DownloadFailed,
    EntryNotFound,
    GatedModel,
    HubError,
    InvalidAnswer,
    InvalidToken,
    LineBroken,
    LinkExpired,
    MirrorRefused,
    ModelNotFound,
    RevisionNotFound,
)
from influence.hub.cleaning import clean_text
from influence.hub.endpoint import OFFICIAL
from influence.hub.token import Token, redacted, shown_url

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
# What a status means where the host says nothing more.
_UNTOLD = {429: "too many requests", 502: "its upstream failed", 503: "not available now", 504: "too late"}

_BAD_TOKEN = re.compile(
    r"invalid (credentials|username or password)|token .*(expired|invalid)", re.IGNORECASE
)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Subject:
    """What a request is about, so that its errors can name it; all may be empty."""

    repo: str = ""
    revision: str = "main"
    path: str = ""
    is_listing: bool = False  # of the model's files, which not every mirror has


NO_SUBJECT = Subject()


@dataclass(frozen=True)
class Refusal:
    """An answer of status 400 or above, or a redirect to nowhere."""

    url: str  # which answered, after all redirects
    status: int
    headers: Mapping[str, str]  # any case
    excerpt: str  # of the body's beginning
    about: Subject
    on_hub: bool  # whether a hub answered, not storage that it sent us to
    token_sent: bool
    token: Token | None
    asked_wait_s: float | None = None

    @property
    def host(self) -> str:
        return shown_url(self.url).split("/")[2]

    @property
    def code(self) -> str:
        return self.headers.get("x-error-code", "")

    @property
    def reason(self) -> str:
        """The host's own words, cleaned, with the number under which it logged them."""
        words = clean_text(self.headers.get("x-error-message", "")) or _words(self.excerpt)
        number = clean_text(self.headers.get("x-request-id", ""), 80)
        told = (words or _UNTOLD.get(self.status, f"status {self.status}")) + (
            f" (request {number})" if number else ""
        )
        return redacted(told, self.token)

    @property
    def has_token(self) -> bool:
        return self.token is not None


def error_of(refusal: Refusal) -> HubError:
    """The error that says what the refusal means and what to do."""
    if refusal.status in RETRIED:
        return _busy(refusal)
    if not refusal.on_hub:
        return _storage_error(refusal)
    by_code = _error_by_code(refusal)
    if by_code is not None:
        return by_code
    if refusal.status == 401:
        return _unauthorized(refusal)
    if refusal.status in (404, 410) and not _is_page(refusal):
        return _not_found(refusal)
    if refusal.status == 400:
        return InvalidAnswer(shown_url(refusal.url), f"answered 400: {refusal.reason}")
    return MirrorRefused(refusal.host, f"refused with status {refusal.status}: {refusal.reason}")


def web_page_error(url: str, text: str) -> MirrorRefused:
    """The error for a web page that came in place of data: a sign-in page of the network, or a mirror's front."""
    title = _TITLE.search(text)
    words = clean_text(title[1] if title else _TAG.sub(" ", text), 80)
    return MirrorRefused(
        shown_url(url).split("/")[2],
        f"answered with a web page ({words or 'empty'}) instead of data",
        hint="if the network has a sign-in page, sign in first; else try another mirror: "
        "--mirror https://huggingface.co",
    )


def _busy(refusal: Refusal) -> LineBroken:
    return LineBroken(
        shown_url(refusal.url),
        f"answered {refusal.status}: {refusal.reason}",
        hint="wait some minutes and run the same command again, or name another mirror with --mirror URL",
        wait_s=refusal.asked_wait_s,
    )


def _error_by_code(refusal: Refusal) -> HubError | None:
    about = refusal.about
    match refusal.code:
        case "RepoNotFound" if refusal.token_sent and _BAD_TOKEN.search(refusal.reason):
            return InvalidToken(refusal.host)
        case "RepoNotFound":
            return ModelNotFound(about.repo, refusal.host, has_token=refusal.has_token)
        case "RevisionNotFound":
            return RevisionNotFound(about.repo, about.revision)
        case "EntryNotFound":
            return EntryNotFound(about.repo, about.path, about.revision)
        case "GatedRepo":
            return GatedModel(about.repo, f"{OFFICIAL}/{about.repo}", has_token=refusal.has_token)
    return None


def _unauthorized(refusal: Refusal) -> HubError:
    if refusal.token_sent:
        return InvalidToken(refusal.host)
    if refusal.about.repo:
        return ModelNotFound(refusal.about.repo, refusal.host, has_token=refusal.has_token)
    return MirrorRefused(refusal.host, f"wants a token: {refusal.reason}", hint="pass one with --token")


def _not_found(refusal: Refusal) -> HubError:
    about = refusal.about
    if about.is_listing:
        return MirrorRefused(refusal.host, f"does not list the files of models: {refusal.reason}")
    if about.path:
        return EntryNotFound(about.repo, about.path, about.revision)
    if about.repo:
        return ModelNotFound(about.repo, refusal.host, has_token=refusal.has_token)
    return MirrorRefused(refusal.host, f"does not answer the Hub's API: {refusal.reason}")


def _storage_error(refusal: Refusal) -> HubError:
    """Storage answers 400, 401, 403 or 404 to an address whose signature is no longer good."""
    problem = f"answered {refusal.status}: {refusal.reason}"
    if refusal.status in (400, 401, 403, 404, 410):
        return LinkExpired(shown_url(refusal.url), problem)
    return DownloadFailed(shown_url(refusal.url), problem)


def _is_page(refusal: Refusal) -> bool:
    return looks_like_page(refusal.headers.get("content-type", ""), refusal.excerpt)


def looks_like_page(content_type: str, beginning: str) -> bool:
    """Whether a body is a web page, by its type or by its first characters."""
    start = beginning.lstrip("\ufeff \t\r\n")[:9].lower()
    return content_type.partition(";")[0].strip().lower() == "text/html" or start.startswith(
        ("<!doctype", "<html")
    )


def _words(excerpt: str) -> str:
    """What a body says: the "error" of JSON, or its text without tags."""
    try:
        stated = json.loads(excerpt)
    except (ValueError, RecursionError):
        return clean_text(_TAG.sub(" ", excerpt))
    message = stated.get("error") if isinstance(stated, dict) else None
    return clean_text(message) if isinstance(message, str) else ""
