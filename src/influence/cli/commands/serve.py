"""`influence serve`: the model over HTTP, until a signal ends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from influence.cli import options, output, serving
from influence.cli.failure import BadUsage
from influence.cli.options import EngineOptions

if TYPE_CHECKING:
    from influence.server.settings import Settings


@click.command()
@options.model_option
@click.option(
    "-p",
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="The port; 0 takes a free one.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    type=options.text,
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. Any but this machine's own needs --api-key or --no-auth.",
)
@click.option(
    "--api-key",
    "api_keys",
    metavar="KEY",
    type=options.text,
    multiple=True,
    envvar="INFLUENCE_API_KEY",
    help="A key that requests must carry. Can be given often. Other users see it in the process list:"
    " a file or the variable INFLUENCE_API_KEY hides it.",
)
@click.option(
    "--api-key-file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keys, one a line.",
)
@click.option("--no-auth", is_flag=True, help="Answer everybody who can reach the address.")
@click.option(
    "--cors",
    "cors_origins",
    metavar="ORIGIN",
    type=options.text,
    multiple=True,
    help="A web page that may read answers (https://app.example), `*` for all. Can be given often.",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    metavar="NAME",
    type=options.text,
    multiple=True,
    help="A further name that this server is reached by. Can be given often.",
)
@click.option(
    "--alias",
    "aliases",
    metavar="NAME",
    type=options.text,
    multiple=True,
    help="A further name for the model in requests. Can be given often.",
)
@click.option(
    "--max-concurrent",
    metavar="N",
    type=click.IntRange(1, serving.MAX_CONCURRENT),
    default=64,
    show_default=True,
    help="Requests that run at once.",
)
@click.option(
    "--queue",
    "max_queue",
    metavar="N",
    type=click.IntRange(min=0),
    default=256,
    show_default=True,
    help="Requests that wait for a place; more get the status 503.",
)
@click.option(
    "--kv-memory",
    metavar="SIZE",
    type=options.size,
    help="Memory for the KV cache, as 4GB or 512MiB.  "
    "[default: what --max-concurrent contexts need, up to 60 % of what the weights leave free]",
)
@click.option(
    "--prompt-cache",
    "prompt_folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep computed prompts in this folder, so that a later start need not compute them again."
    " Whoever can read it may learn what was asked.",
)
@click.option(
    "--prompt-cache-size",
    "prompt_bytes",
    metavar="SIZE",
    type=options.size,
    default="8GB",
    show_default=True,
    help="What they may take on the disk; the least recently used ones go first.",
)
@click.option(
    "--drain",
    "drain_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long SIGTERM lets running requests go on.",
)
@click.option("--quiet", is_flag=True, help="No line for each request.")
@options.engine_options
def serve(
    model_path: str,
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    api_key_file: Path | None,
    no_auth: bool,
    kv_memory: int | None,
    prompt_folder: Path | None,
    prompt_bytes: int,
    max_concurrent: int,
    aliases: tuple[str, ...],
    quiet: bool,
    engine: EngineOptions,
    **given: Any,
) -> None:
    """Answer requests over HTTP with a model on this machine.

    \b
    influence serve -m demo
    influence serve -m models/my_model -p 9000 --context 8192
    influence serve -m ORG/NAME --host 0.0.0.0 --api-key-file keys.txt

    Speaks OpenAI's, Ollama's and Anthropic's protocols and its own, and shows
    a chat page in a browser. docs/http-api.md describes them. Prompts are not
    logged, and nothing is ever fetched for a request.

    SIGTERM and Ctrl-C let running requests end first; a second one does not.

    Exit codes: 0 ended by a signal, 1 failed (the port is taken, the model
    can't be loaded), 2 bad usage.
    """
    from influence.cli.loading import PromptCache
    from influence.server.settings import Settings

    keys = _checked_keys((*api_keys, *_keys_of(api_key_file)))
    settings = Settings(host=host, port=port, api_keys=keys, **given)
    _require_protection(settings, no_auth)
    cache = None if prompt_folder is None else PromptCache(prompt_folder, prompt_bytes)
    plan = serving.Plan(model_path, aliases, max_concurrent, kv_memory, cache, engine)
    serving.serve(plan, settings, quiet=quiet)


def _require_protection(settings: Settings, no_auth: bool) -> None:
    if settings.api_keys and no_auth:
        raise BadUsage("--no-auth and a key exclude each other", hint="leave one of them out")
    if not settings.is_loopback and not settings.api_keys and not no_auth:
        raise BadUsage(
            f"{output.visible(settings.host)} can be reached from other machines, and no key is set",
            hint="give --api-key KEY or --api-key-file FILE, or --no-auth to answer everybody",
        )


def _keys_of(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is not UTF-8"
        raise BadUsage(f"{file}: {problem}", hint="give a text file with one key a line") from error
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise BadUsage(f"{file}: there is no key in it", hint="give a text file with one key a line")
    return keys


def _checked_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    for key in keys:
        if not key or not all("!" <= character <= "~" for character in key):
            raise BadUsage(
                "a key holds characters other than printable ASCII, or none",
                hint="make one with `openssl rand -hex 24`",
            )
    return tuple(dict.fromkeys(keys))
