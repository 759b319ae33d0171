"""A hub that is asked while the user looks on: what it is asked for turns, and every wait is counted down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from influence.cli import output

if TYPE_CHECKING:
    from influence.cli.hub_options import HubOptions
    from influence.hub.client import Hub


@contextmanager
def asking(hub: HubOptions) -> Iterator[Hub]:
    """A client of the hub until the block ends; raises InvalidParameter for options that can't be."""
    usual = f"asking {hub.endpoint.host}"
    with output.spinner(usual) as spinner:
        notices = Notices(spinner, usual)
        with hub.connect(on_wait=notices.wait, on_notice=notices.note) as client:
            yield client


class Notices:
    """What the client tells: a wait on the spinner's line, or once on a line of its own where nothing turns."""

    def __init__(self, spinner: output.Spinner, usual: str) -> None:
        self._spinner = spinner
        self._usual = usual
        self._left_s = 0.0  # of the wait that was told last

    def wait(self, left_s: float, reason: str) -> None:
        text = output.visible(f"next try in {max(1, round(left_s))} s: {reason}")
        if self._spinner.is_shown:
            self._spinner.show(text if left_s >= 1 else self._usual)
        elif left_s > self._left_s:
            self._spinner.say(text)
        self._left_s = left_s

    def note(self, text: str) -> None:
        self._spinner.say(f"note: {output.visible(text)}")
