"""A pytest plugin for firmware: the fixtures ``device``, ``flashed`` and ``console`` on the board of ``--espwire-port``.

pytest loads it wherever espwire is installed. It imports the rest of espwire only when a test uses a fixture.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from espwire.console import Console
    from espwire.device.device import Device
    from espwire.transport.base import Transport

PORT = "--espwire-port"
FIRMWARE = "--espwire-firmware"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("espwire", "firmware tests with espwire")
    group.addoption(
        PORT, metavar="PORT", help="port of the board: a device, virtual:CHIP, labgrid://PLACE, …"
    )
    group.addoption("--espwire-chip", metavar="CHIP", help="expected chip; default: any")
    group.addoption(
        "--espwire-baud", metavar="N", type=int, help="baud rate of data; default: the fastest"
    )
    group.addoption(
        FIRMWARE,
        metavar="FIRMWARE",
        action="append",
        default=[],
        help="what `flashed` writes: the folder of a build, or ADDRESS=FILE (repeatable)",
    )
    group.addoption(
        "--espwire-console-port",
        metavar="PORT",
        help="port of the application's output; default: that of the board",
    )
    group.addoption(
        "--espwire-console-baud",
        metavar="N",
        type=int,
        default=115200,
        help="baud rate of the application's output; default: 115200",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Show the hint of an error of espwire below it. Errors of the fixtures are shown without a traceback."""
    errors = sys.modules.get("espwire.errors")
    error = call.excinfo.value if call.excinfo is not None else None
    if errors is None or not isinstance(error, errors.ToolError):
        return
    note = f"[{error.code}] {error.hint}"
    if call.when == "setup" and "espwire_board" in getattr(item, "fixturenames", ()):
        failure = pytest.fail.Exception(f"{error}\n{note}", pytrace=False)
        call.excinfo = pytest.ExceptionInfo.from_exception(
            failure.with_traceback(error.__traceback__)
        )
    else:
        error.add_note(note)


class Board:
    """The board of a session. It is in its bootloader, or runs its application."""

    def __init__(self, config: pytest.Config, port: str) -> None:
        from espwire.device.connect import connect

        self._baud: int | Literal["auto"] = config.getoption("--espwire-baud") or "auto"
        self._console_port = config.getoption("--espwire-console-port")
        self._console_baud = config.getoption("--espwire-console-baud")
        self._console: Transport | None = None
        self._device: Device = connect(
            port, chip=config.getoption("--espwire-chip"), baud=self._baud
        )
        self._started = False

    def enter(self) -> Device:
        """The chip in its bootloader.

        :raises Unsupported: code ``cannot-reset``
        """
        from espwire.device.connect import speed_up
        from espwire.errors import Unsupported

        if self._started:
            if self._device.reenter is None:
                raise Unsupported(
                    "the application runs, and this port cannot reset the chip",
                    hint="Use a port with reset lines.",
                    code="cannot-reset",
                )
            self._device.reenter()
            self._started = False
            speed_up(self._device, stub="auto", baud=self._baud)
        return self._device

    def start(self) -> Console:
        """Start the application from the beginning."""
        from espwire.console import Console
        from espwire.transport.url import open_transport

        device = self.enter()
        if self._console_port is None:
            received = device.start_application(self._console_baud)
            self._started = True
            return Console(device.transport, received)
        if self._console is None:
            self._console = open_transport(self._console_port, baud=self._console_baud)
        self._console.discard_input()
        device.start_application(self._console_baud)
        self._started = True
        return Console(self._console)

    def close(self) -> None:
        """Start the application, unless it runs, and close the ports."""
        try:
            if not self._started and self._device.transport.info.can_reset:
                self._device.leave("hard-reset")
        finally:
            self._device.close()
            if self._console is not None:
                self._console.close()


@pytest.fixture(scope="session")
def espwire_port(pytestconfig: pytest.Config) -> str:
    """The port of the board. Override this fixture to find it in another way."""
    port = pytestconfig.getoption(PORT)
    if not port:
        pytest.fail(f"this test needs a board: give its port with {PORT}", pytrace=False)
    return str(port)


@pytest.fixture(scope="session")
def espwire_board(pytestconfig: pytest.Config, espwire_port: str) -> Iterator[Board]:
    """The board, connected once for the session."""
    board = Board(pytestconfig, espwire_port)
    try:
        yield board
    finally:
        board.close()


@pytest.fixture
def device(espwire_board: Board) -> Device:
    """The chip in its bootloader: an ``espwire.Device``."""
    return espwire_board.enter()


@pytest.fixture(scope="session")
def espwire_firmware(pytestconfig: pytest.Config) -> Any:
    """What ``flashed`` writes: the path of a build, or data or paths by address. Override it to name another."""
    from espwire.sizes import parse_number

    values: list[str] = pytestconfig.getoption(FIRMWARE)
    if not values:
        pytest.fail(f"this test needs firmware: give it with {FIRMWARE}", pytrace=False)
    if len(values) == 1 and os.path.exists(values[0]):
        return values[0]
    files: dict[int, str] = {}
    for value in values:
        address, equals, path = value.partition("=")
        if not equals:
            pytest.fail(f"{FIRMWARE} {value}: neither a build nor ADDRESS=FILE", pytrace=False)
        files[parse_number(address, "address")] = path
    return files


@pytest.fixture
def flashed(device: Device, espwire_firmware: Any) -> Device:
    """The chip in its bootloader, with the firmware in its flash. What is there already is not written again."""
    from espwire.blob import Blob
    from espwire.flash.write import write_build, write_flash
    from espwire.image.build_dir import read_build

    if isinstance(espwire_firmware, dict):
        write_flash(device, [Blob(address, data) for address, data in espwire_firmware.items()])
    else:
        write_build(device, read_build(espwire_firmware))
    return device


@pytest.fixture
def console(espwire_board: Board, request: pytest.FixtureRequest) -> Console:
    """The output of the application, which is started for this test; firmware is written before."""
    if "flashed" in request.fixturenames:
        request.getfixturevalue("flashed")
    return espwire_board.start()
