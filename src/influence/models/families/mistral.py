"""Mistral 7B, Nemo, Small (text): Llama with a window on all layers, or none."""

from influence.models.config import Config
from influence.models.layout import Architecture, llama_layout
from influence.models.reading import Sizes, read_activation, read_eps, read_uniform_windows
from influence.models.rope_config import read_rope


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=131_072, n_kv_heads=8)
    spec = sizes.spec(
        norm="rms",
        norm_eps=read_eps(config, "rms_norm_eps", 1e-6),
        activation=read_activation(config, "silu"),
        gated_mlp=True,
        rope=read_rope(config, sizes),
        windows=read_uniform_windows(config, sizes.n_layers, 4096),
    )
    return Architecture(spec, llama_layout(tied=config.flag("tie_word_embeddings", False)))
