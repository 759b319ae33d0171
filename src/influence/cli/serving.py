"""From the options of `serve` to a server that runs, and back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from influence.cli import output
from influence.cli.log_lines import LineHandler
from influence.cli.options import EngineOptions
from influence.dataclass import dataclass

if TYPE_CHECKING:
    from influence.cli.loading import PromptCache, TextModel
    from influence.engines.base import Engine
    from influence.generation.generator import Generator
    from influence.server.service import Service
    from influence.server.settings import Settings

# A step has 256 tokens, and running requests may not take all of them from prompts.
MAX_CONCURRENT = 192


@dataclass(frozen=True)
class Plan:
    """Which model to serve, and how much of the machine it gets."""

    model: str  # as the user named it
    aliases: tuple[str, ...]
    max_concurrent: int
    kv_bytes: int | None  # None: as the machine allows
    prompt_cache: PromptCache | None  # None: prompts are kept in memory alone
    engine: EngineOptions


def serve(plan: Plan, settings: Settings, *, quiet: bool) -> None:
    """Serve until a signal ends it; the port is taken before the model is opened."""
    from influence.server import life
    from influence.server.app import create_app

    _log_to_stderr(quiet)
    with closing(life.bind(settings.host, settings.port)) as sock:
        settings = replace(settings, port=sock.getsockname()[1])
        with _service(plan, settings) as (service, description):
            life.run(service, create_app(service), sock, lambda: output.say(_greeting(service, description)))


@contextmanager
def _service(plan: Plan, settings: Settings) -> Iterator[tuple[Service, str]]:
    """A service whose model answers, and its engine in words."""
    from influence.cli.loading import notes, open_text_model, running
    from influence.server.service import Service

    with output.spinner(f"loading {plan.model}") as spinner:
        loaded = open_text_model(plan.model, options=plan.engine)
        for note in notes(loaded, plan.engine):
            spinner.say(f"note: {note}")
        context = plan.engine.context
        with running(
            loaded,
            plan.engine,
            context,
            kv_bytes=plan.kv_bytes,
            n_sessions=plan.max_concurrent,
            prompt_cache=plan.prompt_cache,
            max_running=plan.max_concurrent,
            max_unfinished=plan.max_concurrent + settings.max_queue,
        ) as (engine, generator):
            service = Service(
                generator,
                loaded.tokenizer,
                loaded.template,
                loaded.model.generation_config,
                _facts(plan, loaded, generator),
                settings,
            )
            with closing(service):
                _answer_once(loaded, generator)
                spinner.stop()
                yield service, _description(engine, generator)


def _facts(plan: Plan, loaded: TextModel, generator: Generator) -> Any:
    from influence.server.facts import model_facts

    return model_facts(
        loaded.model,
        loaded.tokenizer,
        loaded.template,
        name=_public_name(loaded),
        aliases=plan.aliases,
        context=generator.context,
    )


def _public_name(loaded: TextModel) -> str:
    """What clients call the model: ORG/NAME, demo, or the folder's own name; never a path."""
    is_path = loaded.name.startswith((".", "/", "~")) or loaded.model.folder.resolve().match(loaded.name)
    return loaded.model.folder.resolve().name if is_path else loaded.name


def _answer_once(loaded: TextModel, generator: Generator) -> None:
    """Have the model say a token: ready means that it answers, and its weights are in memory."""
    from influence.generation.params import GenerationParams
    from influence.generation.prompt import encode_text

    if loaded.template is not None:
        loaded.template.warm_up()
    token_ids = encode_text(loaded.tokenizer, "") or [0]
    generator.submit(token_ids, GenerationParams(max_tokens=1)).collect()


def _description(engine: Engine, generator: Generator) -> str:
    pool = engine.kv_pool
    positions = pool.n_blocks * pool.block_size
    kv = output.size(pool.n_blocks * pool.block_bytes)
    return f"{engine.description}; context {generator.context}; KV cache of {positions} positions, {kv}"


def _greeting(service: Service, description: str) -> str:
    settings = service.settings
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    lines = [
        f"{output.visible(service.facts.name)} answers at http://{host}:{settings.port}",
        f"  {description}",
    ]
    if not settings.is_loopback and not settings.api_keys:
        lines.append(
            "  note: everybody who can reach this address may use it, and the traffic is not encrypted"
        )
    return "\n".join(lines)


def _log_to_stderr(quiet: bool) -> None:
    """Lines for people; a reader that left or pauses is no reason to stop serving."""
    handler = LineHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    for name, level in (
        ("influence.server", logging.INFO),
        ("uvicorn.error", logging.CRITICAL),  # what it reports is a client's fault, or said by us
        ("asyncio", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
        logger.propagate = False
    if quiet:
        logging.getLogger("influence.server.access").setLevel(logging.WARNING)
