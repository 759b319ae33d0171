"""Gemma 3, text only (1B, 270M): Gemma 2 with a norm on each head of q and k, and two ropes.

Five layers of six see a window and turn by their own rope; only the rope of
the full layers is stretched.
"""

from dataclasses import replace

from influence.models.config import Config
from influence.models.layout import POST_NORMS, QK_NORMS, Architecture, biases, llama_layout
from influence.models.reading import Sizes, read_activation, read_eps, read_layer_types, read_windows
from influence.models.rope_config import read_layered_ropes


def read(config: Config) -> Architecture:
    config.require("use_bidirectional_attention", False)
    config.require("attn_logit_softcapping", None)  # read by transformers, but not applied
    sizes = Sizes.read(config, max_context=131_072, n_kv_heads=4, head_dim=256)
    period = config.integer("sliding_window_pattern", 6)
    by_period = [
        "sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(sizes.n_layers)
    ]
    layer_types = read_layer_types(config, sizes.n_layers, by_period)
    full, sliding = read_layered_ropes(config, sizes)
    spec = sizes.spec(
        norm="rms",
        norm_eps=read_eps(config, "rms_norm_eps", 1e-6),
        activation=read_activation(config, "gelu_pytorch_tanh", key="hidden_activation"),
        gated_mlp=True,
        rope=full,
        windows=read_windows(config, layer_types, 4096),
    )
    spec = replace(
        spec,
        ropes=(full, sliding),
        layer_rope=tuple(int(kind == "sliding_attention") for kind in layer_types),
        norm_offset=1.0,
        qk_norm="head",
        embedding_scale=sizes.hidden_size**0.5,
        attention_scale=config.number("query_pre_attn_scalar", 256, minimum=1e-6) ** -0.5,
        logit_softcap=config.optional_number("final_logit_softcapping", minimum=1e-6),
    )
    layout = llama_layout(
        tied=config.flag("tie_word_embeddings", True),
        norms=POST_NORMS,
        qk_norms=QK_NORMS,
        biases=biases(attention=config.flag("attention_bias", False)),
    )
    return Architecture(spec, layout)
