"""One Chromium for all tests of the page; each test has a server, and so an origin and a storage, of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("selenium", reason="needs selenium, of the test group")

from support.browser import CHROMIUM, DRIVER, ChatPage, chromium
from support.scripted_chat import ScriptedChat, listening


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    """A headless Chromium."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    with chromium() as driver:
        yield driver


@pytest.fixture
def chat() -> ScriptedChat:
    """A server whose model says what the test tells it."""
    return ScriptedChat()


@pytest.fixture
def page(driver: Any, chat: ScriptedChat) -> Iterator[ChatPage]:
    """The page on that server, opened."""
    yield from opened(driver, chat)


@pytest.fixture(scope="module")
def renderer(driver: Any) -> Iterator[ChatPage]:
    """A page whose modules tests call, without a word to the server; opened once."""
    yield from opened(driver, ScriptedChat())


def opened(driver: Any, chat: ScriptedChat) -> Iterator[ChatPage]:
    """The page in a tab of its own; at the end nothing may have broken its policy or failed unseen."""
    first = driver.current_window_handle
    with listening(chat.app()) as address:
        driver.switch_to.new_window("tab")
        page = ChatPage(driver, address)
        page.open()
        yield page
        complaints = [line for line in page.problems() if "Failed to load resource" not in line]
        driver.close()
        driver.switch_to.window(first)
    assert complaints == []
