"""Many prompts as one run: what is in the generator at a time, and what is left when the client leaves."""

from __future__ import annotations

import asyncio

import pytest

from influence.errors import InvalidParameter, ServerBusy
from influence.generation.events import Finished
from influence.generation.params import GenerationParams
from influence.server import batch
from influence.server.batch import submit_all
from influence.server.service import CompletionRequest, Service
from support.generators import Gate
from support.scripted import scripted_service
from support.servers import is_free, until


def requests(n: int, max_tokens: int = 3) -> list[CompletionRequest]:
    return [
        CompletionRequest([0, 5 + i], GenerationParams(max_tokens=max_tokens, ignore_eos=True))
        for i in range(n)
    ]


def test_a_batch_has_few_requests_in_the_generator_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_AT_ONCE", 2)
    most = 0

    async def watched(service: Service) -> int:
        nonlocal most
        ends = 0
        async with submit_all(service, requests(7)) as run:
            async for _, event in run:
                most = max(most, service.generator.facts().n_unfinished)
                ends += isinstance(event, Finished)
        return ends

    with scripted_service() as (service, _):
        assert asyncio.run(watched(service)) == 7
        assert 1 <= most <= 2
        until(lambda: is_free(service))


def test_a_client_that_leaves_takes_the_prompts_that_wait_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_AT_ONCE", 1)

    async def left(service: Service) -> None:
        async with submit_all(service, requests(50, max_tokens=100)) as run:
            async for _ in run:
                break
        async with asyncio.timeout(20):
            while service.runs:
                await asyncio.sleep(0)

    with scripted_service() as (service, engine):
        asyncio.run(left(service))
        until(lambda: is_free(service))
        assert engine.n_tokens < 50 * 100


def test_a_batch_that_finds_no_place_at_all_is_refused_and_leaves_nothing() -> None:
    async def refused(service: Service) -> None:
        with pytest.raises(ServerBusy):
            submit_all(service, requests(3))

    with scripted_service(max_unfinished=1) as (service, engine):
        gate = Gate(engine)
        with service.generator.submit([0], GenerationParams(max_tokens=1)):
            assert gate.reached.wait(20)
            asyncio.run(refused(service))
            gate.opened.set()
        until(lambda: is_free(service))


def test_an_error_of_a_later_prompt_reaches_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_AT_ONCE", 1)

    async def read(service: Service) -> None:
        wrong = CompletionRequest([10**6], GenerationParams(max_tokens=1))
        async with submit_all(service, [*requests(2), wrong, *requests(2)]) as run:
            await run.collect()

    with scripted_service() as (service, _):
        with pytest.raises(InvalidParameter, match="vocabulary"):
            asyncio.run(read(service))
        until(lambda: is_free(service))
