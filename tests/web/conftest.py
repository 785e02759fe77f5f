"""The page in Chromium, as `espwire web` serves it. One browser and one page serve all tests of a file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from observed import BUILT, ROOT, Observed, open_page

from espwire._version import __version__

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session")
def chromium() -> str:
    """The program; skips what needs it where something is missing."""
    if not os.environ.get("ESPWIRE_WEB_TESTS"):
        pytest.skip("run by `make test-web`")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium on this machine")
    if not (BUILT / "index.html").exists():
        pytest.skip("`make web` has not built the page")
    return program


@pytest.fixture(scope="session")
def address(chromium: str) -> Iterator[str]:
    """The address that `espwire web` prints, which serves the archive of the release."""
    archive = ROOT / f"build/espwire-web-{__version__}.zip"
    command = [sys.executable, "-m", "espwire", "--json", "web", str(archive), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["data"]["address"]
        server.terminate()
        server.stdout.close()


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium without its sandbox, which containers do not allow."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def observed(browser: Browser, address: str) -> Iterator[Observed]:
    """The page that the tests of a module share."""
    observed = open_page(browser, address, viewport={"width": 1200, "height": 900})
    yield observed
    observed.page.context.close()


@pytest.fixture
def page(observed: Observed) -> Page:
    """The page, without a dialog that a failed test has left open."""
    if observed.page.locator("dialog").count():
        observed.page.keyboard.press("Escape")
    return observed.page
