"""OLMo 2: Llama with norms after each half instead of before, and over all of q and k."""

from dataclasses import replace

from influence.models.config import Config
from influence.models.layout import QK_NORMS, Architecture, biases, llama_layout
from influence.models.reading import Sizes, read_activation, read_eps
from influence.models.rope_config import read_rope

_NORMS = {"attn_post_norm": "post_attention_layernorm", "ffn_post_norm": "post_feedforward_layernorm"}


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=2048)
    spec = sizes.spec(
        norm="rms",
        norm_eps=read_eps(config, "rms_norm_eps", 1e-5),
        activation=read_activation(config, "silu"),
        gated_mlp=True,
        rope=read_rope(config, sizes),
    )
    layout = llama_layout(
        tied=config.flag("tie_word_embeddings", False),
        norms=_NORMS,
        qk_norms=QK_NORMS,
        biases=biases(attention=config.flag("attention_bias", False)),
    )
    return Architecture(replace(spec, qk_norm="full"), layout)
