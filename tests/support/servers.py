"""Servers for tests: the app on a model in this process, the app on a socket, a whole `influence serve`."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from influence import demo
from influence.engines.base import Engine
from influence.engines.select import load_engine
from influence.generation.generator import Generator
from influence.models.model import open_model
from influence.server.app import PROTOCOLS, create_app
from influence.server.facts import model_facts
from influence.server.life import bind, new_server
from influence.server.service import Service
from influence.server.settings import Settings
from influence.text.chat_template import ChatTemplate
from influence.text.tokenizer import Tokenizer
from support.cli import command, environment

KV_BYTES = 32 << 20  # twenty contexts of the demo


@contextmanager
def served_demo(
    settings: Settings | None = None,
    *,
    wrap: Callable[[Engine], Engine] = lambda engine: engine,
    kv_bytes: int = KV_BYTES,
    **options: Any,
) -> Iterator[Service]:
    """A service on the demo model; `wrap` may put an engine before the real one, `options` are Generator's."""
    folder = demo.folder()
    model = open_model(folder)
    engine = wrap(load_engine(model, "cpu", threads=1, kv_bytes=kv_bytes))
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


@contextmanager
def listening(service: Service, protocols: Sequence[Any] = PROTOCOLS) -> Iterator[int]:
    """The service's app on a socket of this machine, in a thread; the port."""
    sock = bind("127.0.0.1", 0)
    server = new_server(create_app(service, protocols), service.settings)
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def until(holds: Callable[[], object], within_s: float = 20.0) -> None:
    """Wait for something that happens in another thread or process; fails if it does not."""
    deadline_s = time.monotonic() + within_s
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < deadline_s, "it did not happen"
        pause.wait(0.002)


def is_free(service: Service) -> bool:
    """Whether no request holds a place, and every block is free or kept for a common prefix alone."""
    facts = service.generator.facts()
    return not service.runs and facts.n_unfinished == 0 and facts.loop.n_reserved_kv_blocks == 0


class ServeProcess:
    """A real `influence serve` on a free port; its stderr is collected."""

    def __init__(self, *args: str, model: str = "demo", **variables: str) -> None:
        self.process = subprocess.Popen(
            command("serve", "-m", model, "-p", "0", *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**variables),
        )
        self.lines: list[str] = []
        self.port = 0
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._ready.wait(60)
        if not self.port:
            self.__exit__()
            raise AssertionError("\n".join(["it never became ready", *self.lines]))

    def stop(self, number: int, within_s: float = 30.0) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.wait(within_s)

    def wait(self, within_s: float = 30.0) -> int:
        code = self.process.wait(within_s)
        self._reader.join(10)
        return code

    def __enter__(self) -> ServeProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stdout is not None and self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.decode().rstrip("\n"))
            found = re.search(r" answers at http://\S+:(\d+)$", self.lines[-1])
            if found:
                self.port = int(found[1])
                self._ready.set()
        self._ready.set()
