"""Clients of an OpenAI-compatible server, all in one process that costs it little.

    stdin   {"url": "http://127.0.0.1:8080", "model": "name", "new_tokens": 64,
             "clients": [[prompt, prompt], [prompt, prompt]]}      a prompt is a list of token ids
    stdout  [{"start_s": 0.0, "token_s": [0.9, 1.0], "end_s": 1.1, "n_tokens": 2, "error": null}, ...]

Each client sends its prompts one after another, all clients at once. Times are seconds since
the first request. Standard library only, and no HTTP library: a socket, the head of a reply,
its chunks.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_S = 3600.0


class RequestFailed(Exception):
    """The server refused, or its stream ended early."""


class Load:
    """One run: where the requests go, and what they ask."""

    def __init__(self, task: dict[str, Any]) -> None:
        address = urlsplit(task["url"])
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 80
        self._path = address.path.rstrip("/").removesuffix("/v1") + "/v1/completions"
        self._task = task
        self._begin_s = 0.0

    async def run(self) -> list[dict[str, Any]]:
        """A record of each request, client by client."""
        self._begin_s = time.perf_counter()
        records = await asyncio.gather(*(self._client(prompts) for prompts in self._task["clients"]))
        return [record for client in records for record in client]

    async def _client(self, prompts: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        return [await self._request(prompt) for prompt in prompts]

    async def _request(self, prompt: Sequence[int]) -> dict[str, Any]:
        record: dict[str, Any] = {"start_s": self._now(), "token_s": [], "n_tokens": 0, "error": None}
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._receive(self._body(prompt), record)
        except (OSError, ValueError, TimeoutError, RequestFailed, asyncio.IncompleteReadError) as error:
            record["error"] = f"{type(error).__name__}: {error}"
        record["end_s"] = self._now()
        return record

    async def _receive(self, body: bytes, record: dict[str, Any]) -> None:
        async for data in self._events(body):
            if data == b"[DONE]":
                break
            chunk = json.loads(data)
            if "error" in chunk:
                raise RequestFailed(json.dumps(chunk["error"])[:300])
            if any(choice.get("text") for choice in chunk.get("choices") or ()):
                record["token_s"].append(self._now())
            if chunk.get("usage"):
                record["n_tokens"] = chunk["usage"]["completion_tokens"]
        if record["n_tokens"] != self._task["new_tokens"]:
            raise RequestFailed(
                f"{record['n_tokens']} tokens came, {self._task['new_tokens']} were asked for"
            )

    async def _events(self, body: bytes) -> AsyncIterator[bytes]:
        """The data of each server-sent event."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(self._head(len(body)) + body)
            await writer.drain()
            held = b""
            async for piece in _body_pieces(reader):
                *lines, held = (held + piece).split(b"\n")
                for line in lines:
                    if line.startswith(b"data:"):
                        yield line[5:].strip()
        finally:
            writer.close()

    def _body(self, prompt: Sequence[int]) -> bytes:
        asked = {
            "model": self._task["model"],
            "prompt": prompt,
            "max_tokens": self._task["new_tokens"],
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return json.dumps(asked).encode()

    def _head(self, length: int) -> bytes:
        return (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        ).encode()

    def _now(self) -> float:
        return time.perf_counter() - self._begin_s


async def _body_pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """A reply's body as it comes. Raises RequestFailed for a status other than 200."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if head.split(b" ", 2)[1] != b"200":
        raise RequestFailed(
            (head.splitlines()[0] + b": " + await reader.read(300)).decode("utf-8", "replace")
        )
    if b"transfer-encoding: chunked" not in head:
        while piece := await reader.read(65536):
            yield piece
        return
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Load(json.load(sys.stdin)).run())))
