"""The other engines of bench_engine.py: what each runs, and how it is started."""

from __future__ import annotations

import argparse

from influence.models.model import Model
from model_files import converted, gguf_of
from peer_process import PeerFailed, PeerRunner

PEERS = {
    "llama-cpp-python": "llama.cpp",
    "transformers": "transformers",
    "compiled": "transformers, compiled",
    "ctranslate2": "CTranslate2",
    "openvino": "OpenVINO",
}

# How a peer that rounds weights itself holds them, by how we hold ours.
_FORMS = {"stored": "bfloat16", "packed": "bfloat16", "q8": "int8", "q4": "int4"}
FORMS = ("bfloat16", "int8", "int4")
CONVERTED = ("ctranslate2", "openvino")  # by converters of their own


def start_peer(peer: str, options: argparse.Namespace, model: Model, context: int) -> PeerRunner:
    """The peer with the model loaded. Raises PeerFailed, NotExportable."""
    settings: dict[str, object] = {"threads": options.threads, "context": context}
    if peer in CONVERTED:
        return _converting(peer, options, model, settings)
    if peer == "llama-cpp-python":
        settings["gguf"] = str(options.gguf or gguf_of(model, options.cache))
        settings |= {"flash_attention": options.flash_attention, "repack": not options.no_repack}
        return PeerRunner(options.peer_python, "peer_llama_cpp.py", settings)
    device = f"cuda:{options.device_index}" if options.device == "cuda" else "cpu"
    settings |= {"folder": str(model.folder), "device": device, "compile": peer == "compiled"}
    return PeerRunner(options.peer_python, "peer_transformers.py", settings)


def peer_form(options: argparse.Namespace) -> str:
    """How CTranslate2 and OpenVINO hold the weights."""
    return str(options.peer_weights or _FORMS[options.weights])


def _converting(
    peer: str, options: argparse.Namespace, model: Model, settings: dict[str, object]
) -> PeerRunner:
    form = peer_form(options)
    if peer == "ctranslate2" and form == "int4":
        raise PeerFailed("CTranslate2 has no weights of 4 bits on a CPU: give --peer-weights int8")
    folder = converted(model, options.cache, options.peer_python, peer, form)
    settings |= {"converted": str(folder), "form": form, "vocab_size": model.spec.vocab_size}
    return PeerRunner(options.peer_python, f"peer_{peer}.py", settings)
