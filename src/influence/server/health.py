"""Whether the process lives, and whether the model answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from influence.server import native_api
from influence.server.errors import ApiError
from influence.server.service import Service

BODIES: Mapping[str, type] = {}


def routes(service: Service) -> list[Route]:
    """/health and /health/ready: 200 while requests are taken; /health/live: while the process runs."""

    async def ready(request: Request) -> Response:
        """Whether requests are taken: 200, else 503."""
        status = service.health()
        return JSONResponse({"status": status, "model": service.facts.name}, 200 if status == "ok" else 503)

    async def live(request: Request) -> Response:
        """Whether the process runs."""
        return JSONResponse({"status": "ok"})

    endpoints = (("/health", ready), ("/health/ready", ready), ("/health/live", live))
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in endpoints]


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """As in the native protocol."""
    return native_api.error_body(error, request_id)
