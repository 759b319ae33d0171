"""The page on the real server with the model that ships: everything between a key press and a token."""

from __future__ import annotations

from typing import Any

from influence.server.app import create_app
from influence.server.service import Service
from support.browser import ChatPage
from support.scripted_chat import listening


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
