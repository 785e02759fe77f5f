"""The documentation site, as `make site` has built it: usable with a screen reader and the keyboard."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from observed import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SITE = ROOT / "build/site"
PAGES = ("", "docs/guide/web/", "docs/chips/")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not printed."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    if not (SITE / "index.html").exists():
        pytest.skip("`make site` has not built the site")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 375)])
def test_axe_finds_no_serious_violation_on_the_site(
    browser: Browser, site: str, scheme: Any, width: int
) -> None:
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
    )
    page = context.new_page()
    axe = (ROOT / "build/web-npm/node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")
    for name in PAGES:
        page.goto(site + name)
        page.locator(".md-search[aria-label]").wait_for(state="attached")  # site.js has run
        page.evaluate(axe)
        found = page.evaluate("async () => (await axe.run({ iframes: false })).violations")
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert [(name, each["id"], each["nodes"][0]["html"]) for each in serious] == []
    context.close()
