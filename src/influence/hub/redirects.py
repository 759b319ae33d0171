"""Where a redirect may lead: decided by spelling alone, before anything is sent.

source            target                        followed?
https             http, file, ...               no
any               userinfo in it                no
public            an address of this network    no (nor of this machine); a local endpoint may send to its like
/api/ or a file   same origin                   yes, with the token if it has been on the way so far
/api/ or a file   an allowed hub                yes, without the token, and said
/api/             anything else                 no: names and hashes come from the named host or an allowed hub
a file            another host's Hub paths      no: it is a hub that was not allowed
a file            storage                       yes, without the token: the hashes tell what came
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urldefrag, urljoin, urlsplit

from influence.errors import RedirectRefused
from influence.hub.endpoint import Endpoint, origin_of, reach_of
from influence.hub.token import shown_url

MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class RedirectPolicy:
    """The rules of one endpoint; `allowed_hubs` are origins of other hubs that it may send us to."""

    def __init__(self, endpoint: Endpoint, allowed_hubs: Collection[str]) -> None:
        self._endpoint = endpoint
        self._allowed = {origin_of(hub) for hub in allowed_hubs} - {""}

    def is_hub(self, url: str) -> bool:
        """Whether the URL is on the endpoint, or on a hub that it may send us to."""
        return origin_of(url) in self._allowed | {self._endpoint.url}

    def target(self, url: str, location: str) -> str:
        """The absolute URL that `location`, given in answer to `url`, leads to; RedirectRefused if we don't go."""
        target, _ = urldefrag(_joined(url, location))
        reason = self._problem(url, target)
        if reason:
            raise RedirectRefused(shown_url(url), _shown_target(target), reason)
        return target

    def _problem(self, url: str, target: str) -> str:
        parts = urlsplit(target)
        if not origin_of(target):
            return "which is not an address of the web"
        if parts.scheme == "http" and not (
            url.startswith("http:") and self._endpoint.url.startswith("http:")
        ):
            return "where the line is not encrypted"
        if parts.username is not None:
            return "an address with a user name in it"
        reach = reach_of(parts.hostname or "")
        if reach not in ("public", self._endpoint.reach):
            return "an address inside this machine or its network"
        return "" if self.is_hub(target) else self._stranger_problem(url, target)

    def _stranger_problem(self, url: str, target: str) -> str:
        if _is_api(url) and self.is_hub(url):
            return "another host, which was not named"
        if _is_hub_path(target):
            return "another hub, which was not named"
        return ""


def check_hops(visited: Collection[str], target: str) -> None:
    """RedirectRefused for a loop, or for more than MAX_REDIRECTS."""
    first = shown_url(next(iter(visited)))
    if target in visited:
        raise RedirectRefused(first, shown_url(target), "and from there to itself again")
    if len(visited) > MAX_REDIRECTS:
        raise RedirectRefused(first, shown_url(target), f"after {MAX_REDIRECTS} redirects before it")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _shown_target(target: str) -> str:
    return shown_url(target) or "nowhere"


def _is_api(url: str) -> bool:
    path = urlsplit(url).path
    return path.startswith("/api/") and not path.startswith("/api/resolve-cache/")


def _is_hub_path(url: str) -> bool:
    path = urlsplit(url).path
    return path.startswith("/api/") or "/resolve/" in path
