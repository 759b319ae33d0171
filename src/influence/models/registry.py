"""model_type -> family; and why a type that is none of them is refused."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module

from influence.dataclass import dataclass
from influence.errors import InvalidConfig, UnsupportedModel
from influence.models.config import Config
from influence.models.layout import Architecture
from influence.models.reading import require_layer_types

Family = Callable[[Config], Architecture]

# Each is a module of `families`, imported when a model is of it.
FAMILIES = (
    "cohere",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt_neox",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
    "stablelm",
    "starcoder2",
)


@dataclass(frozen=True)
class Refusal:
    """A kind of model that no engine here runs, and what to use in its place."""

    kind: str  # in a few words
    reason: str
    instead: str
    model_types: frozenset[str]


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


REFUSALS = (
    Refusal(
        "a state space model",
        "state space and hybrid models keep a recurrent state, which this engine does not compute",
        "a transformer of that size, such as ibm-granite/granite-3.3-2b-instruct or Qwen/Qwen3-0.6B",
        _types(
            "mamba mamba2 falcon_mamba jamba bamba falcon_h1 granitemoehybrid nemotron_h zamba zamba2 rwkv rwkv7 "
            "recurrent_gemma qwen3_next qwen3_5 lfm2 xlstm minimax kimi_linear olmo_hybrid plamo2"
        ),
    ),
    Refusal(
        "a mixture of experts",
        "mixture-of-experts models route tokens between experts, which this engine does not do",
        "a dense model of the same maker, such as mistralai/Mistral-7B-v0.1 or Qwen/Qwen3-4B",
        _types(
            "mixtral qwen2_moe qwen3_moe gpt_oss deepseek deepseek_v2 deepseek_v3 deepseek_v32 kimi_k2 olmoe flex_olmo "
            "phimoe granitemoe granitemoeshared jetmoe dbrx arctic grok-1 ernie4_5_moe glm4_moe hunyuan_v1_moe dots1 "
            "afmoe lfm2_moe minimax_m2 llama4 llama4_text switch_transformers nllb-moe"
        ),
    ),
    Refusal(
        "encoder only",
        "encoder-only models give vectors or labels, they do not write text",
        "a language model, such as HuggingFaceTB/SmolLM2-135M-Instruct",
        _types(
            "albert bert camembert convbert deberta deberta-v2 distilbert electra ernie esm eurobert funnel ibert "
            "layoutlm longformer luke megatron-bert mobilebert modernbert mpnet nomic_bert roberta roberta-prelayernorm "
            "roformer squeezebert xlm-roberta xlm-roberta-xl xlnet"
        ),
    ),
    Refusal(
        "an encoder-decoder",
        "encoder-decoder models read their input with a second network, which this engine does not have",
        "a decoder-only model, such as HuggingFaceTB/SmolLM2-1.7B-Instruct",
        _types(
            "bart bigbird_pegasus blenderbot blenderbot-small encoder-decoder fsmt led longt5 m2m_100 marian mbart mt5 "
            "mvp pegasus pegasus_x prophetnet seamless_m4t speech_to_text t5 t5gemma t5gemma2 udop umt5 whisper"
        ),
    ),
    Refusal(
        "it sees or hears",
        "models that see or hear have a second network for images or sound, which this engine does not run",
        "the text model of the same family, such as google/gemma-3-1b-it or Qwen/Qwen2.5-3B-Instruct",
        _types(
            "aria aya_vision blip blip-2 chameleon clip cohere2_vision florence2 fuyu gemma3 gemma3n gemma4 glm4v "
            "granite_speech idefics idefics2 idefics3 instructblip internvl internvl_chat janus kosmos-2 lfm2_vl llava "
            "llava_next llava_onevision mistral3 mllama molmo paligemma phi3_v phi4_multimodal phi4mm pixtral "
            "qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_vl qwen3_omni_moe qwen3_vl qwen3_vl_moe siglip smolvlm "
            "video_llava vipllava vit voxtral wav2vec2"
        ),
    ),
)

_QUANTISED = "quantised weights ({method}) can't be read here"
_QUANTISED_HINT = "use the model that it was made from, in bfloat16 or float16"
# Endings of architectures that have something else in place of the head that writes text.
NO_HEAD = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "RewardModel")


def read_architecture(config: Config) -> Architecture:
    """The ModelSpec and tensor names of the model that this config.json describes.

    Raises UnsupportedModel, with the reason and an alternative, for a kind that
    is not run here; InvalidConfig for values that can't be.
    """
    architecture = family_of(config)(config)
    require_layer_types(config, architecture.spec.layer_window)
    return architecture


def family_of(config: Config) -> Family:
    """The family by `model_type`; raises UnsupportedModel or, where there is no model_type, InvalidConfig."""
    model_type = _model_type(config)
    refusal = refusal_of(model_type)
    if refusal is not None:
        raise _refused(config, f"{model_type}: {refusal.reason}", refusal.instead)
    if model_type not in FAMILIES:
        raise _unknown(config, model_type)
    _refuse_quantised(config)
    _refuse_unlike_its_type(config, model_type)
    family: Family = import_module(f"influence.models.families.{model_type}").read
    return family


def refusal_of(model_type: str) -> Refusal | None:
    """Why a known kind is not run here; None for one that is run, or not known."""
    return next((refusal for refusal in REFUSALS if model_type in refusal.model_types), None)


def _model_type(config: Config) -> str:
    if "model_type" not in config:
        raise InvalidConfig(
            config.path,
            "model_type",
            "is missing, so it is not known how to run this model",
            hint="the folder may not hold a language model; download the model again",
        )
    return config.text("model_type")


def _refused(config: Config, reason: str, instead: str) -> UnsupportedModel:
    return UnsupportedModel(config.path, reason, hint=f"use {instead}")


def _unknown(config: Config, model_type: str) -> UnsupportedModel:
    """An error that lists what is supported and suggests the nearest."""
    shown = model_type[:80]
    reason = f"model_type {shown!r} is not known here"
    if config.values.get("is_encoder_decoder") is True:
        reason += " (an encoder-decoder)"
    elif config.values.get("auto_map"):
        reason += ", and the code that the model brings along (auto_map) is not run"
    near = difflib.get_close_matches(shown, FAMILIES, n=1)
    guess = f"the nearest is {near[0]}; " if near else ""
    return UnsupportedModel(config.path, reason, hint=f"{guess}supported are {', '.join(FAMILIES)}")


def _refuse_quantised(config: Config) -> None:
    for key in ("quantization_config", "compression_config"):
        section = config.section(key)
        if section is not None:
            method = str(section.values.get("quant_method", section.values.get("quant_type", "unknown")))
            raise UnsupportedModel(config.path, _QUANTISED.format(method=method[:40]), hint=_QUANTISED_HINT)


def _refuse_unlike_its_type(config: Config, model_type: str) -> None:
    """Refuse values that contradict a dense decoder-only language model, whatever the type says."""
    for key in ("num_local_experts", "num_experts", "n_routed_experts"):
        experts = config.values.get(key)
        if isinstance(experts, int) and experts > 1:
            raise _refused(config, f"{key} is {experts}: {REFUSALS[1].reason}", REFUSALS[1].instead)
    if config.values.get("is_encoder_decoder") is True:
        raise _refused(config, f"is_encoder_decoder: {REFUSALS[3].reason}", REFUSALS[3].instead)
    if config.values.get("vision_config") or config.values.get("audio_config"):
        raise _refused(
            config, f"{model_type} with vision or audio: {REFUSALS[4].reason}", REFUSALS[4].instead
        )
    architectures = config.values.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        if isinstance(name, str) and name.endswith(NO_HEAD):
            raise _refused(
                config, f"{name[:80]} gives labels or scores, it does not write text", REFUSALS[2].instead
            )
