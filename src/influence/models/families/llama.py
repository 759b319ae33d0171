"""Llama 1 to 3.3, and all that share the type: TinyLlama, SmolLM 1 and 2, Yi, DeepSeek dense."""

from influence.models.config import Config
from influence.models.layout import Architecture, biases, llama_layout
from influence.models.reading import Sizes, read_activation, read_eps
from influence.models.rope_config import read_rope


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=2048)
    spec = sizes.spec(
        norm="rms",
        norm_eps=read_eps(config, "rms_norm_eps", 1e-6),
        activation=read_activation(config, "silu"),
        gated_mlp=True,
        rope=read_rope(config, sizes),
    )
    layout = llama_layout(
        tied=config.flag("tie_word_embeddings", False),
        biases=biases(
            attention=config.flag("attention_bias", False),
            mlp=config.flag("mlp_bias", False),
        ),
    )
    return Architecture(spec, layout)
