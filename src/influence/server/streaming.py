"""How the events of a run become a response, and how a client that leaves ends it.

run --frames()--> outbox --one send for all that waits--> client
                                              receive() -> left: cancel
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from influence.generation.events import Completion
from influence.server.errors import ApiError, ClientGone, api_error
from influence.server.runs import Run

if TYPE_CHECKING:
    from influence.server.settings import Settings

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"

_PING = b": ping\n\n"
_log = logging.getLogger("influence.server")

Frames = Callable[[Run], AsyncIterator[bytes]]


def sse(data: bytes, event: str | None = None) -> bytes:
    """One server-sent event. `data` is JSON: one line, so that no line break in it ends the event."""
    name = b"" if event is None else b"event: " + event.encode() + b"\n"
    return name + b"data: " + data + b"\n\n"


async def collected(request: Request, run: Run) -> list[Completion]:
    """All choices of a run, once it has ended. Raises ClientGone, the run cancelled, if nobody waits."""
    async with run:
        work = asyncio.create_task(run.collect())
        gone = asyncio.create_task(_client_left(request.receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise ClientGone
        finally:
            await _ended(work, gone)


def streamed(
    request: Request, run: Run, frames: Frames, media_type: str, error_frame: Callable[[ApiError], bytes]
) -> Response:
    """A response that sends what `frames` makes of the run.

    An error after the status was sent becomes one `error_frame`, the last of
    the stream. A client that leaves, or reads nothing for `send_timeout_s`,
    cancels the run.
    """
    return _EventResponse(run, frames, media_type, error_frame, request.scope["app"].service.settings)


class _EventResponse(Response):
    """The response of one run; sent by `send`, filled by `frames`, watched by `receive`."""

    def __init__(
        self,
        run: Run,
        frames: Frames,
        media_type: str,
        error_frame: Callable[[ApiError], bytes],
        settings: Settings,
    ) -> None:
        super().__init__(
            media_type=media_type, headers={"cache-control": "no-cache", "x-accel-buffering": "no"}
        )
        del self.headers["content-length"]
        self._run = run
        self._frames = frames
        self._error_frame = error_frame
        self._settings = settings
        self._idle_frame = _PING if media_type == SSE else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outbox = _Outbox(self._settings.max_unsent_bytes)
        async with self._run:
            filler = asyncio.create_task(self._fill(outbox, scope))
            sender = asyncio.create_task(self._send(outbox, send))
            gone = asyncio.create_task(_client_left(receive))
            try:
                await asyncio.wait((sender, gone), return_when=asyncio.FIRST_COMPLETED)
                if not sender.done():
                    raise ClientGone
                sender.result()
            finally:
                await _ended(filler, sender, gone)

    async def _fill(self, outbox: _Outbox, scope: Scope) -> None:
        try:
            async for frame in self._frames(self._run):
                await outbox.put(frame)
        except Exception as error:
            log_failure(error, scope["state"]["request_id"])
            await outbox.put(self._error_frame(api_error(error)))
        finally:
            outbox.close()

    async def _send(self, outbox: _Outbox, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while (content := await self._next(outbox)) is not None:
            try:
                async with asyncio.timeout(self._settings.send_timeout_s):
                    await send({"type": "http.response.body", "body": content, "more_body": True})
            except TimeoutError:
                raise ClientGone from None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self, outbox: _Outbox) -> bytes | None:
        """What waits to be sent, or a sign of life after a long silence; None at the end."""
        if not self._idle_frame:
            return await outbox.take()
        try:
            async with asyncio.timeout(self._settings.ping_interval_s):
                return await outbox.take()
        except TimeoutError:
            return self._idle_frame


class _Outbox:
    """Frames between the run and the client's socket, at most `limit` bytes and a frame."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: list[bytes] = []
        self._n_bytes = 0
        self._closed = False
        self._changed = asyncio.Event()
        self._emptied = asyncio.Event()

    async def put(self, frame: bytes) -> None:
        """Add a frame; waits only while the client is far behind."""
        while self._n_bytes > self._limit:
            self._emptied.clear()
            await self._emptied.wait()
        self._frames.append(frame)
        self._n_bytes += len(frame)
        self._changed.set()

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def take(self) -> bytes | None:
        """All that waits as one, None after the last."""
        while not self._frames:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        content = b"".join(self._frames)
        self._frames.clear()
        self._n_bytes = 0
        self._emptied.set()
        return content


def log_failure(error: BaseException, request_id: str) -> None:
    """Tell the operator of a fault of ours, with what the client is not told."""
    if api_error(error).status == 500:
        _log.error("%s failed: %s", request_id, error, exc_info=error)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(*tasks: asyncio.Task[None] | asyncio.Task[list[Completion]]) -> None:
    """Cancel what still runs of the tasks and wait for it; their results no longer matter."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
