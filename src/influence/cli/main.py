"""The `influence` command: finds the command's module, runs it, ends with its exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from influence import __version__
from influence.cli import failure, output
from influence.cli.lazy import LazyGroup

if TYPE_CHECKING:
    from influence.text.template_process import TemplateProcess

COMMANDS = {
    "doctor": ("influence.cli.commands.doctor:doctor", "Check this machine; prove that nothing is sent out."),
    "download": ("influence.cli.commands.download:download", "Download a model so that it is surely right."),
    "generate": (
        "influence.cli.commands.generate:generate",
        "Continue or answer PROMPT with a model on this machine.",
    ),
    "inspect": (
        "influence.cli.commands.inspect:inspect",
        "Show what a model is made of, or exactly what it would read.",
    ),
    "list": ("influence.cli.commands.list:list_models", "List the models in ./models/."),
    "plan": ("influence.cli.commands.plan:plan", "Say whether this machine can run a model."),
    "rm": ("influence.cli.commands.rm:rm", "Remove a model from ./models/."),
    "search": ("influence.cli.commands.search:search", "Find models on the Hub, and see which run here."),
    "serve": ("influence.cli.commands.serve:serve", "Answer requests over HTTP."),
    "show": ("influence.cli.commands.show:show", "Show what a model on this disk is."),
    "verify": (
        "influence.cli.commands.verify:verify",
        "Check that a downloaded model is as it was published.",
    ),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
@click.option("--traceback", is_flag=True, help="On an error, also show where in the code it happened.")
@click.version_option(__version__, message="%(prog)s %(version)s")
def influence(traceback: bool) -> None:
    """Run Hugging Face models on this machine: fast, private, offline.

    \b
    influence generate "Once upon a time" -m demo      a small model that comes along
    influence generate "Why is the sky blue?" -m models/my_model
    influence COMMAND --help                           all about one command

    Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted, 143 terminated.
    """


def main(arguments: Sequence[str], renderer: TemplateProcess | None = None) -> int:
    """Run one command; returns the exit code of the process.

    `renderer` is a process for chat templates that was started ahead of the command.
    """
    show_traceback = False
    try:
        with influence.make_context("influence", list(arguments), obj=renderer) as context:
            show_traceback = context.params["traceback"]
            influence.invoke(context)
    except BaseException as error:  # the one place where everything ends
        return failure.report(error, show_traceback=show_traceback)
    return 0


def run(renderer: TemplateProcess | None = None) -> NoReturn:
    """Run the command of this process's arguments, and end with its exit code."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _terminate)
    output.prepare_streams()
    sys.exit(main(sys.argv[1:], renderer))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Leave by an exception, so that what is open gets closed on the way."""
    raise SystemExit(128 + number)
