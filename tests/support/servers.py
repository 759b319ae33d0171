"""Servers for tests: the app on a model in this process, the app on a socket, a whole `influence serve`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from influence import demo
from influence.engines.base import Engine
from influence.engines.select import load_engine
from influence.generation.generator import Generator
from influence.models.model import open_model
from influence.server.facts import model_facts
from influence.server.service import Service
from influence.server.settings import Settings
from influence.text.chat_template import ChatTemplate
from influence.text.tokenizer import Tokenizer


@contextmanager
def served_demo(settings: Settings | None = None, **options: Any) -> Iterator[Service]:
    """A service on the demo model; `options` are Generator's."""
    folder = demo.folder()
    model = open_model(folder)
    engine = load_engine(model, "cpu", threads=1)
    try:
        with service_on(model, engine, settings or Settings(), **options) as service:
            yield service
    finally:
        engine.close()
        model.checkpoint.close()


@contextmanager
def service_on(model: Any, engine: Engine, settings: Settings, **options: Any) -> Iterator[Service]:
    """A service of an open model on an engine that the caller owns."""
    tokenizer = Tokenizer.load(model.folder)
    template = ChatTemplate.load(model.folder, tokenizer.special_tokens)
    eos_ids = model.generation_config.eos_ids | tokenizer.eos_ids
    with Generator(engine, tokenizer, eos_ids, **options) as generator:
        facts = model_facts(
            model, tokenizer, template, name=demo.NAME, aliases=("storyteller",), context=generator.context
        )
        service = Service(generator, tokenizer, template, model.generation_config, facts, settings)
        try:
            yield service
        finally:
            service.close()
            if template is not None:
                template.close()
