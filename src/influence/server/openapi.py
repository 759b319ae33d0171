"""GET /openapi.json: every endpoint and body, written from what the server itself checks bodies with."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from influence import __version__
from influence.server import native_api
from influence.server.errors import ApiError
from influence.server.service import Service

BODIES: Mapping[str, type] = {}

_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_REF = "#/components/schemas/{name}"
_ERROR = {"description": "An error, in the shape of the path's protocol."}


def routes(service: Service) -> list[Route]:
    """The one endpoint."""

    async def openapi(request: Request) -> Response:
        """This description."""
        app = request.scope["app"]
        return Response(_encoded(app), media_type="application/json")

    return [Route("/openapi.json", openapi, methods=["GET"])]


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """As in the native protocol."""
    return native_api.error_body(error, request_id)


@cache
def _encoded(app: Any) -> bytes:
    return msgspec.json.encode(describe(app.routes, app.bodies, has_keys=bool(app.service.settings.api_keys)))


def describe(routes: Sequence[Route], bodies: Mapping[str, type], *, has_keys: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document. `bodies`: what a POST to each path takes."""
    kinds = list(dict.fromkeys(bodies.values()))
    references, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    of_kind = dict(zip(kinds, references, strict=True))
    of_path = {path: of_kind[kind] for path, kind in bodies.items()}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
        for method in sorted(set(route.methods or ()) - {"HEAD"}):
            path[method.lower()] = _operation(route, method, of_path.get(route.path))
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "influence", "version": __version__},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": schemas},
    }
    if has_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def _operation(route: Route, method: str, body: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": (inspect.getdoc(route.endpoint) or route.name).partition("\n")[0],
        "responses": {"200": {"description": "The answer."}, "default": _ERROR},
    }
    parameters = _PARAMETER.findall(route.path)
    if parameters:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in parameters
        ]
    if method == "POST":
        schema = {"type": "object"} if body is None else body
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation
