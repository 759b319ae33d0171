"""StarCoder 2: layer norms, a plain MLP, biases, and often a window on all layers."""

from influence.models.config import Config
from influence.models.layout import LLAMA_ATTENTION, LLAMA_NORMS, LLAMA_OUTER, Architecture, Layout, biases
from influence.models.reading import Sizes, read_activation, read_eps, read_uniform_windows
from influence.models.rope_config import read_rope


def read(config: Config) -> Architecture:
    sizes = Sizes.read(config, max_context=4096, n_kv_heads=2)
    has_bias = config.flag("use_bias", True)
    spec = sizes.spec(
        norm="layer",
        norm_eps=read_eps(config, "norm_epsilon", 1e-5),
        activation=read_activation(config, "gelu_pytorch_tanh"),
        gated_mlp=False,
        rope=read_rope(config, sizes),
        windows=read_uniform_windows(config, sizes.n_layers, None),
    )
    layout = Layout(
        outer=LLAMA_OUTER,
        layer={**LLAMA_NORMS, **LLAMA_ATTENTION, "up": "mlp.c_fc", "down": "mlp.c_proj"},
        tied=config.flag("tie_word_embeddings", True),
        biases=biases(attention=has_bias, plain_mlp=has_bias) | {"final_norm", *LLAMA_NORMS},
    )
    return Architecture(spec, layout)
