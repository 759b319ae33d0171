"""`influence show`: one model on this disk, in a dozen lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from influence.cli import options, output


@click.command()
@click.argument("model", type=options.text)
@options.json_option
def show(model: str, as_json: bool) -> None:
    """Show the architecture, size, context, chat template, licence and EOS ids of MODEL.

    MODEL is a folder, a downloaded ORG/NAME (in ./models/), or `demo`.

    \b
    influence show demo
    influence show models/my_model --json
    """
    from influence.cli import shelf
    from influence.cli.model_path import find_model, unfinished_note
    from influence.hub.store import entry_of

    folder = find_model(model)
    entry = entry_of(folder)
    facts = {
        "name": model,
        "folder": str(folder),
        **shelf.facts(folder),
        "licence": shelf.licence(folder),
        **shelf.origin(entry),
        "is_partial": entry.is_partial,
        **_text_facts(folder),
    }
    if as_json:
        output.write_json(facts)
    else:
        output.write(_as_text(facts))
    if note := unfinished_note(folder):
        output.say(f"note: {output.visible(note)}")


def _text_facts(folder: Path) -> dict[str, Any]:
    """What the text side says; its files may be broken while the model's sizes are still worth showing."""
    from influence.errors import InfluenceError
    from influence.models.config import Config
    from influence.models.generation_config import GenerationConfig
    from influence.text.chat_template import ChatTemplate
    from influence.text.tokenizer import Tokenizer

    eos_ids = GenerationConfig.load(folder, Config.load(folder / "config.json")).eos_ids
    try:
        tokenizer = Tokenizer.load(folder)
        template = ChatTemplate.load(folder, tokenizer.special_tokens)
    except InfluenceError as error:
        return {
            "chat_templates": None,
            "eos": _eos(dict.fromkeys(sorted(eos_ids))),
            "tokenizer_problem": error.message,
        }
    known = {token_id: tokenizer.token(token_id) or None for token_id in sorted(eos_ids | tokenizer.eos_ids)}
    names = list(template.names) if template else []
    return {"chat_templates": names, "eos": _eos(known), "tokenizer_problem": None}


def _eos(tokens: Mapping[int, str | None]) -> list[dict[str, Any]]:
    return [{"id": token_id, "token": token} for token_id, token in tokens.items()]


def _as_text(facts: dict[str, Any]) -> str:
    rows = [
        ("model", facts["name"]),
        ("folder", facts["folder"]),
        ("architecture", facts["architecture"]),
        ("parameters", f"{output.count(facts['parameters'])} ({facts['parameters']:,})"),
        ("dtype", facts["dtype"]),
        ("size", output.size(facts["size_bytes"])),
        ("context", str(facts["context"])),
        ("chat template", _templates(facts["chat_templates"])),
        ("ends at", ", ".join(map(_end, facts["eos"])) or "no token"),
        ("licence", facts["licence"] or "not stated"),
    ]
    rows += [
        (title, facts[key])
        for title, key in (
            ("repository", "repo"),
            ("commit", "commit"),
            ("verified", "verified_at"),
            ("problem", "tokenizer_problem"),
        )
        if facts[key] is not None
    ]
    return output.columns([(title, output.one_line(value)) for title, value in rows]) + "\n"


def _templates(names: list[str] | None) -> str:
    if names is None:
        return "not known: the tokenizer can't be read"
    return ", ".join(names) or "none: prompts are given as they are"


def _end(eos: dict[str, Any]) -> str:
    return str(eos["id"]) if eos["token"] is None else f"{eos['id']} {eos['token']!r}"
