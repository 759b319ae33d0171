"""Qwen 2 and 2.5: Llama with biases on q, k, v, and windows on late layers if switched on."""

from influence.models.config import Config
from influence.models.layout import Architecture, biases, llama_layout
from influence.models.reading import Sizes, read_activation, read_eps, read_late_windows
from influence.models.rope_config import read_rope


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=32768, n_kv_heads=32)
    spec = sizes.spec(
        norm="rms",
        norm_eps=read_eps(config, "rms_norm_eps", 1e-6),
        activation=read_activation(config, "silu"),
        gated_mlp=True,
        rope=read_rope(config, sizes),
        windows=read_late_windows(config, sizes.n_layers),
    )
    layout = llama_layout(tied=config.flag("tie_word_embeddings", False), biases=biases(qkv=True))
    return Architecture(spec, layout)
