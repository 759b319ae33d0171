"""A model that says what a test wrote down: the demo's tokenizer, a template with tools, a scripted engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from influence import demo
from influence.generation.generator import Generator
from influence.models.generation_config import GenerationConfig
from influence.server.facts import ModelFacts
from influence.server.service import Service
from influence.server.settings import Settings
from influence.text.chat_template import ChatTemplate, _Source
from influence.text.tokenizer import Tokenizer
from support.fake_engine import FakeEngine, fake_spec

NAME = "parrot"

# As Qwen and many others write calls, in the demo's special tokens.
TEMPLATE = """\
{{- bos_token }}
{%- if tools %}{{ '<|system|>Tools: ' + (tools | tojson) + eos_token }}{% endif %}
{%- for message in messages %}
{{- '<|' + ('user' if message.role == 'tool' else message.role) + '|>' }}
{%- if message.role == 'tool' %}{{ '<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- else %}{{ message.content or '' }}{% endif %}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}
{{- eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""


class ScriptedEngine(FakeEngine):
    """After the prompt's last <|assistant|> it says `script`, token by token, then EOS."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(n_blocks=256, spec=fake_spec(tokenizer.vocab_size, max_context=1024))
        self.tokenizer = tokenizer
        self.script: Sequence[int] = ()
        self._assistant = tokenizer.id_of("<|assistant|>")
        (self._eos,) = tokenizer.eos_ids

    def say(self, text: str) -> None:
        """What the next replies are."""
        self.script = self.tokenizer.encode(text, add_special_tokens=False)

    def logits_after(self, history: Sequence[int], context: int) -> np.ndarray:
        n_said = list(reversed(history)).index(self._assistant) if self._assistant in history else 0
        token_id = self.script[n_said] if n_said < len(self.script) else self._eos
        logits = np.full(self.spec.vocab_size, -20.0, np.float32)
        logits[token_id] = 20.0
        return logits


@contextmanager
def scripted_service(**options: Any) -> Iterator[tuple[Service, ScriptedEngine]]:
    """A service whose model calls tools as `<tool_call>`, and the engine to tell what to say.

    `options` are Generator's.
    """
    folder = demo.folder()
    tokenizer = Tokenizer.load(folder)
    template = ChatTemplate({"default": _Source(Path("template"), TEMPLATE)}, tokenizer.special_tokens)
    engine = ScriptedEngine(tokenizer)
    with Generator(engine, tokenizer, tokenizer.eos_ids, **options) as generator:
        service = Service(
            generator, tokenizer, template, GenerationConfig(temperature=0.0), _facts(tokenizer), Settings()
        )
        try:
            yield service, engine
        finally:
            service.close()
            template.close()
    engine.close()


def _facts(tokenizer: Tokenizer) -> ModelFacts:
    return ModelFacts(
        name=NAME,
        aliases=(),
        created_s=1_800_000_000,
        family="llama",
        n_parameters=1,
        vocab_size=tokenizer.vocab_size,
        dtype="F32",
        size_bytes=4,
        context=1024,
        eos_token="<|end|>",
        bos_token=tokenizer.bos_token,
        template_source=TEMPLATE,
        digest="0" * 64,
    )
