"""The Web Serial transport against a page that is played here; docs/guide/web.md says that no board was touched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from espwire.errors import Cancelled, PortBusy, PortNotFound, TransportLost, UsageError
from espwire.transport.base import CancelToken
from espwire.transport.url import open_transport
from espwire.transport.webserial import BrowserCancel, WebSerialTransport

Value = TypeVar("Value")
OK = SimpleNamespace(ok=True, value=SimpleNamespace(vid=0x303A, pid=0x1001))


def wait(promise: Awaitable[Value]) -> Value:
    async def run() -> Value:
        return await promise

    return asyncio.run(run())


class Page:
    """Answers calls, and has bytes that arrive one wait later."""

    def __init__(self, **failures: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.coming: list[bytes] = []
        self.arrived: list[bytes] = []
        self.failures, self.reason, self.stop = failures, "", False

    def emit(self, line: str) -> None: ...
    def typed(self) -> str:
        return ""

    def cancelled(self) -> bool:
        return self.stop

    async def pause(self, milliseconds: float) -> None:
        self.arrived += self.coming
        self.coming = []

    async def call(self, operation: str, *arguments: object) -> Any:
        self.calls.append((operation, *arguments))
        if name := self.failures.get(operation):
            return SimpleNamespace(ok=False, name=name, message="it failed", hint="Close it.")
        return OK

    async def receive(self, milliseconds: float) -> None:
        await self.pause(0)

    def take(self) -> bytes:
        data, self.arrived = b"".join(self.arrived), []
        return data

    def lost(self) -> str:
        return self.reason


def connect(page: Page, cancel: CancelToken | None = None) -> WebSerialTransport:
    return WebSerialTransport(page, "webserial:3", 115200, cancel or CancelToken(), wait=wait)


def test_the_port_of_the_page_is_opened_and_described() -> None:
    page = Page()
    port = connect(page)
    assert page.calls == [("open", "3", 115200)]
    assert (port.info.kind, port.info.vid, port.info.can_reset) == ("usb-jtag", 0x303A, True)


def test_both_lines_are_always_set_together() -> None:
    page = Page()
    port = connect(page)
    port.set_lines(dtr=True)
    port.set_lines(rts=True)
    port.set_lines(dtr=False, rts=False)
    assert page.calls[1:] == [
        ("signals", True, False),
        ("signals", True, True),
        ("signals", False, False),
    ]


def test_the_rate_changes_only_if_it_differs_and_the_lines_stay() -> None:
    page = Page()
    port = connect(page)
    port.set_lines(rts=True)
    port.set_baud(115200)
    port.set_baud(921600)
    port.set_baud(921600)
    assert page.calls[2:] == [("baud", 921600, False, True)]


def test_bytes_are_read_in_the_order_of_arrival() -> None:
    page = Page()
    port = connect(page)
    page.coming = [b"ab", b"c"]
    assert port.read(1.0) == b"abc"
    assert port.read(0.01) == b""
    page.coming = [b"old"]
    port.discard_input()
    assert port.read(0) == b""


def test_a_disconnected_board_is_a_loss() -> None:
    page = Page()
    port = connect(page)
    page.reason = "the device was disconnected"
    with pytest.raises(TransportLost, match="lost the connection to webserial:3: the device"):
        port.read(1.0)
    with pytest.raises(TransportLost):
        port.write(b"x", port.now() + 1)


def test_a_write_that_takes_too_long_is_reported_as_such() -> None:
    page = Page(write="TimeoutError")
    with pytest.raises(TransportLost) as caught:
        connect(page).write(b"x", 0)
    assert caught.value.code == "write-timeout"
    page = Page(signals="NetworkError")
    with pytest.raises(TransportLost) as caught:
        connect(page).set_lines(rts=True)
    assert caught.value.code == "link-lost"


@pytest.mark.parametrize(
    ("name", "error"),
    [("NotFoundError", PortNotFound), ("InvalidStateError", PortBusy), ("NetworkError", PortBusy)],
)
def test_a_port_that_does_not_open_has_a_reason(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        connect(Page(open=name))


def test_closing_leaves_the_port_to_the_page() -> None:
    page = Page()
    port = connect(page)
    port.close()
    port.close()
    assert len(page.calls) == 1
    with pytest.raises(TransportLost, match="is closed"):
        port.read(1.0)


def test_a_wait_is_cancelled() -> None:
    page = Page()
    cancel = BrowserCancel(page, wait=wait)
    port = connect(page, cancel)
    page.stop = True
    with pytest.raises(Cancelled):
        port.read(10.0)
    with pytest.raises(Cancelled):
        port.sleep(10.0)


def test_outside_of_the_page_the_hint_names_the_command() -> None:
    with pytest.raises(UsageError, match="exist only in the web page") as caught:
        open_transport("webserial:1")
    assert caught.value.code == "no-browser"
