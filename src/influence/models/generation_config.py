"""generation_config.json: where a model says how it wants to be sampled, and what ends its text."""

from __future__ import annotations

from pathlib import Path

from influence.dataclass import dataclass
from influence.models.config import Config

MAX_TOKEN_ID = 1 << 31


@dataclass(frozen=True)
class GenerationConfig:
    """The model's own defaults, validated; None where its file says nothing."""

    eos_ids: frozenset[int] = frozenset()  # of generation_config.json and config.json together
    bos_id: int | None = None
    temperature: float | None = None
    top_k: int | None = None  # 0: all
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    do_sample: bool | None = None

    @classmethod
    def load(cls, folder: Path, config: Config) -> GenerationConfig:
        """Read generation_config.json, which may be absent, beside the `config` already read.

        Raises InvalidConfig for a value that no sampler could follow.
        """
        path = folder / "generation_config.json"
        own = Config.load(path) if path.exists() or path.is_symlink() else Config({}, path)
        has_bos = own.values.get("bos_token_id") is not None
        return cls(
            eos_ids=_read_ids(own, "eos_token_id") | _read_ids(config, "eos_token_id"),
            bos_id=(own if has_bos else config).optional_integer(
                "bos_token_id", minimum=0, maximum=MAX_TOKEN_ID
            ),
            temperature=own.optional_number("temperature", minimum=0, maximum=100),
            top_k=own.optional_integer("top_k", minimum=0),
            top_p=own.optional_number("top_p", above=0, maximum=1),
            min_p=own.optional_number("min_p", minimum=0, maximum=1),
            repetition_penalty=own.optional_number("repetition_penalty", above=0, maximum=100),
            max_new_tokens=own.optional_integer("max_new_tokens"),
            do_sample=own.flag("do_sample") if own.values.get("do_sample") is not None else None,
        )


def _read_ids(config: Config, key: str) -> frozenset[int]:
    """One id, a list of them, or none."""
    value = config.values.get(key)
    if value is None:
        return frozenset()
    ids = value if isinstance(value, list) else [value]
    return frozenset(
        Config({key: item}, config.path).integer(key, minimum=0, maximum=MAX_TOKEN_ID) for item in ids
    )
