"""What every protocol is given: the model's facts, prompts, parameters, and submitting.

One service stands over one generator. Its coroutines belong to one event loop;
what takes long without waiting for the engine (templates, tokenizers, grammars)
runs in its worker threads, so that streams go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from influence.dataclass import dataclass
from influence.errors import InvalidParameter
from influence.generation.events import Finished
from influence.generation.params import GenerationParams, resolve_params
from influence.generation.prompt import Prompt, build_chat_prompt, encode_text
from influence.generation.structured import ConstraintSpec, ConstraintVocabulary
from influence.server.errors import ending
from influence.server.grammars import Grammars
from influence.server.metrics import Metrics
from influence.server.runs import Mailbox, Run

if TYPE_CHECKING:
    from influence.errors import InfluenceError
    from influence.generation.constraint import ConstraintSource
    from influence.generation.events import Event, Stream
    from influence.generation.generator import Generator
    from influence.generation.prompt import Message
    from influence.models.generation_config import GenerationConfig
    from influence.server.facts import ModelFacts
    from influence.server.settings import Settings
    from influence.text.chat_template import ChatTemplate
    from influence.text.tokenizer import Tokenizer

Result = TypeVar("Result")

# Templates are rendered one at a time anyway, and the engine needs the cores.
_N_WORKERS = 4


@dataclass(frozen=True)
class CompletionRequest:
    """One prompt, and what is wanted of it."""

    prompt_ids: Sequence[int]
    params: GenerationParams  # of the first choice; choice i has its seed + i
    n: int = 1  # choices
    constraint: ConstraintSource | None = None
    salt: str = ""  # prompts share computed prefixes only with those of the same salt


class Service:
    """A model that answers, and the requests that run on it.

    `close` ends the worker threads; generator and engine are their maker's.
    """

    def __init__(
        self,
        generator: Generator,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        generation_config: GenerationConfig,
        facts: ModelFacts,
        settings: Settings,
    ) -> None:
        self.generator = generator
        self.tokenizer = tokenizer
        self.template = template
        self.generation_config = generation_config
        self.eos_ids = generation_config.eos_ids | tokenizer.eos_ids  # each ends a completion
        self.facts = facts
        self.settings = settings
        self.metrics = Metrics(generator.facts, facts.name)
        self._grammars = Grammars(partial(ConstraintVocabulary, tokenizer, facts.vocab_size, self.eos_ids))
        self.is_draining = False
        self.runs: set[Run] = set()  # those that have not left the generator
        self._run_ended = asyncio.Event()
        self._mailbox: Mailbox | None = None
        self._workers = ThreadPoolExecutor(_N_WORKERS, "influence-server")

    @property
    def vocab_size(self) -> int:
        """Ids from 0 up to it are tokens of the model."""
        return self.facts.vocab_size

    async def chat_prompt(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """A conversation in the model's template. Raises InvalidParameter, TokenizerError."""
        return await self.in_worker(
            build_chat_prompt,
            self.tokenizer,
            self.template,
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            variables=variables,
        )

    async def text_prompt(self, text: str) -> Prompt:
        """A text as it is. Raises InvalidParameter, TokenizerError."""
        token_ids = await self.in_worker(encode_text, self.tokenizer, text)
        return Prompt(text, token_ids, used_template=False)

    async def constraint(self, spec: ConstraintSpec) -> ConstraintSource:
        """A grammar, compiled or remembered. Raises InvalidParameter for one that can't be followed."""
        return await self.in_worker(self._grammars.compiled, spec)

    def params(self, given: Mapping[str, Any]) -> GenerationParams:
        """What was given, then the model's own choices, then our defaults. Raises InvalidParameter."""
        return resolve_params(given, self.generation_config).params

    async def in_worker(self, work: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Something that computes for long, outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, partial(work, *args, **kwargs))

    def submit(self, request: CompletionRequest) -> Run:
        """Ask the generator for all choices of a request.

        Raises, before any work, ContextFull, InvalidParameter, ServerBusy, and
        ApiError where the server is about to end.
        """
        if self.is_draining:
            raise ending(self.settings.drain_s)
        if not 1 <= request.n <= self.settings.max_choices:
            raise InvalidParameter("n", request.n, f"from 1 to {self.settings.max_choices}")
        run = Run(request.n, self.run_ended)
        try:
            for choice in range(request.n):
                run.add(self.submit_choice(run, choice, request, choice))
        except BaseException:
            run.cancel()  # the choices that found a place
            raise
        self.runs.add(run)
        return run

    def health(self) -> str:
        """What a load balancer asks: "ok" while requests are taken, else why not."""
        facts = self.generator.facts()
        if self.is_draining:
            return "draining"
        if not facts.is_alive:
            return "failed"
        return "stalled" if facts.stalled_s > self.settings.watchdog_s else "ok"

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self.runs:
            self._run_ended.clear()
            await self._run_ended.wait()

    def abort_all(self) -> None:
        """End every run with an error that says why. In the loop."""
        for run in tuple(self.runs):
            run.abort(ending(self.settings.drain_s))

    def close(self) -> None:
        """End the worker threads, after what they have begun."""
        self._workers.shutdown()

    def submit_choice(self, run: Run, place: int, request: CompletionRequest, choice: int) -> Stream:
        """Ask the generator for one choice of a request, which is number `place` of the run. Raises as `submit`."""
        mailbox = self._mailbox_here()

        def hand_over(event: Event | InfluenceError) -> None:
            if isinstance(event, Finished):
                self.metrics.completion(event)
            mailbox.put(run, place, event)

        sampling = request.params.sampling
        return self.generator.submit(
            request.prompt_ids,
            replace(request.params, sampling=replace(sampling, seed=sampling.seed + choice)),
            constraint=None if request.constraint is None else request.constraint.new(),
            salt=request.salt,
            on_event=hand_over,
        )

    def run_ended(self, run: Run) -> None:
        """For a run: its last choice has left the generator."""
        self.runs.discard(run)
        self._run_ended.set()

    def _mailbox_here(self) -> Mailbox:
        loop = asyncio.get_running_loop()
        if self._mailbox is None or self._mailbox.loop is not loop:
            self._mailbox = Mailbox(loop)
        return self._mailbox
