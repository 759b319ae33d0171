"""The rope keys of config.json, in all their spellings, as a Rope.

    rope_theta, rope_scaling: {type | rope_type, factor, ...}     transformers 4
    rope_parameters: {rope_type, rope_theta, ...}                 transformers 5

Follows transformers' modeling_rope_utils.py (RotaryEmbeddingConfigMixin).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from influence.dataclass import dataclass
from influence.errors import InvalidConfig
from influence.models.config import Config
from influence.models.reading import MAX_POSITIONS, Sizes
from influence.models.spec import Rope, RopeScaling, RopeScalingKind

MAX_THETA = 1e12


def read_rope(
    config: Config,
    sizes: Sizes,
    *,
    theta: float = 10_000.0,
    partial: float | None = None,
    interleaved: bool = False,
    theta_key: str = "rope_theta",
    partial_key: str = "partial_rotary_factor",
    original_context: int | None = None,
) -> Rope:
    """The rope of all layers, from `rope_scaling` or `rope_parameters` and the keys beside them.

    `theta` and `original_context` are what absent keys mean; so is `partial`,
    the share of a head that turns, where None says that this family turns
    whole heads only.
    """
    section = config.section("rope_scaling") or config.section("rope_parameters")
    if section is None:
        section = Config({}, config.path, "rope_parameters.")
    # `null`, which some files have, means what absence means.
    share = config.optional_number(partial_key, above=0, maximum=1) or partial or 1.0
    share = section.optional_number("partial_rotary_factor", share, above=0, maximum=1) or share
    if partial is None and share != 1:
        raise config.unsupported(partial_key, share, "1.0 (whole heads)")
    return _read_section(
        section,
        theta=config.number(theta_key, theta, above=1, maximum=MAX_THETA),
        rotary_dim=int(sizes.head_dim * share),
        interleaved=interleaved,
        contexts=_Contexts(
            sizes.max_context,
            original_context or sizes.max_context,
            config.optional_integer(_ORIGINAL, maximum=MAX_POSITIONS),
        ),
    )


def read_layered_ropes(config: Config, sizes: Sizes) -> tuple[Rope, Rope]:
    """The ropes of full and of sliding layers: an object for each in `rope_parameters`, or keys of their own."""
    config.require("partial_rotary_factor", 1.0)
    nested = config.section("rope_parameters") or Config({}, config.path)
    for key in nested.values:
        if key not in ("full_attention", "sliding_attention"):
            raise nested.unsupported(key, nested.values[key], "full_attention or sliding_attention")
    full = config.section("rope_scaling") or nested.section("full_attention")
    sliding = nested.section("sliding_attention")
    return (
        _read_layer_rope(config, sizes, full, "rope_theta", 1_000_000.0),
        _read_layer_rope(config, sizes, sliding, "rope_local_base_freq", 10_000.0),
    )


def _read_layer_rope(
    config: Config, sizes: Sizes, section: Config | None, theta_key: str, theta: float
) -> Rope:
    section = section or Config({}, config.path, "rope_parameters.")
    section.require("partial_rotary_factor", 1.0)
    return _read_section(
        section,
        theta=config.number(theta_key, theta, above=1, maximum=MAX_THETA),
        rotary_dim=sizes.head_dim,
        interleaved=False,
        contexts=_Contexts(sizes.max_context, sizes.max_context, None),
    )


@dataclass(frozen=True)
class _Contexts:
    """The lengths that a stretched rope is defined by."""

    maximum: int  # max_position_embeddings
    default_original: int  # trained on, if the file does not say
    original_beside: int | None  # trained on; wins over the same key inside the rope object

    def read_original(self, section: Config) -> int:
        inside = section.optional_integer(_ORIGINAL, self.default_original, maximum=MAX_POSITIONS)
        return self.original_beside or inside or self.default_original


def _read_section(
    section: Config, *, theta: float, rotary_dim: int, interleaved: bool, contexts: _Contexts
) -> Rope:
    """One rope object; `theta` stands beside it."""
    if rotary_dim % 2 or rotary_dim == 0:
        raise InvalidConfig(
            section.path, "head_dim", f"makes {rotary_dim} dimensions turn, which must be even and not 0"
        )
    theta = section.number("rope_theta", theta, above=1, maximum=MAX_THETA)
    scaling = _read_scaling(section, rotary_dim, contexts)
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


def _read_scaling(section: Config, rotary_dim: int, contexts: _Contexts) -> RopeScaling:
    kind = _read_kind(section)
    if kind == "default":
        return RopeScaling()
    if kind == "linear":
        return RopeScaling(kind, factor=_read_factor(section))
    if kind == "dynamic":
        if rotary_dim == 2:
            raise section.invalid("rope_type", "dynamic needs more than two rotary dimensions")
        return RopeScaling(kind, factor=_read_factor(section), original_max_context=contexts.maximum)
    original = contexts.read_original(section)
    if kind == "llama3":
        return _read_llama3(section, original)
    if kind == "yarn":
        return _read_yarn(section, original, contexts.maximum)
    return _read_longrope(section, rotary_dim, original, contexts.maximum)


def _read_factor(section: Config) -> float:
    return section.number("factor", minimum=1e-3, maximum=1e6)


def _read_llama3(section: Config, original: int) -> RopeScaling:
    low = section.number("low_freq_factor", minimum=1e-3, maximum=1e6)
    return RopeScaling(
        "llama3",
        factor=_read_factor(section),
        original_max_context=original,
        low_freq_factor=low,
        high_freq_factor=section.number("high_freq_factor", minimum=low + 1e-3, maximum=1e7),
    )


def _read_yarn(section: Config, original: int, max_context: int) -> RopeScaling:
    return RopeScaling(
        "yarn",
        factor=_read_optional_factor(section, max_context / original),
        original_max_context=original,
        beta_fast=section.optional_number("beta_fast", minimum=0) or 32.0,
        beta_slow=section.optional_number("beta_slow", minimum=0) or 1.0,
        mscale=section.optional_number("mscale", minimum=0, maximum=1e3) or 0.0,
        mscale_all_dim=section.optional_number("mscale_all_dim", minimum=0, maximum=1e3) or 0.0,
        truncate=section.flag("truncate", True),
        attention_factor=section.optional_number("attention_factor", minimum=0, maximum=1e6),
    )


def _read_longrope(section: Config, rotary_dim: int, original: int, max_context: int) -> RopeScaling:
    if original < 2:
        raise section.invalid(_ORIGINAL, f"is {original}, but must be at least 2")
    return RopeScaling(
        "longrope",
        factor=_read_optional_factor(section, max_context / original),
        original_max_context=original,
        attention_factor=section.optional_number("attention_factor", minimum=0, maximum=1e6),
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
    return tuple(
        Config({key: value}, section.path).number(key, minimum=1e-3, maximum=1e6) for value in values
    )
