"""Gemma 2: Gemma with norms after each half too, soft-caps, and a window on every other layer."""

from dataclasses import replace

from influence.models.config import Config
from influence.models.layout import POST_NORMS, Architecture, biases, llama_layout
from influence.models.reading import Sizes, read_activation, read_eps, read_layer_types, read_windows
from influence.models.rope_config import read_rope


def read(config: Config) -> Architecture:
    config.require("use_bidirectional_attention", False)
    sizes = Sizes.read(config, max_context=8192, n_kv_heads=4, head_dim=256)
    alternating = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(sizes.n_layers)]
    spec = sizes.spec(
        norm="rms",
        norm_eps=read_eps(config, "rms_norm_eps", 1e-6),
        activation=read_activation(config, "gelu_pytorch_tanh", key="hidden_activation"),
        gated_mlp=True,
        rope=read_rope(config, sizes),
        windows=read_windows(config, read_layer_types(config, sizes.n_layers, alternating), 4096),
    )
    spec = replace(
        spec,
        norm_offset=1.0,
        embedding_scale=sizes.hidden_size**0.5,
        attention_scale=config.number("query_pre_attn_scalar", 256, minimum=1e-6) ** -0.5,
        attention_softcap=config.optional_number("attn_logit_softcapping", 50.0, minimum=1e-6),
        logit_softcap=config.optional_number("final_logit_softcapping", 30.0, minimum=1e-6),
    )
    layout = llama_layout(
        tied=config.flag("tie_word_embeddings", True),
        norms=POST_NORMS,
        biases=biases(attention=config.flag("attention_bias", False)),
    )
    return Architecture(spec, layout)
