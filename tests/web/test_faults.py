"""Faults of Web Serial in the middle of a job: no false success, no endless wait, and the page goes on without a reload."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from observed import open_serial_page
from test_serial import JOB_MS, connect, plan_flash

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE = 16384


@pytest.fixture(scope="module")
def flash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of the virtual chip's flash."""
    return tmp_path_factory.mktemp("faults") / "flash.bin"


@pytest.fixture(scope="module")
def page(browser: Browser, address: str, flash: Path) -> Iterator[Page]:
    with open_serial_page(browser, address, "--flash", str(flash), "--profile", "instant") as page:
        yield page


def strike(page: Page, operation: str, after: int, kind: str) -> None:
    """From now on, one fault."""
    fault = {"operation": operation, "after": after, "kind": kind}
    page.evaluate("fault => Object.assign(board, {faults: [fault], counts: {}})", fault)


def write(page: Page, flash: Path, *fault: object) -> bool:
    """Write data, with a fault after the plan was shown; whether the page reports success, which must be true.

    The board is plugged in again when the page asks for it.
    """
    data = random.randbytes(SIZE)
    plan_flash(page, data)
    if fault:
        strike(page, *fault)  # type: ignore[arg-type]
    page.click("dialog button[type=submit]")
    for _ in range(300):
        if page.locator("#choose-again").count():
            page.evaluate("() => board.port.connected || board.plug()")
        if page.locator(".message.good, .message.error").count():
            break
        page.wait_for_timeout(100)
    assert page.evaluate("() => board.faults") == []
    if page.locator(".message.error").count():
        return False
    assert "16,384 bytes" in page.inner_text("#messages")
    assert flash.read_bytes()[0x10000:][:SIZE] == data
    return True


@pytest.mark.parametrize(
    "fault",
    [
        ("read", 10, "FramingError"),
        ("read", 10, "unplug"),
        ("write", 10, "reset"),
        ("close", 0, "reject"),
    ],
)
def test_after_a_fault_in_a_job_the_page_goes_on(
    page: Page, flash: Path, fault: tuple[str, int, str]
) -> None:
    connect(page, "921600")
    write(page, flash, *fault)
    page.evaluate("() => board.heal()")
    assert write(page, flash)


@pytest.mark.parametrize("kind", ["reject", "locked"])
def test_after_a_port_that_did_not_open_the_page_goes_on(
    page: Page, flash: Path, kind: str
) -> None:
    page.click("#disconnect")
    connect(page, "921600")
    strike(page, "open", 0, kind)
    page.click("#show-details")
    page.wait_for_selector(".message.error", timeout=JOB_MS)
    page.evaluate("() => board.heal()")
    assert write(page, flash)


def test_cancel_ends_an_operation_that_the_browser_never_ends(page: Page, flash: Path) -> None:
    connect(page, "115200")
    strike(page, "signals", 1, "hang")
    page.click("#show-details")
    page.wait_for_function("() => board.faults.length === 0")
    page.click("#cancel")
    message = page.locator(".message.error")
    message.wait_for(timeout=5000)
    assert "cancelled" in message.inner_text()
    assert write(page, flash)


def test_python_is_started_again_after_it_has_failed(page: Page, flash: Path) -> None:
    page.click("#disconnect")
    connect(page, "115200")
    strike(page, "open", 0, "slow")
    page.click("#show-details")
    page.wait_for_function("() => board.faults.length === 0")
    assert page.inner_text("#chosen") == "Chosen: data.bin"
    page.workers[0].evaluate("() => void setTimeout(() => { throw new Error('out of memory'); })")
    message = page.locator(".message.error")
    message.wait_for()
    assert "Python has failed and was started again: Uncaught Error: out of memory" in (
        message.inner_text()
    )
    assert page.inner_text("#chosen") == "No file is chosen."
    assert write(page, flash)
