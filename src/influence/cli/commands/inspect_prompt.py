"""`influence inspect prompt`: exactly what a model would read, and how it would stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from influence.cli import options, output
from influence.cli.prompt_input import read_prompt

if TYPE_CHECKING:
    from pathlib import Path

    from influence.cli.loading import TextModel
    from influence.generation.prompt import Prompt
    from influence.text.tokenizer import Tokenizer


@click.command()
@click.argument("prompt", type=options.text)
@options.model_option
@options.system_option
@options.raw_option
@options.json_option
def prompt(prompt: str, model_path: str, system: str | None, raw: bool, as_json: bool) -> None:
    """Show the rendered PROMPT, its token ids, and what begins and ends a text.

    PROMPT `-` reads standard input, as in `generate`.

    \b
    influence inspect prompt "Why is the sky blue?" -m models/my_model
    influence inspect prompt "Once upon a time" -m demo --raw --json
    """
    from influence.cli.loading import open_text_model
    from influence.generation.prompt import build_prompt

    loaded = open_text_model(model_path)
    for warning in loaded.tokenizer.warnings:
        output.say(f"note: {output.visible(warning)}")
    built = build_prompt(loaded.tokenizer, loaded.template, read_prompt(prompt), system=system, raw=raw)
    facts = {
        "text": built.text,
        "used_template": built.used_template,
        "tokens": [{"id": i, "token": loaded.tokenizer.token(i)} for i in built.token_ids],
        "bos": _bos_audit(loaded.tokenizer, built),
        "eos": _eos_audit(loaded),
    }
    if as_json:
        output.write_json(facts)
    else:
        output.write(_as_text(facts))


def _bos_audit(tokenizer: Tokenizer, built: Prompt) -> dict[str, Any]:
    """Whether the text begins as the model was trained to see it begin."""
    bos_id = tokenizer.bos_id
    n_leading = 0
    while n_leading < len(built.token_ids) and built.token_ids[n_leading] == bos_id:
        n_leading += 1
    return {
        "id": bos_id,
        "token": tokenizer.bos_token,
        "added_by_tokenizer": tokenizer.adds_bos,
        "count_at_start": n_leading,
        "verdict": _bos_verdict(tokenizer, built, n_leading),
    }


def _bos_verdict(tokenizer: Tokenizer, built: Prompt, n_leading: int) -> str:
    if tokenizer.bos_id is None:
        return "ok: the model has no BOS token"
    if n_leading > 1:
        return "doubled: BOS is there more than once"
    if n_leading == 1 and built.used_template and tokenizer.adds_bos:
        return "ok: BOS is there once, from the chat template; the tokenizer's own is left out"
    if n_leading == 1:
        return "ok: BOS is there once"
    if tokenizer.adds_bos:
        return "missing: the tokenizer puts BOS before plain text, but the chat template writes none"
    return "ok: there is no BOS, and the tokenizer adds none"


def _eos_audit(loaded: TextModel) -> list[dict[str, Any]]:
    """Every id that ends a completion, and which of the model's files says so."""
    folder = loaded.model.folder
    sources = {name: _stated_eos_ids(folder / name) for name in ("generation_config.json", "config.json")}
    sources["tokenizer"] = loaded.tokenizer.eos_ids
    return [
        {
            "id": token_id,
            "token": loaded.tokenizer.token(token_id),
            "from": [source for source, ids in sources.items() if token_id in ids],
        }
        for token_id in sorted(loaded.eos_ids)
    ]


def _stated_eos_ids(path: Path) -> frozenset[int]:
    """The ids in a file that was read and found sound before."""
    from influence.models.config import Config

    stated = Config.load(path).values.get("eos_token_id") if path.exists() else None
    return frozenset(stated if isinstance(stated, list) else [] if stated is None else [stated])


def _as_text(facts: dict[str, Any]) -> str:
    bos, eos, tokens = facts["bos"], facts["eos"], facts["tokens"]
    how = "by the model's chat template" if facts["used_template"] else "as it is, without a chat template"
    ends = [(str(end["id"]), repr(end["token"]), ", ".join(end["from"])) for end in eos]
    return "\n".join(
        [
            f"prompt, {how}:",
            facts["text"],
            "",
            f"{len(tokens)} tokens:",
            output.columns([(str(token["id"]).rjust(8), repr(token["token"])) for token in tokens]),
            "",
            "begins:",
            output.columns([(str(bos["id"]).rjust(8), repr(bos["token"]), bos["verdict"])]),
            "",
            "ends at:" if ends else "ends at no token: only --stop, --max-tokens or the context end it",
            output.columns([(token_id.rjust(8), token, files) for token_id, token, files in ends]),
            "",
        ]
    )
