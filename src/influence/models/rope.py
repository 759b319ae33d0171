"""Rotary frequencies of a ModelSpec, as transformers' modeling_rope_utils.py computes them.

All of it in float32, operation by operation, because trained models saw those
roundings; there are a hundred numbers at most, which plain Python computes sooner than
it imports a library for arrays.

Stretched ropes: linear (kaiokendev), dynamic NTK (bloc97, emozilla), YaRN (Peng et al.,
arXiv 2309.00071), LongRoPE (Ding et al., arXiv 2402.13753), Llama 3.1.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from typing import TypeAlias

from influence.models.spec import Rope, RopeScaling, RopeScalingKind

Floats: TypeAlias = "array[float]"  # of float32


def rope_frequencies(rope: Rope, context: int) -> tuple[Floats, float]:
    """Inverse frequencies (rotary_dim / 2,) and the factor that cos and sin are multiplied by.

    `context` is the session's: dynamic and longrope choose by it, once, what
    transformers chooses anew for every length, so that a cached key never
    disagrees with a later query.
    """
    return _KINDS[rope.scaling.kind](rope, context)


def _f32(number: float) -> float:
    """The nearest float32. Of a sum, product or quotient of two of them that is their float32 result."""
    return array("f", (number,))[0]


def _wavelengths(theta: float, rotary_dim: int) -> Floats:
    """theta ** (2 i / rotary_dim), the wavelengths over 2 pi."""
    base = _f32(theta)
    return array("f", [base ** _f32(i / rotary_dim) for i in range(0, rotary_dim, 2)])


def _inverse(wavelengths: Floats) -> Floats:
    return array("f", [1 / wavelength for wavelength in wavelengths])


def _default(rope: Rope, context: int) -> tuple[Floats, float]:
    return _inverse(_wavelengths(rope.theta, rope.rotary_dim)), 1.0


def _linear(rope: Rope, context: int) -> tuple[Floats, float]:
    frequencies, _ = _default(rope, context)
    factor = _f32(rope.scaling.factor)
    return array("f", [frequency / factor for frequency in frequencies]), 1.0


def _dynamic(rope: Rope, context: int) -> tuple[Floats, float]:
    factor, original = rope.scaling.factor, rope.scaling.original_max_context
    stretch = factor * max(context, original) / original - (factor - 1)
    theta = rope.theta * stretch ** (rope.rotary_dim / (rope.rotary_dim - 2))
    return _inverse(_wavelengths(theta, rope.rotary_dim)), 1.0


def _llama3(rope: Rope, context: int) -> tuple[Floats, float]:
    frequencies, _ = _default(rope, context)
    return array("f", [_llama3_stretched(frequency, rope.scaling) for frequency in frequencies]), 1.0


def _llama3_stretched(frequency: float, scaling: RopeScaling) -> float:
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    wavelength = _f32(_f32(2 * math.pi) / frequency)
    slowed = _f32(frequency / _f32(scaling.factor))
    if wavelength > _f32(scaling.original_max_context / low):
        return slowed
    if wavelength < _f32(scaling.original_max_context / high):
        return frequency
    turns = _f32(_f32(scaling.original_max_context) / wavelength)  # over the trained context
    smooth = _f32(_f32(turns - _f32(low)) / _f32(high - low))
    return _f32(_f32(1 - smooth) * slowed) + _f32(smooth * frequency)


def _yarn(rope: Rope, context: int) -> tuple[Floats, float]:
    scaling = rope.scaling
    low, high = _yarn_range(rope)
    factor, width = _f32(scaling.factor), _f32(high - low)
    frequencies = array("f")
    for pair, wavelength in enumerate(_wavelengths(rope.theta, rope.rotary_dim)):
        ramp = _f32(_f32(pair - _f32(low)) / width)
        kept = _f32(1 - min(max(ramp, 0.0), 1.0))  # share of the unstretched frequency
        stretched = _f32(_f32(1 / _f32(factor * wavelength)) * _f32(1 - kept))
        frequencies.append(stretched + _f32(_f32(1 / wavelength) * kept))
    return frequencies, _yarn_attention_factor(scaling)


def _yarn_range(rope: Rope) -> tuple[float, float]:
    """The pairs between which stretching sets in: those that turn beta_fast and beta_slow times."""
    scaling, size = rope.scaling, rope.rotary_dim

    def pair_that_turns(times: float) -> float:
        ratio = scaling.original_max_context / (times * 2 * math.pi)
        return size * math.log(ratio) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    return (low, high + 0.001) if low == high else (low, high)


def _yarn_attention_factor(scaling: RopeScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def magnitude(weight: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * weight * math.log(scaling.factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return magnitude(scaling.mscale) / magnitude(scaling.mscale_all_dim)
    return magnitude(1.0)


def _longrope(rope: Rope, context: int) -> tuple[Floats, float]:
    scaling = rope.scaling
    is_long = context > scaling.original_max_context
    factors = array("f", scaling.long_factor if is_long else scaling.short_factor)
    wavelengths = _wavelengths(rope.theta, rope.rotary_dim)
    stretched = array("f", [a * b for a, b in zip(factors, wavelengths, strict=True)])
    return _inverse(stretched), _longrope_attention_factor(scaling)


def _longrope_attention_factor(scaling: RopeScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_max_context))


_KINDS: dict[RopeScalingKind, Callable[[Rope, int], tuple[Floats, float]]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
