"""Tiny models of every family: the configs that engine tests walk, as plain data.

Each family has at least two, one of them with grouped queries and sizes that
no vector width divides. Between them they cover every field of ModelSpec, both
spellings of the rope keys, windows shorter than the prompt, and prompts longer
than the trained context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """A tiny model and a prompt length to run it at."""

    name: str
    config: Mapping[str, Any]  # its config.json
    n_tokens: int = 80  # prompt; longer than one block of the KV cache
    seed: int = field(default=1, compare=False)

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])

    @property
    def vocab_size(self) -> int:
        return int(self.config["vocab_size"])

    @property
    def context(self) -> int:
        """The session's: as long as the prompt, so that stretched ropes take the regime that transformers takes."""
        return self.n_tokens

    def token_ids(self) -> list[int]:
        """The prompt, fixed."""
        return [(7 + 31 * i + i * i) % self.vocab_size for i in range(self.n_tokens)]


def _case(name: str, model_type: str, *, n_tokens: int = 80, **config: Any) -> Case:
    even = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
        # transformers checks that these lie in the vocabulary.
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    return Case(name, {"model_type": model_type, **even, **config}, n_tokens)


_ODD: Mapping[str, Any] = {
    "vocab_size": 131,
    "hidden_size": 60,
    "intermediate_size": 77,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}

