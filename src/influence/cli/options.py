"""Options that several commands share, in groups that arrive as one value each.

@click.command()
@model_option
@engine_options
def bench(model_path: str, engine: EngineOptions) -> None: ...
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from influence.cli import output
from influence.cli.failure import BadUsage
from influence.dataclass import dataclass

if TYPE_CHECKING:
    from influence.engines.base import KvType
    from influence.engines.packing import WeightFormat
    from influence.engines.select import Device
    from influence.generation.drafting import DraftMode

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def text(value: str) -> str:
    """An option's type: text that is sound UTF-8; a command line can carry any bytes."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter(f"character {error.start} is not UTF-8") from error
    return value


_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def size(value: str) -> int:
    """An option's type: a number of bytes, as 4GB, 512MiB or 1000000."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,3})?) ?([a-zA-Z]{0,3})", value.strip(), re.ASCII)
    if match is None or match[2].lower() not in _UNITS:
        raise click.BadParameter(f"{output.visible(value)!r} is no size such as 4GB or 512MiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


@dataclass(frozen=True)
class EngineOptions:
    """Where and how to run the model, as the user asked."""

    device: Device
    device_index: int
    tensor_parallel: int  # GPUs
    gpu_memory: int | None  # bytes
    threads: int | None
    kernels: str | None
    context: int | None
    kv_type: KvType | None
    weights: WeightFormat
    no_cache: bool
    draft: DraftMode = "ngram"


def _require_model(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if not value and not context.resilient_parsing:
        raise BadUsage(
            "the model path is not provided",
            hint="give -m FOLDER, -m ORG/NAME of a downloaded model, or -m demo for the one that comes along",
        )
    return value


model_option = click.option(
    "-m",
    "--model-path",
    metavar="PATH",
    type=text,
    callback=_require_model,
    help="The model: a folder, a downloaded ORG/NAME (in ./models/), or `demo`.  [required]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

system_option = click.option(
    "--system",
    metavar="TEXT",
    type=text,
    help="A system prompt, put before the user's. A model without a chat template reads it as text above.",
)

raw_option = click.option(
    "--raw", is_flag=True, help="Give the model the prompt as it is, without its chat template."
)

json_schema_option = click.option(
    "--json-schema",
    metavar="FILE",
    type=text,
    help="Answer with JSON that is valid for the JSON schema in FILE.",
)

regex_option = click.option(
    "--regex",
    metavar="PATTERN",
    type=text,
    help="Answer with text that PATTERN matches from its first to its last character.",
)

kv_type_option = click.option(
    "--kv-type",
    type=click.Choice(["f32", "f16", "q8"]),
    help="How to keep the keys and values of a context on the CPU; q8 takes half of f16's memory."
    "  [default: f16, for float32 weights f32]",
)

_ENGINE_OPTIONS = (
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "metal", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to run. A device that is named is used or refused, never replaced.",
    ),
    click.option(
        "--device-index",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Which GPU, if there are several.",
    ),
    click.option(
        "--tensor-parallel",
        metavar="N",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="How many GPUs share the model, from --device-index on: each holds a part of every layer.",
    ),
    click.option(
        "--gpu-memory",
        metavar="SIZE",
        type=size,
        help="The most that each GPU gives to weights and KV cache, as 20GB.  [default: 90 % of what is free]",
    ),
    click.option(
        "--threads",
        metavar="N",
        type=click.IntRange(min=1),
        help="Threads to compute with.  [default: the physical cores this process may use]",
    ),
    click.option(
        "--kernels",
        metavar="NAME",
        help="The kernel table to use; `influence doctor` lists them.  [default: the best for this CPU]",
    ),
    click.option(
        "--context",
        metavar="N",
        type=click.IntRange(min=1),
        help="Positions for prompt and completion together, up to the model's own limit."
        "  [default: as many as needed]",
    ),
    kv_type_option,
    click.option(
        "--weights",
        type=click.Choice(["stored", "packed", "q8", "q4"]),
        default="stored",
        show_default=True,
        help="How to hold the weights: as the files have them; packed, bfloat16 in 12 bits and the very same"
        " answers; or in 8 or 4 bits, which is smaller and faster still."
        " They are made once and kept in the model's .influence/ folder.",
    ),
    click.option(
        "--no-cache", is_flag=True, help="Make packed, 8 or 4-bit weights in memory, and keep them nowhere."
    ),
    click.option(
        "--draft",
        type=click.Choice(["ngram", "none"]),
        default="ngram",
        show_default=True,
        help="Guess tokens that the text has said before and check several in one step, while that is faster."
        " The text is the same.",
    ),
)

# Sampling options have no default here: what the user leaves out is the model's own choice.
_SAMPLING_OPTIONS = (
    click.option(
        "--max-tokens",
        metavar="N",
        type=click.IntRange(min=0),
        help="The most tokens to generate.  [default: 512]",
    ),
    click.option(
        "--temperature",
        metavar="T",
        type=float,
        help="How freely to choose: 0 always takes the likeliest token.  [default: 0.7]",
    ),
    click.option("--top-k", metavar="K", type=int, help="Choose among the K likeliest tokens; 0: among all."),
    click.option(
        "--top-p", metavar="P", type=float, help="Choose among the likeliest that make up P together."
    ),
    click.option("--min-p", metavar="P", type=float, help="Leave out tokens below P times the likeliest."),
    click.option(
        "--repeat-penalty", metavar="X", type=float, help="Make tokens that were seen less likely; 1: off."
    ),
    click.option(
        "--presence-penalty", metavar="X", type=float, help="Lower tokens that were generated, once; 0: off."
    ),
    click.option(
        "--frequency-penalty", metavar="X", type=float, help="Lower generated tokens each time; 0: off."
    ),
    click.option(
        "--seed", metavar="N", type=int, help="The same seed gives the same text.  [default: random]"
    ),
    click.option(
        "--stop", metavar="TEXT", type=text, multiple=True, help="Stop before this text. Can be given often."
    ),
)
_SAMPLING_NAMES = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the engine's options; the command gets `engine: EngineOptions`."""
    names = tuple(EngineOptions.__dataclass_fields__)
    return _group("engine", names, EngineOptions, _ENGINE_OPTIONS)(command)


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the sampling options; the command gets `sampling: dict[str, Any]`, only what the user gave."""
    return _group("sampling", _SAMPLING_NAMES, _given, _SAMPLING_OPTIONS)(command)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _group(
    argument: str, names: Sequence[str], collect: Callable[..., Any], options: Sequence[Decorator]
) -> Decorator:
    """A decorator that adds `options` and hands their values on as one `argument`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def collected(**values: Any) -> Any:
            values[argument] = collect(**{name: values.pop(name) for name in names})
            return command(**values)

        decorated: Callable[..., Any] = collected
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
