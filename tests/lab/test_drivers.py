"""The drivers for labgrid, on virtual chips; a local serial port through ser2net, for data only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from labgrid import Environment, Target
from labgrid.resource import NetworkSerialPort, RawSerialPort
from labgrid.resource.udev import USBSerialPort
from laboratory import Chip, Laboratory

import espwire
from espwire.errors import PortNotFound, UsageError
from espwire.labgrid import EspwireConsoleDriver, EspwireDriver, find_url

CONFIG = """
imports:
  - espwire.labgrid
targets:
  main:
    resources:
      NetworkSerialPort:
        host: 127.0.0.1
        port: {port}
    drivers:
      EspwireDriver:
        chip: esp32c3
      EspwireConsoleDriver: {{}}
"""


@pytest.fixture
def chip() -> Iterator[Chip]:
    found = Chip()
    yield found
    found.kill()


def test_a_target_is_flashed_erased_read_and_listened_to(chip: Chip, tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_text(CONFIG.format(port=chip.port))
    target = Environment(str(tmp_path / "env.yaml")).get_target("main")
    driver = target.get_driver("EspwireDriver", activate=False)
    target.activate(driver)
    data = os.urandom(5000)
    (tmp_path / "app.bin").write_bytes(data)
    driver.flash({0x10000: str(tmp_path / "app.bin")})
    assert driver.read(0x10000, 5000) == data
    driver.erase(0x10000, 0x1000)
    assert driver.read(0x10000, 5000) == b"\xff" * 0x1000 + data[0x1000:]
    with driver.console() as console:
        assert console.expect(r"boot:0x\w+ \((\w+)\)")[1] == "SPI_FAST_FLASH_BOOT"
    target.deactivate(driver)
    serial = target.get_driver("EspwireConsoleDriver")
    assert serial.transport is not None
    serial.transport.set_lines(dtr=False, rts=True)
    serial.transport.sleep(0.1)
    serial.transport.set_lines(dtr=False, rts=False)
    assert serial.expect(r"boot:0x\w+ \((\w+)\)", timeout=20)[2][1] == b"SPI_FAST_FLASH_BOOT"
    target.deactivate(serial)


@pytest.mark.parametrize("kind", [RawSerialPort, USBSerialPort, NetworkSerialPort])
def test_every_kind_of_port_is_bound(kind: type) -> None:
    """USBSerialPort only so: it needs udev and hardware."""
    target = Target("main")
    if kind is NetworkSerialPort:
        port = kind(target, None, host="::1", port=4000, protocol="raw")
    else:
        port = (
            kind(target, None) if kind is USBSerialPort else kind(target, None, port="/dev/no-such")
        )
    assert EspwireDriver(target, "flash").port is port
    assert EspwireConsoleDriver(target, "log").port is port


def test_the_url_of_a_port() -> None:
    def network(**params: object) -> NetworkSerialPort:
        return NetworkSerialPort(None, "n", **params)

    assert find_url(network(host="[::1]", port=4000, protocol="raw")) == "socket://[::1]:4000"
    assert find_url(network(host="lab", port=1)) == "rfc2217://lab:1"
    assert find_url(RawSerialPort(None, "raw", port="/dev/ttyS7")) == "/dev/ttyS7"
    with pytest.raises(UsageError, match="unknown protocol 'ssh'"):
        find_url(network(host="lab", port=1, protocol="ssh"))


def test_a_usb_port_is_found_by_udev_without_hardware() -> None:
    port = USBSerialPort(None, "usb", match={"ID_SERIAL_SHORT": "no-such-serial"})
    with pytest.raises(PortNotFound, match="USBSerialPort has no port"):
        find_url(port)
    port.port = "/dev/ttyUSB7"  # as udev sets it
    assert find_url(port) == "/dev/ttyUSB7"


@pytest.mark.skipif(
    not (shutil.which("ser2net") or os.path.isfile("/usr/sbin/ser2net")),
    reason="there is no ser2net on this machine",
)
def test_ser2net_exports_a_local_port_for_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pseudo-terminal has no modem lines, so no chip can be reset through it."""
    monkeypatch.setenv("LG_COORDINATOR", "")
    device, terminal = os.openpty()
    path = os.ttyname(terminal)
    lab = Laboratory(tmp_path, {"host": {"log": {"RawSerialPort": {"port": path}}}})
    try:
        transport = espwire.open_transport("labgrid://host-log")
        try:
            os.write(device, b"from the board\n")
            received = b""
            while b"board" not in received:
                part = transport.read(10)
                assert part, received
                received += part
            transport.write(b"to the board", transport.now() + 10)
            sent = b""
            while b"board" not in sent:
                sent += os.read(device, 100)
            assert sent == b"to the board"
        finally:
            transport.close()
        assert lab.find_acquired() == []
    finally:
        lab.close()
        os.close(device)
        os.close(terminal)
