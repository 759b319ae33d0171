"""Who may ask: the Host that a request names, the web page it comes from, the key it carries.

A page of any site can send requests to a server on this machine. Three things
stop it: its own name for us (DNS rebinding) is not on the list of hosts, its
origin gets no CORS headers unless it was named, and bodies must be of a type
that a browser asks permission for (requests.py).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from influence.server.errors import ApiError, refused
from influence.server.settings import Settings

# Probes carry no key, and a browser can't send one with an address typed into it;
# what lies there is the same for everybody and tells nothing of model or user.
PUBLIC_PATHS = ("/health", "/health/live", "/health/ready", "/")
PUBLIC_FOLDER = "/page/"

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_CORS_MAX_AGE_S = 600


class Guard:
    """Decides on the path as it is routed, so that no spelling of it slips by."""

    def __init__(self, settings: Settings) -> None:
        self._key_digests = [_digest(key) for key in settings.api_keys]
        self._hosts = _LOCAL_NAMES | {settings.host.lower(), *map(str.lower, settings.allowed_hosts)}
        self._checks_host = settings.is_loopback or bool(settings.allowed_hosts)
        self._origins = frozenset(settings.cors_origins)

    def check(self, scope: Scope) -> None:
        """Raises ApiError: 400 for a target that is no path, 403 for a foreign Host, 401 without a key."""
        headers = Headers(scope=scope)
        if not scope["path"].startswith("/") and scope["path"] != "*":
            raise ApiError(400, "invalid_request", "the request target must be a path")
        self._check_host(headers.get("host"))
        if self._key_digests and not is_public(scope["path"]):
            self._check_key(headers)

    def cors_headers(self, scope: Scope) -> dict[str, str]:
        """What lets the page that asks read the answer; nothing for a page that was not named."""
        origin = Headers(scope=scope).get("origin")
        if origin is None or not ({origin, "*"} & self._origins):
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": "x-request-id, retry-after",
            "vary": "origin",
        }

    def preflight_headers(self, scope: Scope, allow: str) -> dict[str, str] | None:
        """The answer to a browser that asks whether it may send a request; None if it asks nothing.

        Raises ApiError (403) for a page that was not named.
        """
        headers = Headers(scope=scope)
        if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
            return None
        granted = self.cors_headers(scope)
        if not granted:
            raise refused(403, "this origin may not use the server: start it with --cors ORIGIN")
        return {
            **granted,
            "access-control-allow-methods": allow,
            "access-control-allow-headers": headers.get("access-control-request-headers", "content-type"),
            "access-control-max-age": str(_CORS_MAX_AGE_S),
        }

    def _check_host(self, host: str | None) -> None:
        # Without a Host (HTTP/1.0) it is no browser, which is whom the check is for.
        if self._checks_host and host is not None and _host_name(host) not in self._hosts:
            raise refused(403, "the Host header names another server: start this one with --allow-host NAME")

    def _check_key(self, headers: Headers) -> None:
        given = _digest(given_key(headers))
        # Every key is compared, and digests of one length: time tells nothing.
        matches = [hmac.compare_digest(given, digest) for digest in self._key_digests]
        if not any(matches):
            raise refused(401, "an API key is needed: send it as `authorization: Bearer KEY`")


def is_public(path: str) -> bool:
    """Whether a path answers without a key."""
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER)


def given_key(headers: Mapping[str, str]) -> str:
    """The key that a request carries, "" if none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return headers.get("x-api-key", "")


def cache_salt(request: Request) -> str:
    """What keeps the computed prefixes of one key from those of another; "" where there are no keys."""
    settings: Settings = request.scope["app"].service.settings
    if not settings.api_keys or not settings.isolate_keys:
        return ""
    return _digest(given_key(request.headers)).hex()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host_name(host: str) -> str:
    """The name without the port; a name that can't be told apart from its port is no name of ours."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
