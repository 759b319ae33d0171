"""What the user sees while a hub is asked."""

from __future__ import annotations

from influence.cli.hub_access import Notices
from influence.cli.output import Spinner

USUAL = "asking hub.test"


class Shown(Spinner):
    """A spinner that remembers what it showed."""

    def __init__(self, *, on_terminal: bool) -> None:
        super().__init__(USUAL)
        self.on_terminal = on_terminal
        self.lines: list[str] = []
        self.notes: list[str] = []

    @property
    def is_shown(self) -> bool:
        return self.on_terminal

    def show(self, text: str) -> None:
        self.lines.append(text)

    def say(self, text: str) -> None:
        self.notes.append(text)


def test_a_wait_is_counted_down_on_a_terminal_and_gone_when_it_is_over() -> None:
    spinner = Shown(on_terminal=True)
    notices = Notices(spinner, USUAL)
    for left_s in (2.4, 1.4, 0.4):
        notices.wait(left_s, "hub.test answered 429")
    assert spinner.lines == [
        "next try in 2 s: hub.test answered 429",
        "next try in 1 s: hub.test answered 429",
        USUAL,
    ]
    assert spinner.notes == []


def test_each_wait_is_said_once_where_there_is_no_terminal() -> None:
    spinner = Shown(on_terminal=False)
    notices = Notices(spinner, USUAL)
    for left_s in (2.0, 1.0, 4.0, 3.0, 2.0, 1.0):
        notices.wait(left_s, "broken")
    assert spinner.notes == ["next try in 2 s: broken", "next try in 4 s: broken"]
    assert spinner.lines == []


def test_words_of_a_host_do_nothing_to_the_terminal() -> None:
    spinner = Shown(on_terminal=False)
    notices = Notices(spinner, USUAL)
    notices.wait(1.0, "\x1b[2J")
    notices.note("\x1b[2J")
    assert spinner.notes == ["next try in 1 s: \\x1b[2J", "note: \\x1b[2J"]
