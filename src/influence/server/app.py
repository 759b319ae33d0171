"""Requests to endpoints, and every error back in the shape of the protocol that was spoken.

request -> Host, key, origin -> route -> endpoint -> answer
                  any error -> status and words (errors.py) -> the protocol's body
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from influence.server import (
    anthropic_api,
    health,
    metrics_api,
    native_api,
    ollama_api,
    openai_api,
    openapi,
    page_api,
)
from influence.server.errors import ApiError, ClientGone, api_error, refused
from influence.server.exchange import CLIENT_GONE, Exchange
from influence.server.guard import Guard
from influence.server.service import Service
from influence.server.streaming import log_failure


class ProtocolModule(Protocol):
    """What a protocol is to the app."""

    BODIES: Mapping[str, type]  # what a POST to each path takes, as a msgspec Struct

    def routes(self, service: Service) -> list[Route]:
        """Its endpoints."""

    def error_body(self, error: ApiError, request_id: str) -> dict[str, Any]:
        """An error in its shape, as JSON."""


# The first one's errors are those of paths that nobody knows.
PROTOCOLS: tuple[ProtocolModule, ...] = (
    native_api,
    openai_api,
    ollama_api,
    anthropic_api,
    health,
    metrics_api,
    openapi,
    page_api,
)


class App:
    """The ASGI application of one service."""

    def __init__(self, service: Service, protocols: Sequence[ProtocolModule]) -> None:
        self.service = service
        self._guard = Guard(service.settings)
        self._default = protocols[0]
        self.bodies = {path: kind for module in protocols for path, kind in module.BODIES.items()}
        self._routes = [(route, module) for module in protocols for route in module.routes(service)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _follow_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._exchange(scope, receive, send)

    @property
    def routes(self) -> list[Route]:
        return [route for route, _ in self._routes]

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, send)
        scope["app"] = self
        try:
            exchange.add_headers(self._guard.cors_headers(scope))
            await self._answer(exchange, scope, receive)
        except ClientGone:
            exchange.status = CLIENT_GONE
            await _hang_up(scope)
        except Exception as error:  # the one place of the server where everything ends
            await self._fail(exchange, error, scope, receive)
        finally:
            exchange.log()
            self.service.metrics.request(exchange.route, scope["method"], exchange.status, exchange.seconds)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        allow = ", ".join(sorted(self._methods(scope)))
        preflight = self._guard.preflight_headers(scope, allow)
        if preflight is not None:
            await Response(status_code=204, headers=preflight)(scope, receive, exchange.send)
            return
        self._guard.check(scope)
        route = self._route(scope, allow)
        exchange.route = route.path
        await route.handle(scope, receive, exchange.send)

    def _route(self, scope: Scope, allow: str) -> Route:
        """The endpoint. Raises ApiError: 405 for another method than the path has, 404 for no path of ours."""
        for route, _ in self._routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return route
        if allow:
            method = "this path has other methods"
            raise ApiError(405, "invalid_request", f"{method}: {allow}", allow=allow)
        raise refused(404, "there is no such path: GET /openapi.json lists those that are")

    def _methods(self, scope: Scope) -> set[str]:
        """All methods of the path."""
        matching = (route for route, _ in self._routes if route.matches(scope)[0] is not Match.NONE)
        return {method for route in matching for method in route.methods or ()}

    async def _fail(self, exchange: Exchange, error: Exception, scope: Scope, receive: Receive) -> None:
        log_failure(error, exchange.id)
        if exchange.status is not None:  # half an answer is out: it must not look like a whole one
            await _hang_up(scope)
            return
        told = api_error(error)
        body = msgspec.json.encode(self._speaker(scope["path"]).error_body(told, exchange.id))
        response = Response(body, told.status, _headers(told), "application/json")
        await response(scope, receive, exchange.send)

    def _speaker(self, path: str) -> ProtocolModule:
        """Whose protocol a path is: the one that has it, else the one with the most of its beginning."""
        shared = [(_n_shared(route.path, path), module) for route, module in self._routes]
        best = max((n for n, _ in shared), default=0)
        return next((module for n, module in shared if n == best), self._default) if best else self._default


def create_app(service: Service, protocols: Sequence[ProtocolModule] = PROTOCOLS) -> App:
    """The ASGI application that answers with this service."""
    return App(service, protocols)


def _headers(error: ApiError) -> dict[str, str]:
    """What an error says beside its body."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.status == 500:
        headers["x-should-retry"] = "false"  # else clients repeat what will fail again
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.allow is not None:
        headers["allow"] = error.allow
    return headers


def _n_shared(declared: str, path: str) -> int:
    """How many leading segments two paths share; all of them count one more."""
    pairs = zip(_segments(declared), _segments(path), strict=False)
    n = 0
    for ours, theirs in pairs:
        if ours != theirs:
            break
        n += 1
    return n + (declared == path)


def _segments(path: str) -> Iterable[str]:
    return [segment for segment in path.split("/") if segment]


async def _hang_up(scope: Scope) -> None:
    """Close the connection without waiting for what its client has not read."""
    abort = scope["state"].get("abort")
    if abort is None:
        raise ConnectionAbortedError("the connection ends here, and this server can't be told so")
    abort()
    await asyncio.sleep(0)  # lets the loop tell the connection before this request ends


async def _follow_lifespan(receive: Receive, send: Send) -> None:
    """Nothing to start or stop here; life.py does."""
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
