"""The page in a test: what it requested and complained about, and a page with the double of Web Serial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serial_bridge import Bridge

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
DOUBLE = Path(__file__).with_name("serial_double.mjs")
BUILT = ROOT / "build/web"
START_MS = 120_000  # of Python in the page, on a busy machine
WAIT_MS = 15_000


class Observed:
    """A page with what it requested and complained about."""

    def __init__(self, page: Page) -> None:
        self.page, self.requests = page, []
        self.problems: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._note)

    requests: list[str]

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)


def open_page(browser: Browser, address: str, **options: Any) -> Observed:
    """The page when Python is ready in it."""
    observed = Observed(browser.new_context(accept_downloads=True, **options).new_page())
    observed.page.goto(address)
    observed.page.wait_for_selector("body[data-ready]", timeout=START_MS)
    return observed


@contextmanager
def open_serial_page(browser: Browser, address: str, *serve: str) -> Iterator[Page]:
    """The page with the double of Web Serial, whose board is a virtual ESP32-C3 with the options ``serve``."""
    bridge = Bridge("esp32c3", *serve)
    # the policy of the page would not allow the double's WebSocket
    page = browser.new_context(bypass_csp=True).new_page()
    page.add_init_script(DOUBLE.read_text("utf-8").replace("SERIAL_PORT", str(bridge.port)))
    page.goto(address)
    page.wait_for_selector("body[data-ready]", timeout=START_MS)
    yield page
    page.context.close()
    bridge.close()
