"""A request's body, read within limits and checked against a struct."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from influence.server.errors import ApiError, ClientGone, invalid, refused
from influence.server.json_shape import require_shape

if TYPE_CHECKING:
    from influence.server.service import Service
    from influence.server.settings import Settings

Body = TypeVar("Body")

_MISSING = re.compile(r"required field `(.*)`$")
_FIELD = re.compile(r" - at (?:`key` in )?`\$\.?(.*)`$")


async def read_body(request: Request, kind: type[Body], service: Service) -> Body:
    """The body as a `kind`, a msgspec Struct.

    Raises ApiError: 415 for another content type or a compressed body, 413 for
    a large one (before it is held in memory), 408 for a slow one, 400 for what
    is not JSON or does not fit the struct; then `param` names the field.
    """
    _require_json(request)
    body = await _received(request, service.settings)
    require_shape(body, max_depth=service.settings.max_depth, max_values=service.settings.max_values)
    return decoded(body, kind)


def decoded(body: bytes | bytearray, kind: type[Body]) -> Body:
    """JSON as a `kind`. Raises ApiError (400) that names the field."""
    try:
        return msgspec.json.decode(body, type=kind, strict=True)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except UnicodeDecodeError:
        raise invalid("the body is not UTF-8", code="invalid_json") from None
    except (msgspec.DecodeError, RecursionError) as error:
        message = str(error).removeprefix("JSON is malformed: ")
        raise invalid(f"the body is not JSON: {message}", code="invalid_json") from None


def _misfit(message: str) -> ApiError:
    """msgspec's words for a value that does not fit, with the field's name apart."""
    place = _FIELD.search(message)
    what = message[: place.start()] if place else message
    missing = _MISSING.search(what)
    field = (place[1] if place else "").removesuffix("[...]")
    name = ".".join(part for part in (field, missing[1] if missing else "") if part) or None
    where = f"{name}: " if name else ""
    return invalid(f"{where}{what[:1].lower()}{what[1:]}", name, code="invalid_type")


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise refused(415, "the body must be JSON: send the header `content-type: application/json`")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise refused(415, "the body must not be compressed: leave out the header content-encoding")


async def _received(request: Request, settings: Settings) -> bytearray:
    """All of the body, unless it is too large or too slow."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for piece in request.stream():
                body += piece
                if len(body) > settings.max_body_bytes:
                    raise _too_large(settings.max_body_bytes)
    except TimeoutError:
        raise refused(408, f"the body took more than {settings.body_timeout_s:g} s to arrive") from None
    except ClientDisconnect:
        raise ClientGone from None
    return body


def _too_large(limit: int) -> ApiError:
    return refused(413, f"the body is larger than {limit >> 20} MiB")
