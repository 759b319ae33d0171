"""What a request asks of generation, and where each value came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, Literal

from influence.dataclass import dataclass
from influence.engines.sampling import SamplingParams
from influence.errors import InvalidParameter
from influence.models.generation_config import GenerationConfig

MAX_STOP_STRINGS = 32
MAX_STOP_LENGTH = 512  # characters
MAX_LOGPROBS = 20  # alternatives per token; OpenAI's limit

# "random": nobody chose a seed; the one drawn is in the params, so that the run can be repeated.
Source = Literal["given", "generation_config.json", "default", "random"]


@dataclass(frozen=True)
class GenerationParams:
    """How to sample and when to stop; immutable.

    Raises InvalidParameter for a value of another type or outside its range.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int = 512  # >= 0; the context's end comes first if it is nearer
    stop: tuple[str, ...] = ()  # at most 32 strings of 1 to 512 characters; none of it is ever emitted
    ignore_eos: bool = False  # go on after an EOS token
    n_logprobs: int = -1  # -1: none; 0: of the chosen tokens; up to 20: also of that many likeliest
    prompt_logprobs: int = -1  # likewise, of the prompt's own tokens; then the whole prompt is computed
    shown_ids: frozenset[int] = frozenset()  # special tokens that the text shows, as those of tool calls

    def __post_init__(self) -> None:
        _require_whole("max_tokens", self.max_tokens, 0, None)
        _require_whole("n_logprobs", self.n_logprobs, -1, MAX_LOGPROBS)
        _require_whole("prompt_logprobs", self.prompt_logprobs, -1, MAX_LOGPROBS)
        if not isinstance(self.ignore_eos, bool):
            raise InvalidParameter("ignore_eos", self.ignore_eos, "true or false")
        object.__setattr__(self, "stop", _checked_stop(self.stop))


@dataclass(frozen=True)
class ResolvedParams:
    """Complete parameters, and the source of each value by its name in `given`."""

    params: GenerationParams
    sources: Mapping[str, Source]


_SAMPLING_NAMES = tuple(f.name for f in fields(SamplingParams))
_OTHER_NAMES = tuple(f.name for f in fields(GenerationParams) if f.name != "sampling")
PARAMETER_NAMES = _SAMPLING_NAMES + _OTHER_NAMES


def resolve_params(given: Mapping[str, Any], model_defaults: GenerationConfig) -> ResolvedParams:
    """Each parameter from the first that has it: `given`, generation_config.json, our defaults.

    `given` maps names of PARAMETER_NAMES to values; None means not given.
    `do_sample: false` in the file means temperature 0. Only what the file
    states counts: transformers' own defaults (such as top_k 50) do not.
    Without a seed a random one is drawn. Raises InvalidParameter for an
    unknown name or a bad value, and says so if the file is to blame.
    """
    for name, value in given.items():
        if name not in PARAMETER_NAMES:
            raise InvalidParameter(name, value, f"left out: the parameters are {', '.join(PARAMETER_NAMES)}")
    stated = _stated_by(model_defaults)
    chosen = {name: value for name, value in given.items() if value is not None}
    values = {"seed": int.from_bytes(os.urandom(4), "little"), **stated, **chosen}
    sources = {name: _source(name, chosen, stated) for name in PARAMETER_NAMES}
    try:
        return ResolvedParams(_build(values), sources)
    except InvalidParameter as error:
        if sources.get(error.name) != "generation_config.json":
            raise
        blamed = f"{error.name} of generation_config.json"
        raise InvalidParameter(blamed, error.value, error.expected) from error


def _stated_by(file: GenerationConfig) -> dict[str, Any]:
    """The values that generation_config.json states, by our names."""
    values = {
        "temperature": 0.0 if file.do_sample is False else file.temperature,
        "top_k": file.top_k,
        "top_p": file.top_p,
        "min_p": file.min_p,
        "repeat_penalty": file.repetition_penalty,
        "max_tokens": file.max_new_tokens,
    }
    return {name: value for name, value in values.items() if value is not None}


def _source(name: str, chosen: Mapping[str, Any], stated: Mapping[str, Any]) -> Source:
    if name in chosen:
        return "given"
    if name in stated:
        return "generation_config.json"
    return "random" if name == "seed" else "default"


def _build(values: Mapping[str, Any]) -> GenerationParams:
    sampling = SamplingParams(**{name: values[name] for name in _SAMPLING_NAMES if name in values})
    return GenerationParams(sampling, **{name: values[name] for name in _OTHER_NAMES if name in values})


def _require_whole(name: str, value: object, low: int, high: int | None) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):  # type: ignore[operator]
        expected = (
            f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
        )
        raise InvalidParameter(name, value, expected)


def _checked_stop(stop: object) -> tuple[str, ...]:
    if isinstance(stop, str) or not isinstance(stop, (tuple, list)):
        raise InvalidParameter("stop", stop, "a list of strings")
    if len(stop) > MAX_STOP_STRINGS:
        raise InvalidParameter("stop", f"{len(stop)} strings", f"at most {MAX_STOP_STRINGS} strings")
    for string in stop:
        if not isinstance(string, str) or not string:
            raise InvalidParameter("stop", string, "a list of strings, none of them empty")
        if len(string) > MAX_STOP_LENGTH:
            raise InvalidParameter(
                "stop", f"{string[:20]}… ({len(string)} characters)", f"at most {MAX_STOP_LENGTH} characters"
            )
    return tuple(stop)
