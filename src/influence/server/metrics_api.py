"""GET /metrics: the server's numbers in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from influence.server import native_api
from influence.server.errors import ApiError
from influence.server.service import Service

BODIES: Mapping[str, type] = {}

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def routes(service: Service) -> list[Route]:
    """The one endpoint."""

    async def metrics(request: Request) -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), headers={"content-type": _CONTENT_TYPE})

    return [Route("/metrics", metrics, methods=["GET"])]


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """As in the native protocol."""
    return native_api.error_body(error, request_id)
