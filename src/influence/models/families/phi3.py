"""Phi 3, 3.5 and 4 (also mini): Llama with q, k, v in one tensor, gate and up in another; longrope."""

from influence.models.config import Config
from influence.models.layout import LLAMA_NORMS, LLAMA_OUTER, Architecture, Layout, Part
from influence.models.reading import Sizes, read_activation, read_eps, read_uniform_windows
from influence.models.rope_config import read_rope

_QKV = Part("self_attn.qkv_proj", ("q", "k", "v"))
_GATE_UP = Part("mlp.gate_up_proj", ("gate", "up"))


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=4096)
    spec = sizes.spec(
        norm="rms",
        norm_eps=read_eps(config, "rms_norm_eps", 1e-5),
        activation=read_activation(config, "silu"),
        gated_mlp=True,
        rope=read_rope(config, sizes, partial=1.0, original_context=4096),
        windows=read_uniform_windows(config, sizes.n_layers, None),
    )
    layout = Layout(
        outer=LLAMA_OUTER,
        layer={
            **LLAMA_NORMS,
            "q": _QKV,
            "k": _QKV,
            "v": _QKV,
            "o": "self_attn.o_proj",
            "gate": _GATE_UP,
            "up": _GATE_UP,
            "down": "mlp.down_proj",
        },
        tied=config.flag("tie_word_embeddings", False),
    )
    return Architecture(spec, layout)
