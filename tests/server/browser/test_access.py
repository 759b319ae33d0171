"""The page for everybody: screen readers, keyboards, weak eyes, small screens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.browser import ChatPage, Keys
from support.scripted_chat import Reply, ScriptedChat

EVERYTHING = (
    "# Head\n\nText with `code`, a [link](https://a.example), ~~old~~.\n\n> quote\n\n"
    "```py\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- [x] done\n"
)
INTERACTIVE = {"button", "textbox", "link", "checkbox", "spinbutton", "dialog", "navigation", "main", "list"}

# The contrast of every text with the ground behind it, by WCAG 2's formula: those under 4.5.
CONTRAST = """
  const rgb = (text) => { const n = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(") ? [n[0] * 255, n[1] * 255, n[2] * 255, n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1]; };
  const luminance = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const ground = (element) => { for (let at = element; at; at = at.parentElement) { const color = rgb(getComputedStyle(at).backgroundColor); if (color[3] === 1) return color; } return [255, 255, 255]; };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility({ opacityProperty: true }) || element.closest("[disabled], .visually-hidden")) continue;
    const [a, b] = [luminance(rgb(getComputedStyle(element).color)), luminance(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([walker.currentNode.data.slice(0, 30), ratio]);
  }
  return low;
"""


@pytest.fixture
def full_page(page: ChatPage, chat: ScriptedChat) -> ChatPage:
    """A page that shows one of everything."""
    chat.script.extend([Reply(EVERYTHING), Reply("Again."), Reply(status=503, error={"message": "busy"})])
    page.ask("Show me everything")
    page.action(".assistant", "Try again")
    page.until_idle()
    page.action(".assistant", "Previous version")
    page.ask("And an error")
    return page


@pytest.fixture
def phone(page: ChatPage) -> Iterator[ChatPage]:
    """The page on a screen of a phone's size."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield page
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def tree(page: ChatPage) -> list[dict[str, Any]]:
    """What the browser tells assistive technology: role and name of all that is exposed."""
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [
        {
            "role": node["role"]["value"],
            "name": node.get("name", {}).get("value", ""),
        }
        for node in nodes
        if not node["ignored"]
    ]


def test_everything_that_can_be_used_has_a_name(full_page: ChatPage) -> None:
    nameless = [
        node for node in tree(full_page) if node["role"] in INTERACTIVE - {"list"} and not node["name"]
    ]
    assert [node for node in nameless if node["role"] != "main"] == []


def test_everything_in_the_settings_has_a_name(full_page: ChatPage) -> None:
    full_page.click("#open-settings")
    nodes = tree(full_page)
    assert [
        node for node in nodes if node["role"] in ("spinbutton", "textbox", "checkbox") and not node["name"]
    ] == []
    assert {"role": "dialog", "name": "Settings"} in nodes
    full_page.press(Keys.ESCAPE)


def test_there_are_landmarks_and_one_first_heading(full_page: ChatPage) -> None:
    roles = [node["role"] for node in tree(full_page)]
    assert (roles.count("main"), roles.count("navigation")) == (1, 1)
    assert len(full_page.all("h1")) == 1


def test_ids_are_unique_and_references_lead_somewhere(full_page: ChatPage) -> None:
    dangling = full_page.script(
        """
        const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
        const named = ["for", "aria-labelledby", "aria-describedby", "aria-controls", "popovertarget"].flatMap((name) =>
          [...document.querySelectorAll(`[${name}]`)].map((one) => one.getAttribute(name)));
        return [ids.filter((id, index) => ids.indexOf(id) !== index), named.filter((id) => !ids.includes(id))];
        """
    )
    assert dangling == [[], []]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(full_page: ChatPage, theme: str) -> None:
    full_page.script("document.documentElement.dataset.theme = arguments[0]", theme)
    assert full_page.script(CONTRAST) == []
    full_page.click("#open-settings")
    assert full_page.script(CONTRAST) == []
    full_page.press(Keys.ESCAPE)


def test_a_system_in_dark_gets_the_dark_page(page: ChatPage) -> None:
    feature = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    try:
        ground = page.script("return getComputedStyle(document.body).backgroundColor")
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert ground == "rgb(23, 24, 22)"


def test_a_screen_reader_hears_a_reply_by_whole_sentences(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.append(Reply(pieces=["The **fo", "x** ran. The d", "og", " slept. And"], goes_on=False))
    page.send("A story")
    heard = "return [...document.querySelectorAll('#announcements p')].map((one) => one.textContent)"
    page.until(lambda: " ".join(page.script(heard)) == "The fox ran. The dog slept.")
    page.press(Keys.ESCAPE)
    page.until(lambda: page.script(heard)[-1] == "Stopped.")
    assert page.find("#announcements").get_attribute("aria-live") == "polite"


def test_tab_walks_through_everything_in_the_order_of_reading(page: ChatPage) -> None:
    page.script("document.querySelector('a, button, input, textarea').focus()")
    assert page.driver.switch_to.active_element.get_attribute("class") == "skip-link"
    walked = []
    for _ in range(12):
        page.press(Keys.TAB)
        walked.append(page.driver.switch_to.active_element.get_attribute("id"))
    assert walked[0] == "new-chat"
    assert walked.index("open-settings") < walked.index("scroller") < walked.index("message")


def test_the_way_past_the_list_of_chats_leads_to_the_message_box(page: ChatPage) -> None:
    page.script("document.querySelector('.skip-link').focus()")
    page.press(Keys.ENTER)
    assert page.driver.switch_to.active_element.get_attribute("id") == "message"


def test_on_a_phone_the_list_of_chats_slides_over_the_chat(phone: ChatPage) -> None:
    assert not phone.find("#sidebar").is_displayed()
    phone.click("#open-sidebar")
    phone.until(lambda: phone.find("#new-chat").is_displayed())
    assert phone.driver.switch_to.active_element.get_attribute("id") == "new-chat"
    assert phone.script("return document.getElementById('main').inert") is True
    phone.press(Keys.ESCAPE)
    phone.until(lambda: not phone.find("#sidebar").is_displayed())
    assert phone.driver.switch_to.active_element.get_attribute("id") == "open-sidebar"


def test_on_a_phone_nothing_is_wider_than_the_screen(phone: ChatPage, chat: ScriptedChat) -> None:
    chat.script.append(Reply(EVERYTHING + "\n`" + "x" * 300 + "` " + "y" * 300))
    phone.ask("z" * 300)
    assert phone.script("return document.documentElement.scrollWidth") <= 390
    assert phone.script(
        "const s = document.getElementById('scroller'); return s.scrollWidth <= s.clientWidth"
    )


def test_on_a_phone_what_is_touched_is_large_enough(phone: ChatPage) -> None:
    phone.ask("Hello")
    small = phone.script(
        """
        return [...document.querySelectorAll("#main button")].filter((one) => one.checkVisibility())
          .map((one) => [one.ariaLabel ?? one.textContent, one.getBoundingClientRect()])
          .filter(([, box]) => box.width < 24 || box.height < 24).map(([name]) => name);
        """
    )
    assert small == []  # WCAG 2.2, 2.5.8
