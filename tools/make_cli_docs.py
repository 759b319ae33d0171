"""Writes docs/cli.md from the `--help` of every command.

python tools/make_cli_docs.py             write it
python tools/make_cli_docs.py --check     exit 1 if it is not what would be written
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from influence.cli.main import influence

TARGET = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
WIDTH = 80

INTRODUCTION = """\
# The command line

<!-- Written by tools/make_cli_docs.py from --help; edit the commands, not this page. -->

Data goes to stdout; progress, notes, statistics and errors go to stderr. An
error is one line `error: ...` that says what happened and, where there is
something to do about it, a line `hint: ...`. Without a terminal there is no
colour and no animation. Text that a model or a file made up is written to a
terminal with its control characters spelt out (`\\x1b`), and to a pipe as it is.

`-m` takes a folder in Hugging Face's layout (config.json, tokenizer.json,
*.safetensors), the name `ORG/NAME` of a model that lies in
`./models/ORG_NAME/`, or `demo`, a small storyteller that comes along.

| exit code | meaning |
|---|---|
| 0 | done; also when the reader of the output left early (`influence ... \\| head`) |
| 1 | failed: the error says why |
| 2 | bad usage: an unknown option, a missing argument, a value out of its range |
| 130 | interrupted by Ctrl-C; `generate` prints what there is, `download` keeps what has come |
| 143, 129 | terminated (SIGTERM), or the terminal closed (SIGHUP); likewise |

`generate` writes the completion as it comes and then exactly one newline, on a
terminal and into a pipe alike, so taking one newline off the end gives the
completion to the byte. With `--json` there is one object at the end instead.
"""


def page() -> str:
    return "\n".join([INTRODUCTION, *(_section(context) for context in _contexts(influence, None))])


def _contexts(command: click.Command, parent: click.Context | None) -> Iterator[click.Context]:
    """A context for the command and all below it, in the order of their names."""
    context = click.Context(
        command, parent, info_name=command.name, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _contexts(below, context)


def _section(context: click.Context) -> str:
    return f"## {context.command_path}\n\n```\n{context.command.get_help(context).rstrip()}\n```\n"


def main() -> int:
    text = page()
    if "--check" not in sys.argv[1:]:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(text)
        return 0
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    print(f"{TARGET} is not up to date: run python tools/make_cli_docs.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
