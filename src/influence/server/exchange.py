"""One request and its answer, as the log and the metrics see them."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Scope, Send

_access = logging.getLogger("influence.server.access")

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_MAX_PATH_SHOWN = 120
CLIENT_GONE = 499  # as it stands in the log; nobody was there to get it


class Exchange:
    """Gives the request its id, sends headers that every answer has, remembers the status."""

    def __init__(self, scope: Scope, send: Send) -> None:
        """Takes the client's own x-request-id if it is a plain word, so that its log and ours agree."""
        stated = Headers(scope=scope).get("x-request-id", "")
        self.id = stated if _SAFE_ID.fullmatch(stated) else f"req_{secrets.token_hex(12)}"
        self.status: int | None = None  # None until the answer begins
        self.headers: dict[str, str] = {"x-request-id": self.id}
        self.route: str | None = None  # the path as it was declared; None for one that is not known
        self._scope = scope
        self._send = send
        self._began_s = time.monotonic()
        scope.setdefault("state", {})["request_id"] = self.id

    async def send(self, message: Message) -> None:
        """The ASGI `send` for whoever answers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message).update(self.headers)
        await self._send(message)

    def add_headers(self, headers: Mapping[str, str]) -> None:
        self.headers.update(headers)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began_s

    def log(self) -> None:
        """One line: who, what, status, time. No query, no header, no text of the request."""
        if not _access.isEnabledFor(logging.INFO):
            return
        client = (self._scope.get("client") or ("-",))[0]
        path = quote(self._scope["path"][:_MAX_PATH_SHOWN], safe="/:@-._~")
        method = quote(self._scope["method"][:16])
        _access.info("%s %s %s %s %.3fs %s", client, method, path, self.status, self.seconds, self.id)
