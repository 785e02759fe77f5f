"""Targets of the conformance tests: the stub model, the packed image on a CPU engine, the sources on this PC, any port."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from tests.stub_drivers.client import StubClient
from tests.stub_drivers.frames import codecs, frame, words
from tests.stub_drivers.host_program import HostStub
from tests.stub_drivers.ports import stub_ports

from espwire.chips.model import Chip
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.protocol import stub as s
from espwire.protocol.opcodes import Op
from espwire.transport.url import open_transport

HOST = "host build"
HOST_REGISTER = 0x60000000


@dataclass
class Place:
    """A running stub, and what the checks need to know about it.

    ``scratch``: 64 KiB of flash to overwrite. ``large``: bytes of a long write. ``writable``: two registers that keep
    their values.
    """

    stub: StubClient
    scratch: int
    chip: Chip | None
    slow: bool
    device: Device | None = None

    @property
    def large(self) -> int:
        return 4500 if self.slow else 60_001

    @property
    def readable(self) -> int:
        return HOST_REGISTER if self.chip is None else self.chip.uart.clock_divider_address

    @property
    def writable(self) -> int:
        return (
            HOST_REGISTER if self.chip is None else self.chip.spi.base + self.chip.spi.data_offset
        )


def target_names(port: str | None) -> list[str]:
    """What the checks run over: a port alone, where one is given."""
    if port:
        return [port]
    urls = [url for _, url in stub_ports("size=4MB")]
    return [f"{url}&stub={mode}" for url in urls for mode in ("twin", "engine")] + [HOST]


def whole_suite_targets() -> list[str]:
    """The targets for which CI runs the whole suite: the sources on this PC, and one model of each kind.

    The model is the same code for all chips. A kind is what it, or the library that starts it, takes from the chip's
    data besides addresses and clocks.
    """
    models: dict[tuple[object, ...], str] = {}
    for chip, url in stub_ports("size=4MB&stub=twin"):
        own = chip.stub.own
        assert own is not None
        powered = chip.flash_power_on is not None
        over_usb = "kind=usb-jtag" in url
        kind = (chip.cpu.architecture, own.can_lzma, own.can_encrypt, powered, over_usb)
        models.setdefault(kind, url)
    return [*models.values(), HOST]


class Target:
    """Keeps a stub running, and restarts it after a crash or a reset."""

    def __init__(self, name: str, scratch: int, *, soak: bool) -> None:
        self.name, self._scratch, self._soak = name, scratch, soak
        self._place: Place | None = None

    def place(self) -> Place:
        """A stub that runs and waits for a request."""
        if self._place is None:
            self._place = self._start()
            self._place.stub.quiet(0.05)
        return self._place

    def drop(self) -> None:
        """The stub is gone or in an unknown state."""
        place, self._place = self._place, None
        if place is not None:
            place.stub.transport.close()

    def _start(self) -> Place:
        if self.name == HOST:
            return Place(HostStub(), self._scratch, None, slow=False)
        device = connect(open_transport(self.name), before="default-reset", stub=True)
        assert device.loader.dialect.capabilities is not None, "the stub does not run"
        if device.chip.flash_power_on is not None:
            device.attach_flash()
        slow = "stub=engine" in self.name and not self._soak
        return Place(StubClient(device.transport), self._scratch, device.chip, slow, device)


def md5(stub: StubClient, offset: int, size: int) -> bytes:
    reply, status = stub.call(frame(Op.SPI_FLASH_MD5, words(offset, size, 0, 0)))
    assert status == 0
    return reply.body


def require(stub: StubClient, codec: int) -> None:
    """Skip if the stub does not decompress this."""
    capabilities = s.parse_capabilities(stub.call(s.AskCapabilities().packet())[0].body)
    assert capabilities is not None
    if codec not in codecs(capabilities.features):
        pytest.skip("this chip's stub does not have this codec")
