"""Granite 3 (dense): Llama with four multipliers."""

from dataclasses import replace

from influence.models.config import Config
from influence.models.families import llama
from influence.models.layout import Architecture


def read(config: Config) -> Architecture:
    like_llama = llama.read(config)
    spec = replace(
        like_llama.spec,
        embedding_scale=config.number("embedding_multiplier", 1.0),
        residual_scale=config.number("residual_multiplier", 1.0),
        attention_scale=config.number("attention_multiplier", 1.0),
        logit_scale=1 / config.number("logits_scaling", 1.0, minimum=1e-6),
    )
    return Architecture(spec, like_llama.layout)
