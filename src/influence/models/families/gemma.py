"""Gemma 1: Llama with scaled embeddings and norms that multiply by 1 + weight."""

from dataclasses import replace

from influence.models.config import Config
from influence.models.layout import Architecture, biases, llama_layout
from influence.models.reading import Sizes, read_activation, read_eps
from influence.models.rope_config import read_rope


def read(config: Config) -> Architecture:
    config.require("use_bidirectional_attention", False)
    sizes = Sizes.read(config, max_context=8192, n_kv_heads=16, head_dim=256)
    activation = read_activation(config, "gelu_pytorch_tanh")
    spec = sizes.spec(
        norm="rms",
        norm_eps=read_eps(config, "rms_norm_eps", 1e-6),
        # The first official files say "gelu" and mean its tanh approximation.
        activation="gelu_tanh" if activation == "gelu" else activation,
        gated_mlp=True,
        rope=read_rope(config, sizes),
    )
    layout = llama_layout(
        tied=config.flag("tie_word_embeddings", True),
        biases=biases(attention=config.flag("attention_bias", False)),
    )
    return Architecture(replace(spec, norm_offset=1.0, embedding_scale=sizes.hidden_size**0.5), layout)
