"""`/`: the chat page for a browser, and the words that an Ollama client looks for.

The page is a handful of static files, read once from the package. A request's path is
only ever a key of that table: nothing that a client sends reaches the disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from influence.dataclass import dataclass
from influence.server import native_api
from influence.server.errors import ApiError, refused
from influence.server.service import Service

BODIES: Mapping[str, type] = {}

GREETING = "Ollama is running"
ASSET_PREFIX = "/page/"
INDEX = "index.html"

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

# Text that a model wrote can't run, load or send anything, even if the page had a hole:
# scripts, styles and requests are the server's own, and no string ever becomes markup
# (trusted types forbid innerHTML and its kin altogether).
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Asset:
    """One file of the page, as it goes over the wire."""

    body: bytes
    media_type: str
    etag: str  # quoted, strong: a hash of the body


def routes(service: Service) -> list[Route]:
    """`/` and everything that the page loads; none of it needs a key or the model."""
    assets = load_assets()

    async def root(request: Request) -> Response:
        """The chat page for a browser; for others the words that say that a server is here."""
        if _wants_page(request.headers.get("accept", "")):
            response = _answer(request, assets[INDEX])
        else:
            response = PlainTextResponse(GREETING)
        response.headers["Vary"] = "Accept"
        return response

    async def asset(request: Request) -> Response:
        """A file of the chat page."""
        found = assets.get(request.path_params["name"])
        if found is None:
            raise refused(404, "the page has no such file")
        return _answer(request, found)

    return [
        Route("/", root, methods=["GET"]),
        Route(ASSET_PREFIX + "{name:path}", asset, methods=["GET"]),
    ]


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """As in the native protocol."""
    return native_api.error_body(error, request_id)


def load_assets() -> dict[str, Asset]:
    """The page's files by their path under `page/`, such as "markdown/inline.js"."""
    return dict(_walk(files("influence.server") / "page", ""))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Asset]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
            continue
        media_type = MEDIA_TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:
            body = entry.read_bytes()
            yield prefix + entry.name, Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _wants_page(accept: str) -> bool:
    """Whether a client named HTML itself: browsers do, `*/*` (curl, Ollama's clients) does not."""
    return any(part.partition(";")[0].strip().lower() == "text/html" for part in accept.split(","))


def _answer(request: Request, asset: Asset) -> Response:
    # no-cache: kept, but asked for anew, so that an upgraded server is never met by an old page.
    headers = {**SECURITY_HEADERS, "ETag": asset.etag, "Cache-Control": "no-cache"}
    if asset.etag in _etags(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


def _etags(header: str) -> set[str]:
    return {part.strip().removeprefix("W/") for part in header.split(",")}
