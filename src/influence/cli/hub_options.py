"""Which hub to ask, and as whom: the options of the commands that connect, and the client they make.

@click.command()
@hub_options
def search(hub: HubOptions) -> None:
    with hub.connect() as client: ...

A token goes to one host. `--token` is meant for the host of this command, the
mirror too; HF_TOKEN, which is often set for everything, is for the official Hub
alone: a mirror has no accounts and could keep what it is given.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

import click

from influence.cli import output
from influence.cli.options import Decorator, text
from influence.dataclass import dataclass

if TYPE_CHECKING:
    from influence.hub.client import Hub
    from influence.hub.clock import OnWait
    from influence.hub.endpoint import Endpoint
    from influence.hub.token import Token

DEFAULT_MIRROR = "https://hf-mirror.com"
_TOKEN_VARIABLE = "HF_TOKEN"
_FROM_STDIN = "-"
_MAX_TOKEN_CHARACTERS = 1024

OnNotice = Callable[[str], None]


def _say_note(note: str) -> None:
    output.say(f"note: {output.visible(note)}")


@dataclass(frozen=True)
class HubOptions:
    """The user's choice; nothing of it is checked yet."""

    mirror: str
    token: str | None = field(repr=False)  # of --token
    allow_http: bool

    @property
    def endpoint(self) -> Endpoint:
        """The host to ask; InvalidParameter if the URL is none, or http without leave."""
        from influence.hub.endpoint import Endpoint

        return Endpoint.parse(self.mirror, allow_http=self.allow_http)

    def at(self, mirror: str) -> HubOptions:
        """The same for another host, to which `--token` was not given."""
        return replace(self, mirror=mirror, token=None)

    def or_at(self, mirror: str) -> HubOptions:
        """The same, and for this host if the user named none: it is then the one that `--token` is for."""
        return self if self.mirror else replace(self, mirror=mirror)

    @contextmanager
    def connect(
        self,
        *,
        on_wait: OnWait = lambda seconds, reason: None,
        on_notice: OnNotice = _say_note,
        **options: Any,
    ) -> Iterator[Hub]:
        """A client until the block ends; opens no connection yet. `options` are further ones of Http."""
        from influence.hub.client import Hub

        endpoint = self.endpoint
        token = _token_for(endpoint, self.token, on_notice)
        with Hub(endpoint, token=token, on_wait=on_wait, on_notice=on_notice, **options) as hub:
            yield hub


def _token_for(endpoint: Endpoint, given: str | None, on_notice: OnNotice) -> Token | None:
    """The token for this host; InvalidParameter, without its value, if it can be none."""
    from influence.hub.endpoint import OFFICIAL
    from influence.hub.token import Token

    if given is not None:
        return Token(_read_token() if given == _FROM_STDIN else given)
    found = os.environ.get(_TOKEN_VARIABLE, "")
    if found and endpoint.url != OFFICIAL:
        on_notice(f"{_TOKEN_VARIABLE} is for {OFFICIAL}, and not sent to {endpoint.host}; --token would be")
        return None
    return Token(found) if found else None


def _read_token() -> str:
    """A line of standard input, unseen as it is typed: unlike an argument, it stands in no list of processes."""
    if output.is_terminal(sys.stdin):
        from getpass import getpass

        return getpass("token: ").strip()
    return sys.stdin.readline(_MAX_TOKEN_CHARACTERS).strip() if sys.stdin else ""


def hub_options_with(default_mirror: str, mirror_help: str) -> Decorator:
    """Adds the options, with another default, which may be ""; the command gets `hub: HubOptions`."""
    options = (
        click.option(
            "-r",
            "--mirror",
            metavar="URL",
            type=text,
            default=default_mirror,
            show_default=bool(default_mirror),
            help=mirror_help,
        ),
        click.option(
            "--token",
            metavar="TOKEN",
            type=text,
            help="A token for that host, which alone gets it; `-` reads it from standard input."
            "  [default: HF_TOKEN, for https://huggingface.co only]",
        ),
        click.option(
            "--allow-http",
            is_flag=True,
            help="Accept a mirror without encryption: anyone on the way can read and change what comes.",
        ),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def collected(mirror: str, token: str | None, allow_http: bool, **values: Any) -> Any:
            return command(hub=HubOptions(mirror, token, allow_http), **values)

        decorated: Callable[..., Any] = collected
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


# The options as most commands have them.
hub_options = hub_options_with(DEFAULT_MIRROR, "The hub to ask: a mirror, or https://huggingface.co.")
