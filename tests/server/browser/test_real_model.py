"""The page on the real server with the model that ships: everything between a key press and a token."""

from __future__ import annotations

from typing import Any

from influence.server.app import create_app
from influence.server.service import Service
from influence.server.settings import Settings
from support.browser import ChatPage
from support.scripted_chat import listening
from support.servers import served_demo


def test_the_shipped_model_tells_a_story_and_another_by_its_seed(driver: Any, service: Service) -> None:
    with listening(create_app(service)) as address:
        page = ChatPage(driver, address)
        page.open()
        assert page.text("#model-name") == "demo"
        assert page.text("#model-context") == "context of 1,024 tokens"
        page.click("#open-settings")
        page.find("#field-seed").send_keys("7")
        page.find("#field-max_tokens").send_keys("40")
        page.script("document.getElementById('settings').close()")
        story = page.ask("Tell me a story about a fox.")
        assert len(story.split()) > 10
        assert "40 tokens" in page.text(".assistant .facts")
        assert "tokens/s" in page.text(".assistant .facts")
        page.action(".assistant", "Try again")
        page.until_idle()
        assert page.replies() == [story]
        assert [line for line in page.problems() if "SEVERE" in line] == []
        driver.get("about:blank")


def test_a_real_server_with_a_key_lets_the_page_in_once_it_has_it(driver: Any) -> None:
    with (
        served_demo(Settings(api_keys=("the-key",))) as service,
        listening(create_app(service)) as address,
    ):
        page = ChatPage(driver, address)
        driver.get(address)
        page.until(lambda: page.find("#key-dialog").is_displayed())
        page.find("#api-key").send_keys("the-key\n")
        page.until(lambda: page.text("#model-name") == "demo")
        assert page.ask("Tell me a story.") != ""
        page.problems()  # the browser logs each 401
        driver.get("about:blank")


def test_a_conversation_beyond_the_context_is_told_in_words(driver: Any, service: Service) -> None:
    with listening(create_app(service)) as address:
        page = ChatPage(driver, address)
        page.open()
        page.script("document.getElementById('message').value = 'word '.repeat(3000)")
        page.ask(" ")
        title = page.text(".assistant .problem strong")
        assert title == "The conversation is longer than the model's context"
        page.problems()
        driver.get("about:blank")
