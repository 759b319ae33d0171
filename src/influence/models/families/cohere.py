"""Command R and Aya (Cohere 1): one layer norm feeds attention and MLP side by side; rope turns neighbours."""

from dataclasses import replace

from influence.models.config import Config
from influence.models.layout import Architecture, PerHead, biases, llama_layout
from influence.models.reading import Sizes, read_activation, read_eps
from influence.models.rope_config import read_rope

_QK_NORMS = {"q_norm": PerHead("self_attn.q_norm"), "k_norm": PerHead("self_attn.k_norm")}


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=8192)
    has_qk_norm = config.flag("use_qk_norm", False)
    spec = sizes.spec(
        norm="layer",
        norm_eps=read_eps(config, "layer_norm_eps", 1e-5),
        activation=read_activation(config, "silu"),
        gated_mlp=True,
        rope=read_rope(config, sizes, theta=500_000.0, interleaved=True),
    )
    spec = replace(
        spec,
        parallel_block=True,
        qk_norm="head" if has_qk_norm else "none",
        logit_scale=config.number("logit_scale", 0.0625),
    )
    layout = llama_layout(
        tied=config.flag("tie_word_embeddings", True),
        norms={"attn_norm": "input_layernorm"},
        qk_norms=_QK_NORMS if has_qk_norm else None,
        biases=biases(attention=config.flag("attention_bias", False)),
    )
    return Architecture(spec, layout)
