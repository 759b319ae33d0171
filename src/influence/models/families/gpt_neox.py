"""GPT-NeoX and Pythia: layer norms, a plain MLP beside attention, q, k, v of each head in one tensor."""

from dataclasses import replace

from influence.models.config import Config
from influence.models.layout import LLAMA_NORMS, Architecture, Layout, Part, biases
from influence.models.reading import Sizes, read_activation, read_eps
from influence.models.rope_config import read_rope

_QKV = Part("attention.query_key_value", ("q", "k", "v"), by_head=True)


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=2048)
    config.require("num_key_value_heads", sizes.n_heads)
    spec = sizes.spec(
        norm="layer",
        norm_eps=read_eps(config, "layer_norm_eps", 1e-5),
        activation=read_activation(config, "gelu"),
        gated_mlp=False,
        rope=read_rope(config, sizes, partial=0.25, theta_key="rotary_emb_base", partial_key="rotary_pct"),
    )
    layout = Layout(
        outer={"embed": "embed_in", "final_norm": "final_layer_norm"},
        layer={
            **LLAMA_NORMS,
            "q": _QKV,
            "k": _QKV,
            "v": _QKV,
            "o": "attention.dense",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
        tied=config.flag("tie_word_embeddings", False),
        biases=biases(attention=config.flag("attention_bias", True), plain_mlp=True)
        | {"final_norm", *LLAMA_NORMS},
        base="gpt_neox.",
        head=("embed_out", "lm_head"),
        # Causal masks that old transformers saved as buffers.
        ignored=(".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
    )
    return Architecture(replace(spec, parallel_block=config.flag("use_parallel_residual", True)), layout)
