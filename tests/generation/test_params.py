"""Parameters: ranges, and which source a value comes from."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from influence.engines.sampling import SamplingParams
from influence.errors import InvalidParameter
from influence.generation.params import PARAMETER_NAMES, GenerationParams, resolve_params
from influence.models.generation_config import GenerationConfig

SILENT = GenerationConfig()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("max_tokens", v) for v in (-1, 1.5, "5", None, math.nan, True)],
        *[("n_logprobs", v) for v in (-2, 21, 10**6, 1.0, True)],
        *[("prompt_logprobs", v) for v in (-2, 21, 10**6, 1.0, None)],
        *[("ignore_eos", v) for v in (1, "yes", None)],
        *[
            ("stop", v)
            for v in ("end", None, [""], ("a", ""), ["a", 1], ["x"] * 33, ["x" * 513], ["x" * 10**6])
        ],
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as caught:
        GenerationParams(**{name: value})
    assert caught.value.name == name
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "values",
    [
        {"max_tokens": 0},
        {"max_tokens": 10**9},
        {"n_logprobs": 20},
        {"prompt_logprobs": 20},
        {"stop": ["x"] * 32},
        {"stop": ("x" * 512,)},
    ],
)
def test_the_ends_of_the_ranges_are_accepted(values: dict[str, Any]) -> None:
    GenerationParams(**values)


def test_stop_strings_given_as_a_list_can_not_be_changed_later() -> None:
    stop = ["a"]
    params = GenerationParams(stop=stop)  # type: ignore[arg-type]
    stop.append("")
    assert params.stop == ("a",)


def test_nothing_given_and_nothing_stated_are_the_documented_defaults() -> None:
    resolved = resolve_params({}, SILENT)
    assert resolved.params.sampling.temperature == 0.7
    assert resolved.params.max_tokens == 512
    assert resolved.params.sampling.top_k == 0  # not transformers' 50, which nobody stated
    assert set(resolved.sources) == set(PARAMETER_NAMES)
    assert {name for name, source in resolved.sources.items() if source != "default"} == {"seed"}


def test_the_file_s_values_come_before_the_defaults_and_given_ones_before_the_file_s() -> None:
    stated = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_k=40,
        top_p=0.9,
        min_p=0.05,
        repetition_penalty=1.1,
        max_new_tokens=2048,
    )
    resolved = resolve_params({"temperature": 1.2, "top_k": None, "stop": ["x"]}, stated)
    sampling = resolved.params.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (1.2, 40, 0.9)
    assert (sampling.min_p, sampling.repeat_penalty, resolved.params.max_tokens) == (0.05, 1.1, 2048)
    assert resolved.sources["temperature"] == "given"
    assert resolved.sources["stop"] == "given"
    assert resolved.sources["ignore_eos"] == "default"
    from_file = {name for name, source in resolved.sources.items() if source == "generation_config.json"}
    assert from_file == {"top_k", "top_p", "min_p", "repeat_penalty", "max_tokens"}


def test_do_sample_false_is_temperature_0_unless_one_is_given() -> None:
    stated = GenerationConfig(do_sample=False, temperature=0.6)
    assert resolve_params({}, stated).params.sampling.temperature == 0
    assert resolve_params({}, stated).sources["temperature"] == "generation_config.json"
    assert resolve_params({"temperature": 0.9}, stated).params.sampling.temperature == 0.9


def test_a_given_zero_counts_as_given() -> None:
    resolved = resolve_params(
        {"temperature": 0, "max_tokens": 0, "top_k": 0},
        GenerationConfig(temperature=0.6, top_k=40, max_new_tokens=9),
    )
    assert (resolved.params.sampling.temperature, resolved.params.max_tokens) == (0, 0)
    assert resolved.params.sampling.top_k == 0


def test_without_a_seed_two_runs_differ_and_say_their_seed() -> None:
    seeds = {resolve_params({}, SILENT).params.sampling.seed for _ in range(5)}
    assert len(seeds) == 5
    assert max(seeds) < 2**32  # a JSON number holds it
    assert resolve_params({}, SILENT).sources["seed"] == "random"
    assert resolve_params({"seed": 4}, SILENT).params.sampling.seed == 4


def test_a_bad_value_of_the_file_blames_the_file() -> None:
    with pytest.raises(InvalidParameter, match=r"top_p of generation_config\.json"):
        resolve_params({}, GenerationConfig(top_p=7.0))
    with pytest.raises(InvalidParameter, match=r"^top_p is 8"):
        resolve_params({"top_p": 8.0}, GenerationConfig(top_p=7.0))


def test_an_unknown_name_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(InvalidParameter, match="repeat_penalty"):
        resolve_params({"repetition_penalty": 1.1}, SILENT)


def test_every_parameter_can_be_given() -> None:
    defaults = {f.name: getattr(SamplingParams(), f.name) for f in fields(SamplingParams)}
    defaults |= {
        f.name: getattr(GenerationParams(), f.name) for f in fields(GenerationParams) if f.name != "sampling"
    }
    resolved = resolve_params(defaults, SILENT)
    assert resolved.params == GenerationParams()
    assert set(resolved.sources.values()) == {"given"}
