"""How events become a response: together where they wait together, and a sign of life where none come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from influence.errors import EngineError
from influence.generation.events import Finished, Statistics, Stream, TextDelta
from influence.server.errors import ApiError, ClientGone, ending
from influence.server.runs import Mailbox, Run
from influence.server.settings import Settings
from influence.server.streaming import NDJSON, SSE, collected, streamed

END = Finished("stop", Statistics(1, 0, 2, 0.0, 0.0, 0.0, 0.0))


class FakeApp:
    def __init__(self, settings: Settings) -> None:
        self.service = self
        self.settings = settings


class Exchange:
    """A run, and an ASGI client of its response; `left` is set when the client leaves."""

    def __init__(self, n_choices: int = 1, **settings: Any) -> None:
        self.run = Run(n_choices, lambda run: None)
        for _ in range(n_choices):
            self.run.add(Stream(wake=lambda: None))
        self.left = asyncio.Event()
        self.sent: list[bytes] = []
        self.scope: dict[str, Any] = {
            "type": "http", "method": "POST", "path": "/", "headers": [],
            "app": FakeApp(Settings(**settings)), "state": {"request_id": "req_1"},
        }  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            self.sent.append(message["body"])

    @property
    def request(self) -> Any:
        from starlette.requests import Request

        return Request(self.scope, self.receive, self.send)  # type: ignore[arg-type]

    def respond(self, media_type: str = SSE) -> asyncio.Task[None]:
        response = streamed(self.request, self.run, frames, media_type, error_frame)
        return asyncio.create_task(response(self.scope, self.receive, self.send))  # type: ignore[arg-type]


async def frames(run: Run) -> AsyncIterator[bytes]:
    async for choice, event in run:
        if isinstance(event, TextDelta):
            yield f"{choice}{event.text};".encode()


def error_frame(error: ApiError) -> bytes:
    return f"!{error.code}".encode()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def text(value: str) -> TextDelta:
    return TextDelta(value, (1,))


def test_events_that_wait_together_are_sent_together() -> None:
    async def play() -> list[bytes]:
        exchange = Exchange(n_choices=2)
        task = exchange.respond()
        await settle()
        for choice, word in ((0, "a"), (1, "b"), (0, "c")):
            exchange.run.receive(choice, text(word))
        await settle()
        exchange.run.receive(0, text("d"))
        await settle()
        for choice in (0, 1):
            exchange.run.receive(choice, END)
        await task
        return exchange.sent

    assert asyncio.run(play()) == [b"0a;1b;0c;", b"0d;", b""]


def test_a_silent_event_stream_shows_that_it_lives_and_lines_of_json_do_not() -> None:
    async def play(media_type: str) -> list[bytes]:
        exchange = Exchange(ping_interval_s=0.005)
        task = exchange.respond(media_type)
        await asyncio.sleep(0.05)
        exchange.run.receive(0, END)
        await task
        return exchange.sent

    pinged = asyncio.run(play(SSE))
    assert len(pinged) > 2 and set(pinged) == {b": ping\n\n", b""}
    assert asyncio.run(play(NDJSON)) == [b""]


@pytest.mark.parametrize("error", [EngineError("x"), ending()], ids=["the engine's", "the server's end"])
def test_an_error_after_what_came_before_is_the_last_frame(error: Any) -> None:
    async def play() -> tuple[list[bytes], bool]:
        exchange = Exchange()
        exchange.run.receive(0, text("a"))
        if isinstance(error, ApiError):
            exchange.run.abort(error)
        else:
            exchange.run.receive(0, error)
        await exchange.respond()
        return exchange.sent, exchange.run.is_cancelled

    sent, cancelled = asyncio.run(play())
    expected = b"!shutting_down" if isinstance(error, ApiError) else b"!engine_error"
    assert b"".join(sent) == b"0a;" + expected
    assert cancelled


def test_a_client_that_leaves_cancels_and_is_told_nothing() -> None:
    async def play(*, streams: bool) -> bool:
        exchange = Exchange()
        work: asyncio.Task[Any] = (
            exchange.respond() if streams else asyncio.create_task(collected(exchange.request, exchange.run))  # type: ignore[arg-type]
        )
        await settle()
        exchange.left.set()
        with pytest.raises(ClientGone):
            await work
        return exchange.run.is_cancelled

    assert asyncio.run(play(streams=True))
    assert asyncio.run(play(streams=False))


def test_a_run_that_ends_as_its_client_leaves_is_answered_once() -> None:
    async def play() -> int:
        exchange = Exchange()
        task = exchange.respond()
        await settle()
        exchange.run.receive(0, END)
        exchange.left.set()
        try:
            await task
        except ClientGone:
            return 0
        return exchange.sent.count(b"")

    assert asyncio.run(play()) in (0, 1)


def test_choices_are_collected_each_on_its_own() -> None:
    async def play() -> list[str]:
        exchange = Exchange(n_choices=2)
        for choice, word in ((1, "b"), (0, "a"), (1, "c")):
            exchange.run.receive(choice, text(word))
        for choice in (1, 0):
            exchange.run.receive(choice, END)
        return [completion.text for completion in await exchange.run.collect()]

    assert asyncio.run(play()) == ["a", "bc"]


def test_a_step_wakes_the_loop_once() -> None:
    async def play() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        n_calls = 0

        class Counting:
            def call_soon_threadsafe(self, call: Any) -> None:
                nonlocal n_calls
                n_calls += 1
                loop.call_soon(call)

        exchange, mailbox = Exchange(n_choices=16), Mailbox(Counting())  # type: ignore[arg-type]
        for choice in range(16):
            mailbox.put(exchange.run, choice, END)
        await settle()
        return n_calls, len(await exchange.run.collect())

    assert asyncio.run(play()) == (1, 16)


def test_events_for_a_loop_that_has_ended_go_nowhere() -> None:
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop)
    loop.close()
    mailbox.put(Run(1, lambda run: None), 0, END)
