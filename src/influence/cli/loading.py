"""From `-m` and the engine's options to a model that answers: shared by the commands that run one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from influence import demo
from influence.cli import output
from influence.cli.failure import BadUsage
from influence.cli.model_path import find_model, unfinished_note
from influence.cli.options import EngineOptions
from influence.dataclass import dataclass
from influence.engines import machine, select
from influence.engines.base import Engine
from influence.generation.generator import Generator
from influence.models.model import Model, open_model
from influence.text.chat_template import ChatTemplate
from influence.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from influence.generation.prompt_store import PromptStore
    from influence.text.template_process import TemplateProcess

# Contexts that nobody chose are rounded up to this, the size of a block of the KV cache.
_CONTEXT_STEP = 64


@dataclass(frozen=True)
class PromptCache:
    """Where computed prompts are kept on disk, and how much of it they may take."""

    folder: Path
    max_bytes: int


@dataclass(frozen=True)
class TextModel:
    """A model with what turns text into its tokens and back."""

    name: str  # as the user gave it
    model: Model
    tokenizer: Tokenizer
    template: ChatTemplate | None
    reading: object | None = None  # while it lives, weights come in from the disk

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends a completion, whichever file says so."""
        return self.model.generation_config.eos_ids | self.tokenizer.eos_ids


def open_text_model(
    name: str, renderer: TemplateProcess | None = None, options: EngineOptions | None = None
) -> TextModel:
    """The model that `-m` names; raises ModelError, TokenizerError or DeviceUnavailable.

    `renderer` is for its chat template, if one was started ahead. For the
    engine that `options` ask for, weights are read while the tokenizer is.
    """
    folder = find_model(name)
    model = open_model(folder)
    reading = None
    if options is not None:
        reading = select.read_ahead(model, options.device, options.device_index, options.weights)
    tokenizer = Tokenizer.load(folder)
    template = ChatTemplate.load(folder, tokenizer.special_tokens, process=renderer)
    return TextModel(name, model, tokenizer, template, reading)


def context_for(model: Model, n_tokens: int, chosen: int | None) -> int:
    """The context of a request of `n_tokens`, prompt and completion together."""
    if chosen is not None:
        return chosen
    return min(model.spec.max_context, -(-n_tokens // _CONTEXT_STEP) * _CONTEXT_STEP)


def notes(loaded: TextModel, options: EngineOptions) -> list[str]:
    """What the user should know before a generation, though nothing is wrong; usually nothing."""
    found = [output.visible(warning) for warning in loaded.tokenizer.warnings]
    found += [note for note in [unfinished_note(loaded.model.folder)] if note]
    device = select.device_for(options.device, options.device_index)
    if options.device == "auto":
        found += _of_auto(device)
    if device != "cpu":
        return found
    weights = select.weights_size(loaded.model, options.weights)
    available = machine.available_memory()
    if weights > available:
        found.append(
            f"the weights are {output.size(weights)}, but {output.size(available)} of memory are free: "
            "they will be read from the disk again and again"
        )
    return found


def _of_auto(taken: str) -> list[str]:
    """What `auto` took, where there was a choice."""
    if taken != "cpu":
        return [f"running on {taken}; --device cpu runs it on the cpu"]
    why = select.why_cpu()
    return [f"running on the cpu: {why}"] if why else []


@contextmanager
def running(
    loaded: TextModel,
    options: EngineOptions,
    context: int | None,
    *,
    kv_bytes: int | None = None,
    n_sessions: int = 1,
    on_note: Callable[[str], None] = output.say,
    prompt_cache: PromptCache | None = None,
    **generator_options: Any,
) -> Iterator[tuple[Engine, Generator]]:
    """The model's engine, and a generator on it, until the block ends; `generator_options` are Generator's.

    `on_note` is told what the user should know of the loading, usually nothing.
    """
    folder = loaded.model.folder
    engine = select.load_engine(
        loaded.model,
        options.device,
        device_index=options.device_index,
        tensor_parallel=options.tensor_parallel,
        threads=options.threads,
        kernels=options.kernels,
        context=context,
        kv_bytes=kv_bytes,
        n_sessions=n_sessions,
        gpu_memory=options.gpu_memory,
        kv_type=options.kv_type,
        weights=options.weights,
        # The demo's folder belongs to the installation.
        packed_folder=None if options.no_cache or folder == demo.folder() else folder,
        on_note=lambda note: on_note(f"note: {output.visible(note)}"),
    )
    try:
        with (
            _prompt_store(loaded, engine, prompt_cache) as store,
            Generator(
                engine,
                loaded.tokenizer,
                loaded.eos_ids,
                context=context,
                prompt_store=store,
                draft=options.draft,
                **generator_options,
            ) as generator,
        ):
            yield engine, generator
    finally:
        engine.close()


def _prompt_store(
    loaded: TextModel, engine: Engine, cache: PromptCache | None
) -> AbstractContextManager[PromptStore | None]:
    if cache is None:
        return nullcontext()
    from influence.generation.prompt_store import PromptStore
    from influence.weights.digest import files_digest

    digest = files_digest(loaded.model.checkpoint.files)
    try:
        return PromptStore(cache.folder, engine, digest, max_bytes=cache.max_bytes)
    except OSError as error:
        hint = "give a folder that can be written for --prompt-cache"
        raise BadUsage(f"{output.visible(str(cache.folder))}: {error.strerror}", hint=hint) from error
