"""Rotary frequencies of a ModelSpec, as transformers' modeling_rope_utils.py computes them.

All of it in float32, because trained models saw those roundings. Stretched
ropes: linear (kaiokendev), dynamic NTK (bloc97, emozilla), YaRN (Peng et al.,
arXiv 2309.00071), LongRoPE (Ding et al., arXiv 2402.13753), Llama 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from influence.models.spec import Rope, RopeScaling, RopeScalingKind

Floats = npt.NDArray[np.float32]


def rope_frequencies(rope: Rope, context: int) -> tuple[Floats, float]:
    """Inverse frequencies (rotary_dim / 2,) and the factor that cos and sin are multiplied by.

    `context` is the session's: dynamic and longrope choose by it, once, what
    transformers chooses anew for every length, so that a cached key never
    disagrees with a later query.
    """
    return _KINDS[rope.scaling.kind](rope, context)


def _wavelengths(theta: float | np.float32, rotary_dim: int) -> Floats:
    """theta ** (2 i / rotary_dim), the wavelengths over 2 pi."""
    exponents = np.arange(0, rotary_dim, 2, dtype=np.float32) / np.float32(rotary_dim)
    wavelengths: Floats = np.power(np.float32(theta), exponents)
    return wavelengths


def _default(rope: Rope, context: int) -> tuple[Floats, float]:
    return np.float32(1) / _wavelengths(rope.theta, rope.rotary_dim), 1.0


def _linear(rope: Rope, context: int) -> tuple[Floats, float]:
    frequencies, _ = _default(rope, context)
    return frequencies / np.float32(rope.scaling.factor), 1.0


def _dynamic(rope: Rope, context: int) -> tuple[Floats, float]:
    factor, original = rope.scaling.factor, rope.scaling.original_max_context
    stretch = factor * max(context, original) / original - (factor - 1)
    theta = rope.theta * stretch ** (rope.rotary_dim / (rope.rotary_dim - 2))
    return np.float32(1) / _wavelengths(theta, rope.rotary_dim), 1.0


def _llama3(rope: Rope, context: int) -> tuple[Floats, float]:
    scaling = rope.scaling
    frequencies, _ = _default(rope, context)
    wavelengths = np.float32(2 * math.pi) / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = np.float32(scaling.original_max_context) / wavelengths  # over the trained context
    smooth = (turns - np.float32(low)) / np.float32(high - low)
    slowed = frequencies / np.float32(scaling.factor)
    between = (1 - smooth) * slowed + smooth * frequencies
    is_long = wavelengths > np.float32(scaling.original_max_context / low)
    is_short = wavelengths < np.float32(scaling.original_max_context / high)
    return np.where(is_long, slowed, np.where(is_short, frequencies, between)), 1.0


def _yarn(rope: Rope, context: int) -> tuple[Floats, float]:
    scaling = rope.scaling
    wavelengths = _wavelengths(rope.theta, rope.rotary_dim)
    low, high = _yarn_range(rope)
    ramp = (np.arange(rope.rotary_dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = 1 - np.clip(ramp, 0, 1)  # share of the unstretched frequency
    frequencies = 1 / (np.float32(scaling.factor) * wavelengths) * (1 - kept) + 1 / wavelengths * kept
    return frequencies.astype(np.float32), _yarn_attention_factor(scaling)


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
    factors = np.array(scaling.long_factor if is_long else scaling.short_factor, dtype=np.float32)
    return np.float32(1) / (factors * _wavelengths(rope.theta, rope.rotary_dim)), (
        _longrope_attention_factor(scaling)
    )


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
