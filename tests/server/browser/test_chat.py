"""The chat page in a real browser, as a person uses it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from support.browser import ChatPage, Keys
from support.scripted_chat import Reply, ScriptedChat

LAST = ".message.assistant:last-child"


def test_a_reply_streams_and_completes_with_its_cost(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.append(Reply("A **bold** reply."))
    assert page.ask("Hello") == "A bold reply."
    assert page.find(".assistant strong").text == "bold"
    assert "3 tokens" in page.text(f"{LAST} .facts")
    assert "tokens/s" in page.text(f"{LAST} .facts")
    assert page.text("#context-used") == "10 of 1,000 tokens used"
    [request] = chat.requests
    assert request["messages"] == [{"role": "user", "content": "Hello"}]
    assert request["stream_options"] == {"include_usage": True}


def test_text_shows_while_the_reply_is_still_coming(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.append(Reply("Once upon a time", goes_on=False))
    page.send("A story")
    page.until(lambda: page.replies() == ["Once upon a time"])
    assert page.find("#stop").is_displayed()


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_ends_the_reply_on_the_server_too(page: ChatPage, chat: ScriptedChat, how: str) -> None:
    chat.script.append(Reply("Once upon", goes_on=False))
    page.send("A story")
    page.until(lambda: page.replies() == ["Once upon"])
    if how == "button":
        page.click("#stop")
    else:
        page.press(Keys.ESCAPE)
    page.until_idle()
    assert chat.left.wait(10)
    assert page.replies() == ["Once upon"]
    assert page.text(f"{LAST} .facts") == "Stopped"
    assert page.ask("Go on") == "Certainly."


def test_the_whole_conversation_goes_with_each_message(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.extend([Reply("One."), Reply("Two.")])
    page.ask("First")
    page.ask("Second")
    assert [message["content"] for message in chat.requests[-1]["messages"]] == ["First", "One.", "Second"]


def test_a_retry_stands_beside_the_first_reply(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.extend([Reply("One."), Reply("Two.")])
    page.ask("Hello")
    page.action(LAST, "Try again")
    page.until(lambda: page.replies() == ["Two."])
    page.until_idle()
    assert page.text(f"{LAST} .branches") == "2 / 2"
    page.action(LAST, "Previous version")
    assert page.replies() == ["One."]
    assert page.driver.switch_to.active_element.get_attribute("aria-label") == "Next version"


def test_an_edit_branches_off_and_the_old_branch_stays(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.extend([Reply("About cats."), Reply("More."), Reply("About dogs.")])
    page.ask("Cats?")
    page.ask("And?")
    page.action(".message.user:first-child", "Edit message")
    page.press(Keys.CONTROL + "a")
    page.press("Dogs?" + Keys.ENTER)
    page.until(lambda: page.replies() == ["About dogs."])
    page.until_idle()
    assert page.said() == ["Dogs?"]
    assert [message["content"] for message in chat.requests[-1]["messages"]] == ["Dogs?"]
    page.action(".message.user:first-child", "Previous version")
    assert (page.said(), page.replies()) == (["Cats?", "And?"], ["About cats.", "More."])


def test_an_edit_that_is_given_up_changes_nothing(page: ChatPage, chat: ScriptedChat) -> None:
    page.ask("Cats?")
    page.action(".message.user", "Edit message")
    assert not page.find(".message.user footer").is_displayed()
    page.press("xxx")
    page.press(Keys.ESCAPE)
    assert page.said() == ["Cats?"]
    assert len(chat.requests) == 1


def test_a_reload_keeps_conversations_and_what_is_shown(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.extend([Reply("One."), Reply("Two.")])
    page.ask("First chat")
    page.press(Keys.CONTROL + "k")
    page.ask("Second chat")
    page.open()
    assert titles(page) == ["Second chat", "First chat"]
    assert (page.said(), page.replies()) == (["Second chat"], ["Two."])
    page.all("#conversations .open")[1].click()
    assert (page.said(), page.replies()) == (["First chat"], ["One."])


def test_a_reply_that_a_reload_cut_is_kept_and_says_so(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.append(Reply("Once upon", goes_on=False))
    page.send("A story")
    page.until(lambda: page.replies() == ["Once upon"])
    page.open()
    assert page.replies() == ["Once upon"]
    assert "Interrupted" in page.text(f"{LAST} .facts")


def test_conversations_are_renamed_and_deleted_and_brought_back(page: ChatPage) -> None:
    page.ask("First chat")
    page.script("document.querySelector('[data-key^=rename]').click()")
    page.press("Cats" + Keys.ENTER)
    assert titles(page) == ["Cats"]
    page.script("document.querySelector('[data-key^=delete]').click()")
    assert titles(page) == []
    page.click("#toast button")
    assert titles(page) == ["Cats"]
    page.open()
    assert titles(page) == ["Cats"]


def test_a_reply_goes_on_while_another_chat_is_read(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.append(Reply("Slow", goes_on=False))
    page.send("First")
    page.until(lambda: page.replies() == ["Slow"])
    page.press(Keys.CONTROL + "k")
    assert page.ask("Second") == "Certainly."
    assert not chat.left.is_set()
    assert len(page.all("#conversations .busy-dot")) == 1


def test_settings_and_the_system_prompt_go_into_the_request(page: ChatPage, chat: ScriptedChat) -> None:
    page.click("#open-settings")
    page.find("#system-prompt").send_keys("Be brief.")
    page.find("#field-temperature").send_keys("0.5")
    page.find("#field-max_tokens").send_keys("12")
    page.find("#field-top_p").send_keys("7")  # beyond its range: marked, and not sent
    assert page.find("#field-top_p").get_attribute("aria-invalid") == "true"
    page.press(Keys.ESCAPE)
    page.ask("Hello")
    [request] = chat.requests
    assert (request["temperature"], request["max_tokens"]) == (0.5, 12)
    assert not {"top_p", "seed"} & set(request)
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    page.open()
    page.ask("Again")
    assert chat.requests[-1]["temperature"] == 0.5
    assert chat.requests[-1]["messages"][0]["content"] == "Be brief."


def test_shift_enter_makes_a_line_and_an_empty_message_is_not_sent(
    page: ChatPage, chat: ScriptedChat
) -> None:
    page.send("  ")
    page.find("#message").clear()
    page.write("one" + Keys.SHIFT + Keys.ENTER + Keys.SHIFT + "two")
    page.send("")
    page.until(lambda: page.replies() == ["Certainly."])
    assert [request["messages"][-1]["content"] for request in chat.requests] == ["one\ntwo"]


def test_arrow_up_in_an_empty_box_edits_the_last_message(page: ChatPage) -> None:
    page.ask("Hello")
    page.write(Keys.ARROW_UP)
    assert page.driver.switch_to.active_element.get_attribute("aria-label") == "Edit your message"


def test_a_server_that_asks_for_a_key_gets_one_and_the_tab_forgets_it(
    page: ChatPage, chat: ScriptedChat
) -> None:
    chat.api_key = "secret-key"
    page.driver.refresh()
    page.until(lambda: page.find("#key-dialog").is_displayed())
    page.find("#api-key").send_keys("wrong" + Keys.ENTER)
    page.until(lambda: page.find("#key-refused").is_displayed())
    page.find("#api-key").send_keys("secret-key" + Keys.ENTER)
    page.until(lambda: page.text("#model-name") == "scripted")
    assert page.ask("Hello") == "Certainly."
    assert "secret-key" not in json.dumps(page.script("return {...localStorage}"))
    assert "secret-key" in json.dumps(page.script("return {...sessionStorage}"))


def test_a_key_that_expires_is_asked_for_and_the_message_is_sent_again(
    page: ChatPage, chat: ScriptedChat
) -> None:
    chat.api_key = "new-key"
    page.send("Hello")
    page.until(lambda: page.find("#key-dialog").is_displayed())
    page.find("#api-key").send_keys("new-key" + Keys.ENTER)
    page.until(lambda: page.replies() == ["Certainly."])


ERRORS = {
    "busy": (Reply(status=503, error={"message": "the queue is full"}), "The server is busy", "The queue is full."),
    "context": (
        Reply(status=400, error={"message": "too long", "code": "context_length_exceeded"}),
        "The conversation is longer than the model's context",
        "Too long.",
    ),
    "broken off": (Reply("Half", finish_reason=None), "The reply broke off", "What arrived is kept."),
    "failed within": (Reply("Half", error={"message": "running the model failed"}), "The reply broke off", "failed."),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_told_in_words_and_tried_again(page: ChatPage, chat: ScriptedChat, name: str) -> None:
    reply, title, detail = ERRORS[name]
    chat.script.append(reply)
    page.ask("Hello")
    assert page.text(f"{LAST} .problem strong") == title
    assert detail in page.text(f"{LAST} .problem")
    beside = [button.get_attribute("aria-label") for button in page.all(f"{LAST} .actions button")]
    assert beside == (["Copy message"] if page.replies()[-1] else [])
    page.click(f"{LAST} .problem button")
    page.until(lambda: page.replies() == ["Certainly."])
    assert chat.requests[-1]["messages"] == [{"role": "user", "content": "Hello"}]


def test_a_server_that_has_gone_is_told_in_words(page: ChatPage) -> None:
    page.script("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    page.ask("Hello")
    assert page.text(f"{LAST} .problem strong") == "The server can't be reached"


def test_a_server_that_runs_another_model_by_now_is_asked_for_its_name(
    page: ChatPage, chat: ScriptedChat
) -> None:
    chat.script.append(Reply(status=404, error={"message": "there is no model scripted"}))
    chat.model_name = "another"
    page.ask("Hello")
    page.until(lambda: page.text("#model-name") == "another")
    page.click(f"{LAST} .problem button")
    page.until(lambda: page.replies() == ["Certainly."])
    assert chat.requests[-1]["model"] == "another"


def test_a_model_without_a_template_goes_on_with_the_text(page: ChatPage, chat: ScriptedChat) -> None:
    chat.chat_template = None
    page.open()
    assert page.find("#continue-note").is_displayed()
    chat.script.extend([Reply(" upon a *time"), Reply(" there was.")])
    page.send("Once")
    page.until(lambda: page.script("return document.querySelectorAll('.assistant').length") == 1)
    page.until_idle()
    page.action(LAST, "Go on writing")
    page.until(lambda: len(chat.requests) == 2)
    page.until_idle()
    assert set(chat.paths) == {"/v1/completions"}
    assert [request["prompt"] for request in chat.requests] == ["Once", "Once upon a *time"]
    assert page.script("return document.querySelector('.assistant .body').textContent") == " upon a *time"


def test_exports_hold_the_conversation(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.append(Reply("A **bold** reply."))
    page.ask("Hello, you")
    saved = exported(page, "export-markdown")
    assert saved["name"] == "hello-you.md"
    assert "# Hello, you\n" in saved["text"]
    assert "## You\n\nHello, you\n\n## scripted\n\nA **bold** reply.\n" in saved["text"]
    saved = exported(page, "export-json")
    content = json.loads(saved["text"])
    assert saved["name"] == "hello-you.json"
    assert content["messages"] == [
        {"role": "user", "content": "Hello, you"},
        {"role": "assistant", "content": "A **bold** reply."},
    ]
    assert content["conversation"]["messages"][1]["usage"] == {"promptTokens": 7, "completionTokens": 3}


def test_code_is_copied_as_it_was_written(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.append(Reply("```py\nif a < b:\n    print('<b>')\n```"))
    page.ask("Code")
    page.script("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    page.click(".copy-code")
    page.until(lambda: page.script("return window.copied"))
    assert page.script("return window.copied") == "if a < b:\n    print('<b>')"
    assert page.text(".copy-code") == "Copied"


def test_a_browser_whose_storage_is_full_says_so_and_chats_on(page: ChatPage) -> None:
    page.script("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }")
    assert page.ask("Hello") == "Certainly."
    assert "storage is full" in page.text("#toast")


def test_what_others_left_in_the_storage_does_no_harm(page: ChatPage) -> None:
    page.ask("Hello")
    for name, value in {"conversation.a": "{", "conversation.b": '{"version": 2}', "settings": "[1]"}.items():
        page.script("localStorage.setItem(arguments[0], arguments[1])", f"influence.{name}", value)
    page.open()
    assert titles(page) == ["Hello"]


def test_the_chosen_theme_stays(page: ChatPage) -> None:
    def ground() -> Any:
        return page.script("return getComputedStyle(document.body).backgroundColor")

    assert ground() == "rgb(255, 255, 255)"
    page.click("#toggle-theme")
    dark = ground()
    assert dark == "rgb(23, 24, 22)"
    page.open()
    assert ground() == dark


def test_a_reader_who_scrolled_up_is_left_there(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.extend([Reply("line\n\n" * 60), Reply("more\n\n" * 60)])
    page.ask("Long")
    at_end = "const s = document.getElementById('scroller'); return s.scrollHeight - s.scrollTop - s.clientHeight < 5"
    assert page.script(at_end)
    page.send("Longer")
    page.until_idle()
    page.script("document.getElementById('scroller').scrollTop = 0")
    page.until(lambda: page.find("#to-end").is_displayed())
    page.click("#to-end")
    page.until(lambda: page.script(at_end))


def titles(page: ChatPage) -> list[str]:
    return [button.text for button in page.find("#conversations").find_elements(By.CLASS_NAME, "open")]


def exported(page: ChatPage, button: str) -> dict[str, str]:
    """What a button of the export menu saves: the name and text of the file."""
    page.script(
        """
        URL.createObjectURL = (blob) => { window.saved = blob.text(); return "#"; };
        HTMLAnchorElement.prototype.click = function () { window.savedName = this.download; };
        document.getElementById("export-menu").showPopover();
        """
    )
    page.click(f"#{button}")
    saved: dict[str, str] = page.script(
        "return window.saved.then((text) => ({ text, name: window.savedName }))"
    )
    return saved
