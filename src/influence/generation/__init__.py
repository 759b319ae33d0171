"""From a request to its text: parameters, prompts, and the loop that serves many at once.

    prompt = build_prompt(tokenizer, template, "Once upon a time")
    resolved = resolve_params({"temperature": 0.8}, model.generation_config)
    with Generator(engine, tokenizer, eos_ids) as generator:
        for event in generator.submit(prompt.token_ids, resolved.params):
            ...  # TextDelta, TextDelta, ..., Finished

It knows no protocol and no terminal; those are above.
"""

from influence.generation.constraint import Constraint, ConstraintSource
from influence.generation.events import (
    Completion,
    Event,
    Finished,
    FinishReason,
    PromptScored,
    Statistics,
    Stream,
    TextDelta,
)
from influence.generation.facts import GeneratorFacts, LoopFacts
from influence.generation.generator import Generator
from influence.generation.params import GenerationParams, ResolvedParams, resolve_params
from influence.generation.prompt import Prompt, build_chat_prompt, build_prompt

__all__ = [
    "Completion",
    "Constraint",
    "ConstraintSource",
    "Event",
    "FinishReason",
    "Finished",
    "GenerationParams",
    "Generator",
    "GeneratorFacts",
    "LoopFacts",
    "Prompt",
    "PromptScored",
    "ResolvedParams",
    "Statistics",
    "Stream",
    "TextDelta",
    "build_chat_prompt",
    "build_prompt",
    "resolve_params",
]
