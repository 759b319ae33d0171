"""StableLM 2 and 3B: Llama with layer norms, a quarter of each head turning, and options for all else."""

from dataclasses import replace

from influence.models.config import Config
from influence.models.layout import LLAMA_NORMS, Architecture, PerHead, biases, llama_layout
from influence.models.reading import Sizes, read_activation, read_eps
from influence.models.rope_config import read_rope

_QK_NORMS = {
    "q_norm": PerHead("self_attn.q_layernorm.norms.{}"),
    "k_norm": PerHead("self_attn.k_layernorm.norms.{}"),
}


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=4096, n_kv_heads=32)
    has_qk_norm = config.flag("qk_layernorm", False)
    is_parallel = config.flag("use_parallel_residual", False)
    spec = sizes.spec(
        norm="layer",
        norm_eps=read_eps(config, "layer_norm_eps", 1e-5),
        activation=read_activation(config, "silu"),
        gated_mlp=True,
        rope=read_rope(config, sizes, partial=0.25),
    )
    spec = replace(spec, parallel_block=is_parallel, qk_norm="head" if has_qk_norm else "none")
    # A parallel block has one norm, which feeds both halves.
    norms = {"attn_norm": LLAMA_NORMS["attn_norm"]} if is_parallel else LLAMA_NORMS
    layout = llama_layout(
        tied=config.flag("tie_word_embeddings", False),
        norms=norms,
        qk_norms=_QK_NORMS if has_qk_norm else None,
        biases=biases(qkv=config.flag("use_qkv_bias", False)) | {"final_norm", *norms},
    )
    return Architecture(spec, layout)
