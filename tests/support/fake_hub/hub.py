"""The fake hub itself: which path answers what."""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from support.fake_hub.certificates import authority_file, server_context
from support.fake_hub.content import Content, content_of
from support.fake_hub.files import file_reply
from support.fake_hub.modes import Mode, Modes
from support.fake_hub.origin import Origin
from support.fake_hub.repos import Files, Repo, is_large
from support.fake_hub.wire import Reply, Request

PAGE = b"<!DOCTYPE html><html><head><title>Sign in to \x1b[31mCaf\xc3\xa9 WiFi</title></head><body>hello</body></html>"


class FakeHub:
    """A hub that starts with the object and ends with `close` or its `with` block."""

    def __init__(self, *, certificate: str = "good", tree_page: int = 1000) -> None:
        self.log: list[Request] = []
        self.tree_page = tree_page
        self.ca_file = authority_file()
        self._modes = Modes()
        self._lock = threading.Lock()
        self.reset()
        tls = server_context(certificate)
        names: Iterable[tuple[str, Any]] = (("hub", tls), ("cdn", tls), ("other", tls), ("plain", None))
        self.origins = {name: Origin(name, self._answer, self.log, context) for name, context in names}

    def reset(self) -> None:
        """Forget repositories, modes, tokens, fixed answers and the log."""
        self._modes.clear()
        self.log.clear()
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}
        self.tokens: dict[str, set[str]] = {}  # token -> gated models granted
        self._fixed: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self._signed: dict[
            str, tuple[str, Content, int | None]
        ] = {}  # signature -> path, content, bytes left

    def __enter__(self) -> FakeHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for origin in self.origins.values():
            origin.close()

    @property
    def url(self) -> str:
        return self.origins["hub"].url

    @property
    def cdn_url(self) -> str:
        return self.origins["cdn"].url

    @property
    def other_url(self) -> str:
        return self.origins["other"].url

    @property
    def plain_url(self) -> str:
        return self.origins["plain"].url

    @property
    def bytes_served(self) -> int:
        """Of files, over all requests."""
        return sum(request.bytes_served for request in list(self.log) if request.is_file)

    def add_repo(
        self, name: str, files: Files, *, gated: str | bool = False, private: bool = False, **facts: Any
    ) -> str:
        """A model with one commit on main, which is returned; `facts` are more of its JSON."""
        self.repos[name] = Repo(name, gated=gated, private=private, facts=facts)
        return self.repos[name].commit(files)

    def add_commit(self, name: str, files: Files, branch: str = "main") -> str:
        return self.repos[name].commit(files, branch)

    def add_token(self, token: str, *granted: str) -> None:
        self.tokens[token] = set(granted)

    def mode(self, name: str, *, path: str = "*", times: int | None = None, **options: Any) -> Mode:
        """Misbehave from now on; see modes.py."""
        return self._modes.add(Mode(name, path, times, options))

    def clear_modes(self) -> None:
        self._modes.clear()

    def serve(
        self, path: str, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer this path, query aside, with exactly this."""
        self._fixed[path] = (status, body, dict(headers or {"Content-Type": "application/json"}))

    def _answer(self, request: Request) -> Reply:
        path = unquote(urlsplit(request.path).path)
        fixed = self._fixed.get(path)
        if fixed:
            return Reply(fixed[0], list(fixed[2].items()), content_of(fixed[1]))
        if mode := self._modes.take("answer", path):
            return _answer_of(mode)
        if self._modes.take("refuse", path):
            return Reply(403, [("Content-Type", "text/plain")], content_of(b"invalid request"))
        if request.origin == "cdn":
            return self._storage(request, path)
        return self._api(request) if path.startswith("/api/") else self._resolve(request)

    # The API ---------------------------------------------------------------------------------

    def _api(self, request: Request) -> Reply:
        parts = urlsplit(request.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        broken = self._broken_api(path)
        if broken:
            return broken
        if path == "/api/models":
            return self._search(request, query)
        match parts.path.split("/")[2:]:
            case ["resolve-cache", "models", org, name, sha, *rest]:
                return self._cached(request, f"{org}/{name}", sha, unquote("/".join(rest)), query)
            case ["models", org, name]:
                return self._about(request, f"{org}/{name}", "main", self._info(query))
            case ["models", org, name, "revision", *revision]:
                return self._about(request, f"{org}/{name}", unquote("/".join(revision)), self._info(query))
            case ["models", org, name, "tree", revision] if not self._modes.take("notree", path):
                return self._about(request, f"{org}/{name}", unquote(revision), self._tree(request, query))
        return Reply(404, [("Content-Type", "text/plain")], content_of(b"Not Found"))

    def _broken_api(self, path: str) -> Reply | None:
        as_json = [("Content-Type", "application/json")]
        if self._modes.take("page", path):
            return Reply(200, [("Content-Type", "text/html; charset=utf-8")], content_of(PAGE))
        if self._modes.take("badjson", path):
            return Reply(200, as_json, content_of(b'[{"id": "org/na'))
        if self._modes.take("bomb", path):
            return Reply(200, [*as_json, ("Content-Encoding", "gzip")], content_of(_bomb()))
        return None

    def _about(self, request: Request, name: str, revision: str, make: Callable[[Repo, str], Reply]) -> Reply:
        if name in self.renamed:
            target = request.path.replace(name, self.renamed[name], 1)
            return Reply(307, [("Location", target)], content_of(b"Temporary Redirect"))
        refusal = self._refusal(request, name, gate=False)
        if refusal:
            return refusal
        sha = self.repos[name].find(revision)
        return make(self.repos[name], sha) if sha else _error(404, "RevisionNotFound", "Invalid rev id")

    def _info(self, query: Mapping[str, list[str]]) -> Callable[[Repo, str], Reply]:
        blobs = query.get("blobs", ["false"])[0].lower() == "true"
        return lambda repo, sha: _json(repo.info(sha, blobs=blobs))

    def _tree(self, request: Request, query: Mapping[str, list[str]]) -> Callable[[Repo, str], Reply]:
        return lambda repo, sha: self._page(request, repo.tree(sha), query, self.tree_page)

    def _search(self, request: Request, query: Mapping[str, list[str]]) -> Reply:
        words = query.get("search", [""])[0].lower()
        author = query.get("author", [""])[0]
        found = [
            repo.info(repo.branches["main"], blobs=False)
            for repo in self.repos.values()
            if words in repo.id.lower() and author in ("", repo.id.split("/")[0])
        ]
        return self._page(request, found, query, int(query.get("limit", ["1000"])[0]))

    def _page(self, request: Request, entries: list[Any], query: Mapping[str, list[str]], size: int) -> Reply:
        begin = int(query.get("cursor", ["0"])[0])
        reply = _json(entries[begin : begin + size])
        path = urlsplit(request.path).path
        if begin + size < len(entries):
            pairs = [(k, v) for k, values in query.items() for v in values if k != "cursor"]
            link = f"{self.origins[request.origin].url}{path}?{urlencode([*pairs, ('cursor', begin + size)])}"
            mode = self._modes.take("link", path)
            reply.headers.append(("Link", f'<{mode.options["to"] if mode else link}>; rel="next"'))
        return reply

    # Files -----------------------------------------------------------------------------------

    def _resolve(self, request: Request) -> Reply:
        match urlsplit(request.path).path.split("/")[1:]:
            case [org, name, "resolve", revision, *rest]:
                path = unquote("/".join(rest))
                if not request.path.endswith("?last") and (mode := self._modes.take("hops", path)):
                    return self._hop(request, mode)
                refusal = self._refusal(request, f"{org}/{name}", gate=True)
                return refusal or self._resolved(
                    request, self.repos[f"{org}/{name}"], unquote(revision), path
                )
        return Reply(404, [("Content-Type", "text/html")], content_of(PAGE))

    def _hop(self, request: Request, mode: Mode) -> Reply:
        hop = int(parse_qs(urlsplit(request.path).query).get("hop", ["0"])[0]) + 1
        path = urlsplit(request.path).path
        return Reply(302, [("Location", f"{path}?hop={hop}" if hop <= mode.options["n"] else f"{path}?last")])

    def _resolved(self, request: Request, repo: Repo, revision: str, path: str) -> Reply:
        sha = repo.find(revision)
        if not sha:
            return _error(404, "RevisionNotFound", "Invalid rev id")
        content = repo.commits[sha].get(path)
        if content is None:
            return _error(404, "EntryNotFound", "Entry not found")
        if mode := self._modes.take("movehead", path):
            repo.commit(mode.options["files"])
        location = self._strange_location(request, path) or self._location(repo, sha, path, content)
        status = 308 if self.other_url in location and self.cdn_url not in location else 302
        return Reply(307 if location.startswith("/") else status, _linked(sha, path, content, location))

    def _strange_location(self, request: Request, path: str) -> str:
        if self._modes.take("http", path):
            return self.plain_url + request.path
        if self._modes.take("loop", path):
            return self.origins[request.origin].url + request.path
        if request.origin == "hub" and (mode := self._modes.take("abs308", path)):
            return mode.options.get("to", self.other_url) + request.path
        if mode := self._modes.take("redirect", path):
            return str(mode.options["to"])
        return ""

    def _location(self, repo: Repo, sha: str, path: str, content: Content) -> str:
        """Storage for large files; for small ones a relative address that does not work without its query."""
        if not is_large(path, content):
            tag = quote(f'"{content.git_sha1}"', safe="")
            own = quote(f"/{repo.id}/resolve/{sha}/{path}", safe="")
            return f"/api/resolve-cache/models/{repo.id}/{sha}/{quote(path)}?{own}=&etag={tag}"
        mode = self._modes.take("expire", path)
        with self._lock:
            signature = hashlib.sha256(f"{sha}{path}{len(self._signed)}".encode()).hexdigest()[:32]
            self._signed[signature] = (path, content, mode.options["after"] if mode else None)
        return f"{self.cdn_url}/xet-bridge/{content.sha256}?Expires=1999999999&Signature={signature}"

    def _cached(
        self, request: Request, name: str, sha: str, path: str, query: Mapping[str, list[str]]
    ) -> Reply:
        refusal = self._refusal(request, name, gate=True)
        if refusal:
            return refusal
        content = self.repos[name].commits.get(sha, {}).get(path)
        if content is None or query.get("etag") != [f'"{content.git_sha1}"']:
            return Reply(400, [], content_of(b"no etag: the query was lost on the way"))
        headers = [("X-Repo-Commit", sha)]
        return file_reply(request, path, content, content.git_sha1, self._modes, headers)

    def _storage(self, request: Request, url_path: str) -> Reply:
        if request.headers.get("authorization") or request.headers.get("cookie"):
            return Reply(400, [], content_of(b"a token has no place here"))
        signature = parse_qs(urlsplit(request.path).query).get("Signature", [""])[0]
        path, content, left = self._signed.get(signature, ("", None, None))
        if content is None or (left is not None and left <= 0):
            return Reply(
                403, [("Content-Type", "application/xml")], content_of(b"<Error>Request has expired</Error>")
            )
        tag = hashlib.md5(content.sha256.encode()).hexdigest()
        reply = file_reply(request, path, content, tag, self._modes, [])
        if left is not None:
            with self._lock:
                self._signed[signature] = (path, content, left - (reply.stop - reply.begin))
        return reply

    # Rights ----------------------------------------------------------------------------------

    def _refusal(self, request: Request, name: str, *, gate: bool) -> Reply | None:
        """As the real one: a model that may not be seen is missing, and 401 to who has no token."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        known = token in self.tokens
        repo = self.repos.get(name)
        if gate and repo and repo.gated:
            if not known:
                return _error(401, "GatedRepo", f"Access to model {name} is restricted. Please log in.")
            if name not in self.tokens[token]:
                return _error(
                    403, "GatedRepo", f"Access to model {name} is restricted and you are not in the list."
                )
        if token and not known and not (gate and repo and repo.gated):
            return _error(401, "", "Invalid credentials in Authorization header")
        if repo is None or (repo.private and not known):
            return _error(404 if token else 401, "RepoNotFound", "Repository not found")
        return None


def _answer_of(mode: Mode) -> Reply:
    body = mode.options.get("body", b"")
    return Reply(
        mode.options.get("status", 200), list(dict(mode.options.get("headers", {})).items()), content_of(body)
    )


def _linked(sha: str, path: str, content: Content, location: str) -> list[tuple[str, str]]:
    headers = [("X-Repo-Commit", sha), ("Accept-Ranges", "bytes"), ("Location", location)]
    if is_large(path, content):
        headers += [
            ("X-Linked-Size", str(content.size_bytes)),
            ("X-Linked-ETag", f'"{content.sha256}"'),
            ("ETag", f'"{content.sha256}"'),
        ]
    return headers


def _json(value: Any) -> Reply:
    headers = [("Content-Type", "application/json; charset=utf-8")]
    return Reply(200, headers, content_of(json.dumps(value).encode()))


def _error(status: int, code: str, message: str) -> Reply:
    headers = [
        ("X-Error-Message", message),
        ("X-Request-Id", "Root=1-fake"),
        ("Content-Type", "application/json"),
    ]
    if code:
        headers.append(("X-Error-Code", code))
    return Reply(status, headers, content_of(json.dumps({"error": message}).encode()))


def _bomb() -> bytes:
    """A gigabyte of spaces, a megabyte on the wire: one stream, of which every piece begins afresh."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    head = packer.compress(b"[") + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(b" " * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + piece * 1024
