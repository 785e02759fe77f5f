"""The page with a double of Web Serial whose other end is `espwire virtual serve`: no board was touched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from observed import open_serial_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

JOB_MS = 90_000


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Iterator[Page]:
    with open_serial_page(browser, address) as page:
        yield page


def connect(page: Page, baud: str) -> None:
    page.select_option("#serial-baud", baud)
    page.click("#connect")
    page.wait_for_selector("#board:not([hidden])")


def plan_flash(page: Page, data: bytes) -> None:
    file: Any = {"name": "data.bin", "mimeType": "application/octet-stream", "buffer": data}
    page.click("#tab-flash")
    page.set_input_files("#firmware", file)
    page.wait_for_selector("#flash:enabled")
    page.fill("#address", "0x10000")
    page.click("#flash")
    page.wait_for_selector("dialog .plan", timeout=JOB_MS)


def start_flash(page: Page, data: bytes) -> None:
    plan_flash(page, data)
    page.click("dialog button[type=submit]")


def wait_for_progress(page: Page, percent: int) -> None:
    """Until the job is at ``percent`` or beyond."""
    for _ in range(600):
        if (page.locator("#job-progress").get_attribute("value") or "") and (
            page.evaluate("() => document.getElementById('job-progress').value") >= percent
            and "Writing" in page.inner_text("#job-text")
        ):
            return
        page.wait_for_timeout(50)
    pytest.fail("the job did not get that far")


def test_connecting_opens_no_port_and_the_first_command_resets_the_chip(page: Page) -> None:
    connect(page, "115200")
    assert page.evaluate("() => self.board.port.opened") == []
    page.click("#show-details")
    page.wait_for_selector("#details:not([hidden])", timeout=JOB_MS)
    assert "ESP32-C3" in page.inner_text("#details")
    assert page.evaluate("() => self.board.port.opened") == [115200]
    page.click("#reset-board")
    page.wait_for_selector(".message.good", timeout=JOB_MS)
    # between two commands the port stays open
    assert page.evaluate("() => self.board.port.opened") == [115200]


def test_a_megabyte_is_written_at_921600_baud_and_verified(page: Page) -> None:
    connect(page, "921600")
    start_flash(page, random.Random(1).randbytes(1 << 20))
    page.wait_for_selector(".message.good", timeout=JOB_MS)
    assert "1,048,576 bytes written and verified" in page.inner_text("#messages")
    assert 921600 in page.evaluate("() => self.board.port.opened")


def test_a_lost_stream_is_no_lost_board(page: Page) -> None:
    connect(page, "921600")
    start_flash(page, random.Random(2).randbytes(200_000))
    for name in ("BufferOverrunError", "FramingError"):
        wait_for_progress(page, 5)
        page.evaluate("(name) => self.board.endStream(name)", name)
    page.wait_for_selector(".message.good", timeout=JOB_MS)
    assert "200,000 bytes" in page.inner_text("#messages")


def test_an_unplugged_board_is_awaited_and_the_job_continues(page: Page) -> None:
    connect(page, "921600")
    start_flash(page, random.Random(3).randbytes(400_000))
    wait_for_progress(page, 20)
    page.evaluate("() => self.board.unplug()")
    page.wait_for_selector("#choose-again", timeout=JOB_MS)
    assert "lost the connection" in page.inner_text("#log")
    page.evaluate("() => self.board.plug()")
    page.wait_for_selector(".message.good", timeout=JOB_MS)
    assert "400,000 bytes" in page.inner_text("#messages")
    assert page.locator("#choose-again").count() == 0


def test_a_port_that_does_not_open_names_the_usual_causes(page: Page) -> None:
    page.click("#disconnect")
    connect(page, "115200")
    page.evaluate("() => { self.board.held = true; }")
    page.click("#show-details")
    message = page.locator(".message.error")
    message.wait_for(timeout=JOB_MS)
    assert "Failed to open serial port" in message.inner_text()
    assert "Another tab or program uses the port" in message.inner_text()
