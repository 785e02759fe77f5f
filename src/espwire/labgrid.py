"""Drivers for labgrid: list ``espwire.labgrid`` under ``imports:`` of a labgrid configuration.

``EspwireDriver`` flashes, erases and reads a chip; ``EspwireConsoleDriver`` is a console that does not reset the board
when it is opened. Both bind to the serial port resources of labgrid. Errors are those of espwire (``ToolError``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import attr
import pexpect
from labgrid.driver import Driver
from labgrid.driver.consoleexpectmixin import ConsoleExpectMixin
from labgrid.factory import target_factory
from labgrid.protocol import ConsoleProtocol
from labgrid.resource import NetworkSerialPort
from labgrid.step import step
from labgrid.util.proxy import proxymanager

from espwire.blob import Blob
from espwire.console import WRITE_S, Console
from espwire.device.connect import connect
from espwire.device.connect import reset as reset_chip
from espwire.device.device import Device
from espwire.errors import PortNotFound, UsageError
from espwire.flash.erase import erase_flash, erase_region
from espwire.flash.read import read_flash
from espwire.flash.write import write_build, write_flash
from espwire.image.build_dir import read_build
from espwire.transport.base import CancelToken, Transport
from espwire.transport.place import open_patiently
from espwire.transport.url import open_transport

PORTS = {
    "SerialPort",
    "NetworkSerialPort",
}  # RawSerialPort and USBSerialPort are subclasses of SerialPort
SCHEMES = {"rfc2217": "rfc2217", "raw": "socket"}


def find_url(port: Any) -> str:
    """The port of a resource, for ``open_transport``; through labgrid's SSH proxy, if it has one.

    :raises UsageError: code ``bad-port``: unknown protocol
    :raises PortNotFound: the device is not connected
    """
    if isinstance(port, NetworkSerialPort):
        scheme = SCHEMES.get(port.protocol)
        if scheme is None:
            raise UsageError(
                f"unknown protocol {port.protocol!r} of a NetworkSerialPort",
                hint="Use rfc2217 or raw.",
                code="bad-port",
            )
        host, number = proxymanager.get_host_and_port(port)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{number}"
    if not port.port:
        raise PortNotFound(
            f"the resource {type(port).__name__} has no port",
            hint="Check that the board is connected, and the match of the resource.",
        )
    return str(port.port)


def open_port(port: Any) -> Transport:
    """Open the port of a resource at its speed.

    :raises ToolError: as ``find_url`` and ``open_transport``
    """
    url, token = find_url(port), CancelToken()
    return open_patiently(lambda: open_transport(url, baud=port.speed, cancel=token), token)


@target_factory.reg_driver
@attr.s(eq=False)
class EspwireDriver(Driver):
    """Flashes, erases and reads a chip. The port is open only during a call.

    Args:
        chip (str): expected chip; None: any
        baud (int): of data; None: the fastest rate that works
    """

    bindings = {"port": PORTS}  # noqa: RUF012  as labgrid does it
    chip: str | None = attr.ib(
        default=None, validator=attr.validators.optional(attr.validators.instance_of(str))
    )
    baud: int | None = attr.ib(
        default=None, validator=attr.validators.optional(attr.validators.instance_of(int))
    )

    @contextmanager
    def connect(self) -> Iterator[Device]:
        """The chip in its bootloader; at the end the application is started."""
        with (
            closing(open_port(self.port)) as transport,
            connect(transport, chip=self.chip, baud=self.baud or "auto") as device,
        ):
            yield device
            if device.transport.info.can_reset:
                device.leave("hard-reset")

    @Driver.check_active
    @step(args=["files"])
    def flash(self, files: str | os.PathLike[str] | Mapping[int, str | bytes]) -> None:
        """Write and verify: the folder of a build, or files or bytes by address."""
        if isinstance(files, Mapping):
            blobs = [Blob(address, data) for address, data in files.items()]
            with self.connect() as device:
                write_flash(device, blobs)
            return
        build = read_build(files)
        with self.connect() as device:
            write_build(device, build)

    @Driver.check_active
    @step(args=["address", "size"])
    def erase(self, address: int | None = None, size: int | None = None) -> None:
        """Erase the whole flash, or ``size`` bytes from ``address``."""
        with self.connect() as device:
            if address is None:
                erase_flash(device)
            else:
                erase_region(device, address, size)

    @Driver.check_active
    @step(args=["address", "size"])
    def read(self, address: int, size: int | None = None) -> bytes:
        """Read flash; without ``size`` up to its end."""
        with self.connect() as device:
            return read_flash(device, address, size)

    @Driver.check_active
    @step()
    def reset(self) -> None:
        """Start the application."""
        with closing(open_port(self.port)) as transport:
            reset_chip(transport)

    @Driver.check_active
    @contextmanager
    def console(self) -> Iterator[Console]:
        """Start the application and listen to it at the ``speed`` of the port."""
        with (
            closing(open_port(self.port)) as transport,
            connect(transport, chip=self.chip, stub=False) as device,
        ):
            received = device.start_application(self.port.speed)
            yield Console(device.transport, received)


@target_factory.reg_driver
@attr.s(eq=False)
class EspwireConsoleDriver(ConsoleExpectMixin, Driver, ConsoleProtocol):
    """A console for labgrid's own drivers and strategies. Opening it does not reset the board."""

    bindings = {"port": PORTS}  # noqa: RUF012
    txdelay: float = attr.ib(default=0.0, validator=attr.validators.instance_of(float))
    txchunk: int = attr.ib(default=1, validator=attr.validators.instance_of(int))
    transport: Transport | None = None
    _kept = b""

    def on_activate(self) -> None:
        """Open the port."""
        self.transport = open_port(self.port)

    def on_deactivate(self) -> None:
        """Close the port."""
        if self.transport is not None:
            self.transport.close()
            self.transport = None

    def _read(self, size: int = 1, timeout: float = 0.0, max_size: int | None = None) -> bytes:
        """At least one byte; what ``max_size`` excludes is kept.

        :raises pexpect.TIMEOUT: nothing arrived
        """
        assert self.transport is not None
        data = self._kept or self.transport.read(timeout)
        if not data:
            raise pexpect.TIMEOUT(f"nothing was received within {timeout:.2f} s")
        most = max_size or len(data)
        self._kept = data[most:]
        return data[:most]

    def _write(self, data: bytes) -> int:
        assert self.transport is not None
        self.transport.write(data, self.transport.now() + WRITE_S)
        return len(data)
