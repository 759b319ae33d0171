"""The chat page on a server whose model says what the test tells it.

The page's own files are the real ones; only what answers `/v1/...` is a script, so that a
test decides what streams, when it waits, and how it fails.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from influence.server import page_api


@dataclass
class Reply:
    """What the next request is answered with."""

    text: str = "Certainly."
    pieces: list[str] = field(default_factory=list)  # how the text is cut; default: by words
    finish_reason: str | None = "stop"  # None: the stream breaks off without an end
    goes_on: bool = True  # False: after the last piece nothing more comes, until the client leaves
    status: int = 200  # another: an error before the stream
    error: dict[str, Any] = field(default_factory=dict)

    @property
    def deltas(self) -> list[str]:
        if self.pieces:
            return self.pieces
        words = self.text.split(" ")
        return [word + " " for word in words[:-1]] + words[-1:]


class ScriptedChat:
    """Records what the page asks, and answers with the next reply of the script."""

    def __init__(self) -> None:
        self.script: deque[Reply] = deque()
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.left = threading.Event()  # a client left in the middle of a stream
        self.api_key = ""  # one that requests must carry
        self.model_name = "scripted"
        self.chat_template: str | None = "{{ messages }}"

    def app(self) -> ASGIApp:
        return Starlette(
            routes=[
                *page_api.routes(None),  # type: ignore[arg-type]
                Route("/v1/models", self._models),
                Route("/tokenizer_info", self._tokenizer_info),
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _models(self, request: Request) -> Response:
        model = {
            "id": self.model_name,
            "object": "model",
            "created": 1,
            "owned_by": "test",
            "max_model_len": 1000,
        }
        return self._refusal(request) or JSONResponse({"object": "list", "data": [model]})

    async def _tokenizer_info(self, request: Request) -> Response:
        return self._refusal(request) or JSONResponse({"chat_template": self.chat_template})

    async def _complete(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal:
            return refusal
        self.paths.append(request.url.path)
        self.requests.append(await request.json())
        reply = self.script.popleft() if self.script else Reply()
        if reply.status != 200:
            return JSONResponse({"error": reply.error}, reply.status)
        return StreamingResponse(self._events(reply, request), media_type="text/event-stream")

    def _refusal(self, request: Request) -> Response | None:
        if not self.api_key or request.headers.get("authorization") == f"Bearer {self.api_key}":
            return None
        return JSONResponse({"error": {"message": "an API key is needed"}}, 401)

    async def _events(self, reply: Reply, request: Request) -> AsyncIterator[bytes]:
        is_chat = request.url.path.endswith("chat/completions")
        for text in reply.deltas:
            yield _event({"choices": [{"delta": {"content": text}} if is_chat else {"text": text}]})
            await asyncio.sleep(0)
        if not reply.goes_on:
            await self._until_gone()
        if reply.error:
            yield _event({"error": reply.error})
        elif reply.finish_reason:
            yield _event({"choices": [{"delta": {}, "text": "", "finish_reason": reply.finish_reason}]})
            yield _event(
                {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(reply.deltas)}}
            )
            yield b"data: [DONE]\n\n"

    async def _until_gone(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.left.set()


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """The address of an app that listens on a free port of this machine, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = uvicorn.Config(
            app, http="h11", lifespan="off", log_level="critical", timeout_graceful_shutdown=0
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join(10)
