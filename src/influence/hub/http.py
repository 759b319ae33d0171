"""Requests to the Hub by our rules: whom to ask, how often, with the token or without.

Http.request_json / read / open_range
  │  _retried       again after a broken line, a 5xx, a 429: at most `tries` times, waiting in between
  └─ _followed      redirects by hand (redirects.py), facts of the file collected on the way
     └─ _send       one request: plain encoding, no Referer, no cookies, the token to its origin alone
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from influence import __version__
from influence.dataclass import dataclass
from influence.errors import HubError, HubUnreachable, InvalidAnswer, LineBroken, RangeRefused
from influence.hub.answers import Answer, FileFacts, RangeAnswer
from influence.hub.cleaning import clean_text
from influence.hub.clock import Clock, OnWait, SystemClock, wait
from influence.hub.endpoint import OFFICIAL, Endpoint, origin_of
from influence.hub.line import own_errors
from influence.hub.names import is_commit
from influence.hub.network import open_transport
from influence.hub.pacing import asked_wait, backoff
from influence.hub.redirects import REDIRECTS, RedirectPolicy, check_hops
from influence.hub.refusals import NO_SUBJECT, Refusal, Subject, error_of, looks_like_page, web_page_error
from influence.hub.token import Token, shown_url

if TYPE_CHECKING:
    import httpx2

MAX_JSON_BYTES = 64 << 20

# Bytes of a file that are read past to reach a range, where the host ignores ranges.
_MAX_SKIPPED_BYTES = 64 << 20

CONNECT_S = 8.0  # a host that does not answer is said within 10 s
SILENCE_S = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class Json:
    """A decoded JSON body, and where it came from."""

    value: Any
    url: str
    headers: Mapping[str, str]


def _ignore(*_: object) -> None:
    pass


class Http:
    """Requests to one endpoint, and to where it sends us; usable from several threads.

    A connection may take `connect_s` to open and be silent for `silence_s`.
    `on_wait(seconds, reason)` is called before each second of a wait,
    `on_notice(text)` once for each thing that the user should know. `transport`
    (of httpx2) and `clock` are given by tests.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        token: Token | None = None,
        allowed_hubs: Collection[str] = (OFFICIAL,),
        tries: int = 5,
        n_connections: int = 32,
        connect_s: float = CONNECT_S,
        silence_s: float = SILENCE_S,
        on_wait: OnWait = _ignore,
        on_notice: Callable[[str], None] = _ignore,
        clock: Clock | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.clock: Clock = clock or SystemClock()
        self._token = token
        self._policy = RedirectPolicy(endpoint, allowed_hubs)
        self._tries = tries
        self._on_wait = on_wait
        self._on_notice = on_notice
        self._noticed: set[str] = set()
        self._noticing = threading.Lock()
        self._client = _client(transport or open_transport(n_connections), connect_s, silence_s)

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def __enter__(self) -> Http:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def notice(self, text: str) -> None:
        """Tell the user, once."""
        with self._noticing:
            if text in self._noticed:
                return
            self._noticed.add(text)
        self._on_notice(text)

    def pause(self, failure: HubError, n_failed: int) -> None:
        """Wait before the next try after `n_failed` failed ones, as long as the host asks or by our own guess."""
        asked = failure.wait_s if isinstance(failure, LineBroken) else None
        seconds = backoff(n_failed, self.clock) if asked is None else asked
        reason = failure.message if asked is None else f"{failure.message}; the host asks us to wait"
        wait(self.clock, seconds, reason, self._on_wait)

    def request_json(self, path_or_url: str, *, about: Subject = NO_SUBJECT) -> Json:
        """The JSON at a path of the endpoint, or at a URL.

        Raises InvalidAnswer for anything that is not JSON, or more than 64 MiB
        of it decoded; MirrorRefused for a web page; and what `error_of` gives.
        """

        def attempt() -> Json:
            with contextlib.closing(self._followed(path_or_url, {}, about)) as answer:
                body = answer.read(MAX_JSON_BYTES)
                return Json(_parsed(answer, body), answer.url, answer.headers)

        return self._retried(attempt)

    def read(self, path_or_url: str, max_bytes: int, *, about: Subject = NO_SUBJECT) -> bytes:
        """A whole small file; InvalidAnswer if it is larger than `max_bytes`, MirrorRefused for a web page."""

        def attempt() -> bytes:
            with contextlib.closing(self._followed(path_or_url, {}, about)) as answer:
                answer.refuse_page()
                return answer.read(max_bytes)

        return self._retried(attempt)

    def read_range(self, path_or_url: str, begin: int, end: int, *, about: Subject = NO_SUBJECT) -> bytes:
        """Exactly the bytes `begin` to `end` (not included) of a file; RangeRefused if it has fewer."""

        def attempt() -> bytes:
            with contextlib.closing(self._ranged(path_or_url, begin, end, {}, about)) as answer:
                body = _slice(RangeAnswer(answer, begin, end), begin, end)
            if len(body) < end - begin:
                raise RangeRefused(shown_url(answer.url), f"the file ends before its byte {end}")
            return body

        return self._retried(attempt)

    @contextlib.contextmanager
    def open_range(
        self,
        path_or_url: str,
        begin: int,
        end: int | None,
        *,
        headers: Mapping[str, str] | None = None,
        about: Subject = NO_SUBJECT,
        tries: int | None = None,
    ) -> Iterator[RangeAnswer]:
        """Bytes `begin` to `end` (not included) of a file, as they come; (0, None) asks for all without a range.

        `headers` may hold If-Range. Opening is tried again as everywhere, at
        most `tries` times; a body that breaks is for the caller to ask for again
        from where it broke (`pause` waits for it). A `final_url` may be asked
        in place of the file's own; LinkExpired tells that it is no longer good.
        """
        answer = self._retried(lambda: self._ranged(path_or_url, begin, end, headers or {}, about), tries)
        with contextlib.closing(answer):
            yield RangeAnswer(answer, begin, end)

    def _ranged(
        self, path_or_url: str, begin: int, end: int | None, headers: Mapping[str, str], about: Subject
    ) -> Answer:
        last = "" if end is None else end - 1
        wanted = {"Range": f"bytes={begin}-{last}"} if begin or end is not None else {}
        return self._followed(path_or_url, {**headers, **wanted}, about)

    def _retried(self, attempt: Callable[[], T], tries: int | None = None) -> T:
        for n_failed in range(1, tries or self._tries):
            try:
                return attempt()
            except LineBroken as failure:
                self.pause(failure, n_failed)
            except HubUnreachable as failure:
                if failure.lasting:
                    raise
                self.pause(failure, n_failed)
        return attempt()

    def _followed(self, path_or_url: str, headers: Mapping[str, str], about: Subject) -> Answer:
        """The answer after all redirects, of status below 300 or 416; the caller closes it."""
        url = self._policy.target(f"{self.endpoint.url}/", path_or_url)
        visited: dict[str, None] = {}
        facts, trusted = FileFacts(), True
        while True:
            visited[url] = None
            trusted = trusted and origin_of(url) == self.endpoint.url
            response = self._send(url, headers, with_token=trusted)
            if self._policy.is_hub(url):
                facts = facts.after(response.headers, response.status_code)
                self._notice_warning(response.headers.get("x-hf-warning", ""))
            answer = Answer(response, url, facts, self.clock, self._token)
            location = response.headers.get("location", "")
            if response.status_code not in REDIRECTS or not location:
                return self._accepted(answer, about, trusted)
            answer.close()
            target = self._policy.target(url, location)
            check_hops(visited, target)
            self._notice_other_hub(url, target)
            url = target

    def _accepted(self, answer: Answer, about: Subject, token_was_due: bool) -> Answer:
        """The answer, if it is one; else its error, and the connection is closed."""
        if answer.status < 300 or answer.status == 416:
            return _of_commit(answer, about.revision)
        with contextlib.closing(answer):
            refusal = Refusal(
                url=answer.url,
                status=answer.status,
                headers=answer.headers,
                excerpt=answer.beginning(),
                about=about,
                on_hub=self._policy.is_hub(answer.url),
                token_sent=token_was_due and self.has_token,
                token=self._token,
                asked_wait_s=asked_wait(answer.headers, self.clock),
            )
        raise error_of(refusal)

    def _send(self, url: str, headers: Mapping[str, str], *, with_token: bool) -> httpx2.Response:
        own = {"Authorization": self._token.header} if with_token and self._token else {}
        with own_errors(url, self._token):
            request = self._client.build_request("GET", url, headers={**headers, **own})
            return self._client.send(request, stream=True)

    def _notice_warning(self, warning: str) -> None:
        """The Hub's own messages to its users: "topic; text"."""
        if warning:
            self.notice(f"{self.endpoint.host} says: {clean_text(warning)}")

    def _notice_other_hub(self, url: str, target: str) -> None:
        if self._policy.is_hub(target) and origin_of(target) != origin_of(url):
            self.notice(
                f"{urlsplit(url).netloc} sends us on to {urlsplit(target).netloc}; "
                f"we follow{' without the token' if self.has_token else ''}"
            )


