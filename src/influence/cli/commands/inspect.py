"""`influence inspect`: look inside a model and at what it is given."""

from __future__ import annotations

import click

from influence.cli.lazy import LazyGroup

COMMANDS = {
    "model": ("influence.cli.commands.inspect_model:model", "Show a model's spec, tensors, types and sizes."),
    "prompt": (
        "influence.cli.commands.inspect_prompt:prompt",
        "Show what a model would read, token by token.",
    ),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def inspect() -> None:
    """Show what a model is made of, or exactly what it would read.

    \b
    influence inspect prompt "Why is the sky blue?" -m models/my_model
    influence inspect model -m models/my_model
    """
