"""Phi 1, 1.5 and 2: one norm feeds attention and a plain MLP side by side; biases everywhere."""

from dataclasses import replace

from influence.models.config import Config
from influence.models.layout import Architecture, Layout, biases
from influence.models.reading import Sizes, read_activation, read_eps
from influence.models.rope_config import read_rope


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=2048)
    has_qk_norm = config.flag("qk_layernorm", False)
    spec = sizes.spec(
        norm="layer",
        norm_eps=read_eps(config, "layer_norm_eps", 1e-5),
        activation=read_activation(config, "gelu_new"),
        gated_mlp=False,
        rope=read_rope(config, sizes, partial=0.5),
    )
    spec = replace(spec, parallel_block=True, qk_norm="head" if has_qk_norm else "none")
    qk_norms = {"q_norm": "self_attn.q_layernorm", "k_norm": "self_attn.k_layernorm"} if has_qk_norm else {}
    layout = Layout(
        outer={"embed": "embed_tokens", "final_norm": "final_layernorm"},
        layer={
            "attn_norm": "input_layernorm",
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.dense",
            **qk_norms,
            "up": "mlp.fc1",
            "down": "mlp.fc2",
        },
        tied=config.flag("tie_word_embeddings", False),
        biases=biases(attention=True, plain_mlp=True) | {"attn_norm", "final_norm", "lm_head", *qk_norms},
    )
    return Architecture(spec, layout)