def _of_commit(answer: Answer, revision: str) -> Answer:
    """The answer, unless its host says that it is of another commit than the one asked for."""
    if is_commit(revision) and answer.facts.commit not in ("", revision):
        answer.close()
        problem = f"is of commit {answer.facts.commit}, though {revision} was asked for"
        raise InvalidAnswer(shown_url(answer.url), problem)
    return answer


def _slice(answer: RangeAnswer, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end` of the file, or fewer; what comes before them is thrown away."""
    if begin - answer.begin > _MAX_SKIPPED_BYTES:
        raise RangeRefused(
            shown_url(answer.final_url), "the host ignores ranges, and the bytes are far inside"
        )
    position, body = answer.begin, bytearray()
    for chunk in answer.chunks():
        body += chunk[max(begin - position, 0) : end - position]
        position += len(chunk)
        if position >= end:
            break
    return bytes(body)


def next_page(page: Json) -> str:
    """The path of the page after this one, "" if it is the last.

    Taken from `Link: <URL>; rel="next"` and always asked of the host that gave
    the page: a mirror that passes on the Hub's own link would send us to
    another host. InvalidAnswer if the link is no page of the same list.
    """
    for link in page.headers.get("link", "").split(","):
        address, _, parameters = link.strip().partition(";")
        if 'rel="next"' in parameters.replace(" ", "") and address.startswith("<"):
            return _same_list(page.url, address.strip("<> "))
    return ""


def _same_list(url: str, link: str) -> str:
    here = urlsplit(url)
    try:
        there = urlsplit(urljoin(url, link))
    except ValueError:
        there = urlsplit("")
    if there.path != here.path:
        raise InvalidAnswer(shown_url(url), f"its next page is elsewhere: {clean_text(link)!r}")
    return here._replace(query=there.query).geturl()


def _client(transport: httpx2.BaseTransport, connect_s: float, silence_s: float) -> httpx2.Client:
    import httpx2

    return httpx2.Client(
        transport=transport,
        trust_env=False,
        follow_redirects=False,
        headers={"User-Agent": f"influence/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx2.Timeout(connect=connect_s, read=silence_s, write=silence_s, pool=None),
    )


def _parsed(answer: Answer, body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    if looks_like_page(answer.headers.get("content-type", ""), text[:100]):
        raise web_page_error(answer.url, text[:4096])
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidAnswer(shown_url(answer.url), f"is not JSON: {clean_text(str(error), 100)}") from None
