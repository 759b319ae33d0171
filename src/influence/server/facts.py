"""What the protocols tell of the model."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from influence.dataclass import dataclass
from influence.models.config import Config
from influence.models.survey import survey

if TYPE_CHECKING:
    from influence.models.model import Model
    from influence.text.chat_template import ChatTemplate
    from influence.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelFacts:
    """One model that is served, as clients see it."""

    name: str
    aliases: tuple[str, ...]
    created_s: int  # when it was loaded, in seconds of the Unix epoch
    family: str
    n_parameters: int
    dtype: str
    size_bytes: int  # of the weights
    context: int  # positions that a request may have
    vocab_size: int  # ids from 0 up to it are tokens
    eos_token: str | None
    bos_token: str | None
    template_source: str | None
    digest: str  # 64 hex digits over the config and the weights' headers; another model has another

    def answers_to(self, name: str) -> bool:
        """Whether a request that names this model means it; `:latest` is how some clients complete a name."""
        return name.removesuffix(":latest") in (self.name, *self.aliases) or name in self.aliases


def model_facts(
    model: Model,
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    *,
    name: str,
    aliases: Sequence[str],
    context: int,
) -> ModelFacts:
    """The facts of an open model that is called `name`."""
    config = Config.load(model.folder / "config.json")
    found = survey(config, model.checkpoint.infos)
    eos = min(model.generation_config.eos_ids | tokenizer.eos_ids, default=None)
    return ModelFacts(
        name=name,
        aliases=tuple(aliases),
        created_s=int(time.time()),
        family=model.model_type,
        n_parameters=found.n_parameters,
        dtype=found.dtype,
        size_bytes=model.weights.size_bytes,
        context=context,
        vocab_size=model.spec.vocab_size,
        eos_token=tokenizer.special_tokens.get("eos_token")
        or (None if eos is None else tokenizer.token(eos)),
        bos_token=tokenizer.bos_token,
        template_source=None if template is None else template.source(template.names[0]),
        digest=_digest(config, model),
    )


def _digest(config: Config, model: Model) -> str:
    """Of what the model computes: its config, and the name, dtype, shape and place of every tensor."""
    tensors = {
        name: [info.dtype, *info.shape, info.begin, info.end]
        for name, info in sorted(model.checkpoint.infos.items())
    }
    text = json.dumps([config.values, tensors], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
