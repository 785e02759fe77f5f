"""Native USB under another name after each reset: connecting, flashing and leaving follow the device, not its path."""

from __future__ import annotations

import random

import pytest

from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.device.connect import connect
from espwire.events import Note
from espwire.flash.write import write_flash
from espwire.transport.ports import SystemPort, choose
from espwire.virtual.chip import State
from espwire.virtual.usb_bus import VirtualBus

SEEDS = 200
PORTS = [
    (name, kind)
    for name in chip_ids()
    for kind, there in (
        ("usb-jtag", load_chip(name).usb.serial_jtag),
        ("usb-otg", load_chip(name).usb.otg),
    )
    if there
]
MAC = "24:6F:28:AA:BB:CC"
DATA = b"\xe9\x01\x02\x20" + random.Random(3).randbytes(3 * 4096)


def plug(bus, chip, kind, mac=MAC, **keywords):
    # revision 1.0: later ESP32-P4 need another image header; nothing here is about that
    revision = "&revision=100" if chip == "esp32p4" else ""
    return bus.add(f"{chip}?kind={kind}&boot=app&profile=instant&mac={mac}{revision}", **keywords)


def flash_and_leave(port, chip):
    """What a user does; what was noted on the way."""
    notes = []
    address = load_chip(chip).flash.bootloader_offset + 0x10000
    with connect(
        port,
        report=lambda event: notes.append(event) if isinstance(event, Note) else None,
        stub=False,
    ) as device:
        assert device.chip.id == chip
        device.attach_flash()
        write_flash(device, [Blob(address, DATA, "data.bin")])
        device.leave("hard-reset")
    return address, [note.text for note in notes]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_connect_flash_and_leave_follow_the_device_through_new_names(seed):
    chip, kind = PORTS[seed % len(PORTS)]
    bus = VirtualBus(seed=seed)
    # a second board of the same kind, whose names come from the same pool
    plug(bus, chip, kind, "24:6F:28:00:00:01")
    port = plug(bus, chip, kind)
    bystander, device = bus.devices
    before = bytes(bystander.chip.flash.contents[:0x20000]), bystander.chip.boots
    address, notes = flash_and_leave(port, chip)
    bus.sleep(1.0)
    assert bytes(device.chip.flash.contents[address : address + len(DATA)]) == DATA
    assert device.chip.state is State.APP
    assert len(device.paths) >= 3, "into the loader and out of it again"
    assert all(one != two for one, two in zip(device.paths, device.paths[1:], strict=False))
    for path in device.paths[1:]:
        assert any(path in note for note in notes), (path, notes)
    assert (bytes(bystander.chip.flash.contents[:0x20000]), bystander.chip.boots) == before
    assert len(bystander.paths) == 1


@pytest.mark.parametrize(("chip", "kind"), PORTS, ids=lambda value: value)
def test_a_port_of_the_system_follows_by_the_list_alone(chip, kind):
    bus = VirtualBus(seed=7)
    plug(bus, chip, kind)
    device = bus.devices[0]
    identity = choose(bus.enumerate())
    port = SystemPort(
        identity, lister=bus.enumerate, opener=bus.open_path, clock=lambda: bus.now, sleep=bus.sleep
    )
    flash_and_leave(port, chip)
    bus.sleep(1.0)
    assert device.chip.state is State.APP
    assert len(device.paths) >= 3


@pytest.mark.parametrize("chip", [name for name, kind in PORTS if kind == "usb-otg"])
def test_where_all_loaders_say_serial_number_0_the_place_tells(chip):
    for seed in range(4):
        bus = VirtualBus(seed=seed)
        plug(bus, chip, "usb-otg", "24:6F:28:00:00:01", serial="0")
        port = plug(bus, chip, "usb-otg", serial="0")
        flash_and_leave(port, chip)
        assert len(bus.devices[0].paths) == 1
        assert len(bus.devices[1].paths) >= 3


@pytest.mark.parametrize("chip", chip_ids())
def test_behind_a_bridge_the_name_stays(chip):
    bus = VirtualBus(seed=1)
    port = plug(bus, chip, "uart")
    _, notes = flash_and_leave(port, chip)
    assert bus.devices[0].paths == ["/dev/ttyUSB0"]
    assert not [note for note in notes if "tty" in note]