FAMILIES: list[Case] = [
    _case("llama", "llama", tie_word_embeddings=False),
    _case(
        "llama-llama3-odd",
        "llama",
        **_ODD,
        n_tokens=90,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
        rms_norm_eps=1e-3,
        rope_theta=500.0,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    _case(
        "llama-linear-head-dim",
        "llama",
        **{**_ODD, "hidden_size": 35, "num_attention_heads": 5, "num_key_value_heads": 1},
        head_dim=14,
        hidden_act="relu",
        rope_scaling={"type": "linear", "factor": 4.0},
    ),
    _case(
        "llama-dynamic",
        "llama",
        n_tokens=60,
        max_position_embeddings=32,
        rope_scaling={"type": "dynamic", "factor": 2.5},
    ),
    _case(
        "llama-yarn",
        "llama",
        **_ODD,
        max_position_embeddings=128,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
        },
    ),
    _case("mistral-window", "mistral", sliding_window=16, tie_word_embeddings=False),
    _case(
        "mistral-head-dim-odd",
        "mistral",
        **{**_ODD, "hidden_size": 45, "num_attention_heads": 9, "num_key_value_heads": 3},
        head_dim=6,
        sliding_window=None,
        rope_theta=1e6,
    ),
    _case("phi", "phi", partial_rotary_factor=0.5, tie_word_embeddings=False),
    _case(
        "phi-qk-norm-odd", "phi", **_ODD, qk_layernorm=True, partial_rotary_factor=0.4, layer_norm_eps=1e-3
    ),
    _case("phi3-window", "phi3", sliding_window=20, original_max_position_embeddings=256),
    _case(
        "phi3-longrope-long-odd",
        "phi3",
        **{**_ODD, "hidden_size": 96},
        max_position_embeddings=128,
        original_max_position_embeddings=32,
        partial_rotary_factor=0.75,
        tie_word_embeddings=True,
        rope_scaling={
            "type": "longrope",
            "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0],
        },
    ),
    _case(
        "phi3-longrope-short",
        "phi3",
        n_tokens=32,
        max_position_embeddings=128,
        original_max_position_embeddings=32,
        rope_scaling={
            "type": "longrope",
            "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
            "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
        },
    ),
    _case(
        "granite",
        "granite",
        embedding_multiplier=12.0,
        residual_multiplier=0.22,
        attention_multiplier=0.0625,
        logits_scaling=4.0,
        tie_word_embeddings=True,
    ),
    _case(
        "granite-odd",
        "granite",
        **_ODD,
        attention_bias=True,
        mlp_bias=True,
        embedding_multiplier=3,
        residual_multiplier=0.5,
        attention_multiplier=0.3,
        logits_scaling=0.5,
        tie_word_embeddings=False,
    ),
    _case("qwen2", "qwen2", tie_word_embeddings=True),
    _case(
        "qwen2-window-yarn-odd",
        "qwen2",
        **_ODD,
        use_sliding_window=True,
        sliding_window=13,
        max_window_layers=1,
        max_position_embeddings=64,
        rope_scaling={
            "type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 64,
            "mscale": 0.7,
            "mscale_all_dim": 0.4,
            "truncate": False,
        },
        rope_theta=1000.0,
    ),
    _case("qwen3", "qwen3", head_dim=24, tie_word_embeddings=True),
    _case(
        "qwen3-layer-types-odd",
        "qwen3",
        **_ODD,
        head_dim=14,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=11,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    ),
    _case("gemma", "gemma", head_dim=20, hidden_act="gelu"),
    _case(
        "gemma-odd",
        "gemma",
        **{**_ODD, "num_key_value_heads": 1},
        head_dim=18,
        attention_bias=True,
        hidden_act="gelu_pytorch_tanh",
        tie_word_embeddings=False,
    ),
    _case(
        "gemma2",
        "gemma2",
        head_dim=16,
        sliding_window=9,
        query_pre_attn_scalar=20,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
        hidden_activation="gelu_pytorch_tanh",
    ),
    _case(
        "gemma2-odd",
        "gemma2",
        **_ODD,
        head_dim=14,
        sliding_window=12,
        layer_types=["full_attention", "full_attention", "sliding_attention"],
        query_pre_attn_scalar=10,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        rope_theta=700.0,
    ),
    _case(
        "gemma3",
        "gemma3_text",
        num_hidden_layers=4,
        head_dim=16,
        sliding_window=9,
        sliding_window_pattern=3,
        query_pre_attn_scalar=16,
        rope_theta=1e6,
        rope_local_base_freq=100.0,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    ),
    _case(
        "gemma3-layer-types-odd",
        "gemma3_text",
        **_ODD,
        head_dim=18,
        sliding_window=11,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        query_pre_attn_scalar=12,
        final_logit_softcapping=4.0,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 50_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    ),
    _case("stablelm", "stablelm", use_qkv_bias=True, partial_rotary_factor=0.25, tie_word_embeddings=False),
    _case(
        "stablelm-parallel-qk-norm-odd",
        "stablelm",
        **_ODD,
        qk_layernorm=True,
        use_parallel_residual=True,
        partial_rotary_factor=0.6,
        tie_word_embeddings=True,
    ),
    _case("olmo2", "olmo2", tie_word_embeddings=False),
    _case("olmo2-odd", "olmo2", **_ODD, attention_bias=True, rope_theta=500.0),
    _case("cohere", "cohere", logit_scale=0.25, rope_theta=10_000.0),
    _case(
        "cohere-qk-norm-odd",
        "cohere",
        **_ODD,
        use_qk_norm=True,
        attention_bias=True,
        logit_scale=2.0,
        tie_word_embeddings=False,
    ),
    _case("starcoder2", "starcoder2", sliding_window=17, use_bias=True),
    _case("starcoder2-odd", "starcoder2", **_ODD, use_bias=False, tie_word_embeddings=False),
    _case("gpt-neox", "gpt_neox", rotary_pct=0.25, hidden_act="gelu", tie_word_embeddings=False),
    _case(
        "gpt-neox-sequential-odd",
        "gpt_neox",
        **{**_ODD, "num_key_value_heads": 6},
        rotary_pct=0.4,
        rotary_emb_base=1000,
        use_parallel_residual=False,
        attention_bias=False,
        hidden_act="gelu_new",
    ),
    _case("smollm3", "smollm3", num_hidden_layers=4),
    _case(
        "smollm3-window-odd",
        "smollm3",
        **_ODD,
        no_rope_layers=[1, 0, 1],
        use_sliding_window=True,
        sliding_window=14,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=False,
    ),
]

BY_NAME: Mapping[str, Case] = {case.name: case for case in FAMILIES}
