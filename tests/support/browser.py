"""A real headless Chromium, and the chat page as a person would use it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # nothing but this machine
    "--force-prefers-reduced-motion",
    "--window-size=1280,860",
)
TIMEOUT_S = 20.0


@contextmanager
def chromium() -> Iterator[Chrome]:
    """A browser with a profile of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.add_experimental_option("prefs", {"download.default_directory": profile})
        driver = Chrome(options, Service(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


class ChatPage:
    """The page in a browser, in a person's words."""

    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self) -> None:
        """Load the page and wait until it knows its model."""
        self.driver.get(self.address)
        self.until(lambda: self.text("#model-name") not in ("", "…"))

    def script(self, source: str, *arguments: Any) -> Any:
        """What JavaScript in the page returns; a promise is waited for."""
        return self.driver.execute_script(source, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def write(self, text: str) -> None:
        """Type into the message box."""
        self.find("#message").send_keys(text)

    def send(self, text: str) -> None:
        """Type a message and press Enter."""
        self.write(text + Keys.ENTER)

    def press(self, *keys: str) -> None:
        """Keys to whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def until(self, condition: Callable[[], Any]) -> Any:
        """What the condition gives once it is true; a timeout is a failed test."""
        return WebDriverWait(self.driver, TIMEOUT_S, 0.03).until(lambda _: condition())

    def until_idle(self) -> None:
        """Wait for the end of the reply that is being written."""
        self.until(lambda: self.script("return document.querySelector('.running') === null"))

    def ask(self, text: str) -> str:
        """Send a message; the reply once it is whole."""
        count = len(self.replies())
        self.send(text)
        self.until(lambda: len(self.replies()) > count)
        self.until_idle()
        return self.replies()[-1]

    def replies(self) -> list[str]:
        return [body.text for body in self.all(".assistant .body")]

    def said(self) -> list[str]:
        return [body.text for body in self.all(".user .body")]

    def action(self, message: str, label: str) -> None:
        """Press a button under a message, as a keyboard or a screen reader would."""
        button = self.find(f"{message} footer [aria-label='{label}']")
        self.script("arguments[0].focus()", button)
        button.send_keys(Keys.ENTER)

    def problems(self) -> list[str]:
        """What the browser complained of, such as breaches of the page's policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))
