"""The rope keys of config.json, in all their spellings, as a Rope.

    rope_theta, rope_scaling: {type | rope_type, factor, ...}     transformers 4
    rope_parameters: {rope_type, rope_theta, ...}                 transformers 5

Follows transformers' modeling_rope_utils.py (RotaryEmbeddingConfigMixin).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from influence.models.config import Config
from influence.models.reading import MAX_POSITIONS, Sizes
from influence.models.spec import Rope, RopeScaling, RopeScalingKind


def read_rope(
    config: Config,
    sizes: Sizes,
    *,
    theta: float = 10_000.0,
    partial: float | None = None,
    interleaved: bool = False,
    theta_key: str = "rope_theta",
    partial_key: str = "partial_rotary_factor",
    original: int | None = None,
) -> Rope:
    """The rope of all layers, from `rope_scaling` or `rope_parameters` and the keys beside them.

    `theta` is what an absent key means; so is `partial`, the share of a head
    that turns, where None says that this family turns whole heads only.
    """
    section = config.section("rope_scaling") or config.section("rope_parameters")
    if section is None:
        section = Config({}, config.path, "rope_parameters.")
    default_theta = config.number(theta_key, theta, above=1)
    share = partial if partial is not None else 1.0
    share = config.number(partial_key, share, above=0, maximum=1)
    share = section.number("partial_rotary_factor", share, above=0, maximum=1)
    if partial is None and share != 1:
        raise config.unsupported(partial_key, share, "1.0 (whole heads)")
    rotary_dim = int(sizes.head_dim * share)
    return read_rope_section(
        section,
        rotary_dim=rotary_dim,
        interleaved=interleaved,
        theta=default_theta,
        max_context=sizes.max_context,
        original=config.optional_integer("original_max_position_embeddings", original, maximum=MAX_POSITIONS),
    )


def read_layered_rope(
    config: Config, sizes: Sizes, layer_type: str, theta_key: str, theta: float, scaling_key: str = ""
) -> Rope:
    """The rope of one layer type: `rope_parameters` holds an object for each, or the keys stand beside it."""
    sections = config.section("rope_parameters") or Config({}, config.path)
    section = sections.section(layer_type) or Config({}, config.path, f"rope_parameters.{layer_type}.")
    if scaling_key:
        section = config.section(scaling_key) or section
    if section.number("partial_rotary_factor", 1.0) != 1:
        raise section.unsupported("partial_rotary_factor", section.values["partial_rotary_factor"], "1.0")
    return read_rope_section(
        section,
        rotary_dim=sizes.head_dim,
        theta=config.number(theta_key, theta, above=1),
        max_context=sizes.max_context,
    )


def read_rope_section(
    section: Config,
    *,
    rotary_dim: int,
    theta: float,
    max_context: int,
    interleaved: bool = False,
    original: int | None = None,
) -> Rope:
    """One rope object. `original`: original_max_position_embeddings beside it, which wins over one inside."""
    if rotary_dim % 2 or rotary_dim == 0:
        raise section.invalid("rotary_dim", f"would be {rotary_dim}, but the part that turns must be even")
    theta = section.number("rope_theta", theta, above=1)
    scaling = _read_scaling(section, rotary_dim, max_context, original)
    return Rope(theta=theta, rotary_dim=rotary_dim, interleaved=interleaved, scaling=scaling)


_COMMON_KEYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "finetuned"}
_ORIGINAL = "original_max_position_embeddings"
_KIND_KEYS: dict[RopeScalingKind, set[str]] = {
    "default": {_ORIGINAL},
    "linear": {_ORIGINAL},
    "dynamic": {_ORIGINAL},
    "llama3": {_ORIGINAL, "low_freq_factor", "high_freq_factor"},
    "yarn": {_ORIGINAL, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
    "longrope": {_ORIGINAL, "attention_factor", "short_factor", "long_factor"},
}


def _read_kind(section: Config) -> RopeScalingKind:
    key = "rope_type" if "rope_type" in section else "type"
    name = section.text(key, "default")
    # Early Phi-3 files say "su", or "yarn" with factor lists, for what became longrope.
    if name == "su" or (name == "yarn" and "short_factor" in section):
        name = "longrope"
    for kind, keys in _KIND_KEYS.items():
        if name == kind:
            for other in section.values:
                if section.values[other] is not None and other not in _COMMON_KEYS | keys:
                    raise section.unsupported(other, section.values[other], f"none with rope type {name!r}")
            return kind
    raise section.unsupported(key, name, ", ".join(_KIND_KEYS))


def _read_scaling(section: Config, rotary_dim: int, max_context: int, original: int | None) -> RopeScaling:
    kind = _read_kind(section)
    if kind == "default":
        return RopeScaling()
    if kind == "linear":
        return RopeScaling(kind, factor=_read_factor(section))
    if kind == "dynamic":
        if rotary_dim == 2:
            raise section.invalid("rope_type", "dynamic needs more than two rotary dimensions")
        return RopeScaling(kind, factor=_read_factor(section), original_max_context=max_context)
    trained = (
        original or section.optional_integer(_ORIGINAL, max_context, maximum=MAX_POSITIONS) or max_context
    )
    if kind == "llama3":
        return _read_llama3(section, trained)
    if kind == "yarn":
        return _read_yarn(section, trained, max_context)
    return _read_longrope(section, rotary_dim, trained, max_context)


def _read_factor(section: Config, default: float | None = None) -> float:
    return section.number("factor", default, above=0, maximum=1e6)


def _read_llama3(section: Config, original: int) -> RopeScaling:
    low = section.number("low_freq_factor", above=0)
    return RopeScaling(
        "llama3",
        factor=_read_factor(section),
        original_max_context=original,
        low_freq_factor=low,
        high_freq_factor=section.number("high_freq_factor", above=low),
    )


def _read_yarn(section: Config, original: int, max_context: int) -> RopeScaling:
    slow = section.optional_number("beta_slow", minimum=0) or 1.0
    return RopeScaling(
        "yarn",
        factor=_read_optional_factor(section, max_context / original),
        original_max_context=original,
        beta_fast=section.optional_number("beta_fast", minimum=0) or 32.0,
        beta_slow=slow,
        mscale=section.optional_number("mscale") or 0.0,
        mscale_all_dim=section.optional_number("mscale_all_dim") or 0.0,
        truncate=section.flag("truncate", True),
        attention_factor=section.optional_number("attention_factor", minimum=0),
    )


def _read_longrope(section: Config, rotary_dim: int, original: int, max_context: int) -> RopeScaling:
    if original < 2:
        raise section.invalid(_ORIGINAL, f"is {original}, but must be at least 2")
    return RopeScaling(
        "longrope",
        factor=_read_optional_factor(section, max_context / original),
        original_max_context=original,
        attention_factor=section.optional_number("attention_factor", minimum=0),
        short_factor=_read_factors(section, "short_factor", rotary_dim // 2),
        long_factor=_read_factors(section, "long_factor", rotary_dim // 2),
    )


def _read_optional_factor(section: Config, implied: float) -> float:
    """The stretch; where the file does not state it, that of the context."""
    return _read_factor(section) if section.values.get("factor") is not None else implied


def _read_factors(section: Config, key: str, count: int) -> tuple[float, ...]:
    values: Sequence[Any] = section.sequence(key)
    if len(values) != count:
        raise section.invalid(key, f"has {len(values)} numbers, but {count} rotary pairs need one each")
    return tuple(Config({key: value}, section.path).number(key, above=0) for value in values)
