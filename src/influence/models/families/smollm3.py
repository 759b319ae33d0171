"""SmolLM 3: Llama where every fourth layer has no rope."""

from dataclasses import replace

from influence.models.config import Config
from influence.models.layout import Architecture, biases, llama_layout
from influence.models.reading import Sizes, read_activation, read_eps, read_layer_types, read_windows
from influence.models.rope_config import read_rope


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=32768, n_kv_heads=4)
    has_rope = _read_has_rope(config, sizes.n_layers)
    spec = sizes.spec(
        norm="rms",
        norm_eps=read_eps(config, "rms_norm_eps", 1e-6),
        activation=read_activation(config, "silu"),
        gated_mlp=True,
        rope=read_rope(config, sizes, theta=2_000_000.0),
        windows=_read_windows(config, has_rope),
    )
    layout = llama_layout(
        tied=config.flag("tie_word_embeddings", True),
        biases=biases(
            attention=config.flag("attention_bias", False),
            mlp=config.flag("mlp_bias", False),
        ),
    )
    layer_rope = tuple(0 if turns else None for turns in has_rope)
    return Architecture(replace(spec, layer_rope=layer_rope), layout)


def _read_has_rope(config: Config, n_layers: int) -> list[bool]:
    """Which layers turn: where `no_rope_layers`, in spite of its name, has a 1."""
    if config.values.get("no_rope_layers") is None:
        interval = config.integer("no_rope_layer_interval", 4)
        return [(layer + 1) % interval != 0 for layer in range(n_layers)]
    flags = config.sequence("no_rope_layers")
    if len(flags) < n_layers or any(flag not in (0, 1) for flag in flags):
        raise config.invalid("no_rope_layers", f"must hold a 0 or 1 for each of the {n_layers} layers")
    return [flag == 1 for flag in flags[:n_layers]]


def _read_windows(config: Config, has_rope: list[bool]) -> tuple[int | None, ...]:
    """Windows, if switched on, stand by default on the layers without rope."""
    if not config.flag("use_sliding_window", False):
        return (None,) * len(has_rope)
    has_window = config.optional_integer("sliding_window") is not None
    by_default = ["sliding_attention" if has_window and not turns else "full_attention" for turns in has_rope]
    return read_windows(config, read_layer_types(config, len(has_rope), by_default))
