"""What went wrong, as the user reads it and as an exit code: the one place that catches errors.

0    done; also when the reader of our output left (`| head`)
1    failed
2    bad usage: an unknown option, a value out of range
130  interrupted (Ctrl-C)
143  terminated (SIGTERM); 129 where the terminal closed (SIGHUP)
"""

from __future__ import annotations

import signal
import sys

import click

from influence.cli import output
from influence.errors import InfluenceError, InvalidParameter

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 128 + signal.SIGINT


class BadUsage(click.UsageError):
    """The command line can't be understood; `hint` is the next thing to do."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def report(error: BaseException, *, show_traceback: bool) -> int:
    """Say on stderr what happened; returns the exit code."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case SystemExit(code=int(code)):
            return code
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case BrokenPipeError():
            output.discard_the_rest()
            return DONE
    if show_traceback:
        import traceback

        output.say("".join(traceback.format_exception(error)).rstrip())
    return _explain(error)


def _explain(error: BaseException) -> int:
    match error:
        case click.exceptions.NoArgsIsHelpError():
            output.say(error.format_message())
            return BAD_USAGE
        case click.UsageError():
            _say_error(error.format_message(), getattr(error, "hint", "") or _help_hint(error.ctx))
            return BAD_USAGE
        case InfluenceError():
            _say_error(error.message, error.hint)
            return BAD_USAGE if isinstance(error, InvalidParameter) else FAILED
        case OSError():
            _say_error(_os_problem(error), "")
        case MemoryError():
            _say_error("out of memory", "give a smaller --context, or choose a smaller model")
        case _:
            _say_bug(error)
    return FAILED


def _say_error(message: str, hint: str) -> None:
    output.say(f"{output.emphasized('error:')} {output.visible(message)}")
    if hint:
        output.say(f"hint: {output.visible(hint)}")


def _say_bug(error: BaseException) -> None:
    arguments = " ".join(sys.argv[1:2])
    _say_error(
        f"this is a bug in influence: {type(error).__name__}: {error}",
        f"run `influence --traceback {arguments} ...` to see where it happened, and report it with that text",
    )


def _help_hint(context: click.Context | None) -> str:
    return f"see `{context.command_path} --help`" if context else "see `influence --help`"


def _os_problem(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {what}" if error.filename else what
