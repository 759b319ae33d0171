"""The index of weights in several files, as far as it names these files.

{"metadata": {...}, "weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors", ...}}
"""

from __future__ import annotations

import json

from influence.hub.names import check_file_names

SUFFIX = ".safetensors.index.json"
MAX_INDEX_BYTES = 16 << 20


def shards_of(content: bytes) -> list[str]:
    """The files that an index names, each once, by name; ValueError if it is no index, UnsafeName."""
    try:
        shards = set(json.loads(content)["weight_map"].values())
        names = sorted(shards)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("is not an index of weights") from error
    if not all(isinstance(name, str) for name in names):
        raise ValueError("names a shard that is not a text")
    check_file_names(names)
    return names
