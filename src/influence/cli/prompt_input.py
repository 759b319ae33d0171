"""The prompt as the command line gives it: an argument, or `-` for standard input."""

from __future__ import annotations

import re
import sys

from influence.cli import output
from influence.cli.failure import BadUsage

# More text than any model's context holds (a token is some 4 bytes), and little
# enough that reading it by mistake (`generate - < model.safetensors`) does no harm.
MAX_PROMPT_BYTES = 16 * 1024 * 1024


def read_prompt(argument: str) -> str:
    """The prompt's text. One newline at the end of standard input is the shell's and left out.

    Raises BadUsage for input that is closed, too long, or not UTF-8.
    """
    return _decode(_read_stdin()) if argument == "-" else argument


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise BadUsage("the prompt is -, but standard input is closed", hint="give the prompt as an argument")
    if output.is_terminal(sys.stdin):
        output.say("Type the prompt; Ctrl-D on a line of its own ends it.")
    data = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
    if len(data) > MAX_PROMPT_BYTES:
        raise BadUsage(
            f"the prompt on standard input is longer than {MAX_PROMPT_BYTES} bytes",
            hint="no model reads that much at once: give a part of it",
        )
    return data


def _decode(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadUsage(
            f"the prompt on standard input is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}",
            hint="convert the text to UTF-8, for example with iconv",
        ) from error
    return re.sub(r"\r?\n\Z", "", text)
