"""What our stub is told before it starts: which port the host is at, and how fast the flash may be clocked."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import replace

import pytest

from espwire import Device, connect
from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.cli.main import main
from espwire.device import device as devices
from espwire.device.stub_image import (
    FIRST_BATCH,
    OPTIONS,
    StubOptions,
    load_stub,
    parse_stub_options,
)
from espwire.device.stub_upload import open_stub
from espwire.errors import ConnectError, DataError
from espwire.events import Event, Note, StubStarted, Warned
from espwire.flash.read import read_flash
from espwire.flash.write import write_flash
from espwire.protocol import slip
from espwire.protocol.opcodes import Op
from espwire.transport.base import Transport
from espwire.transport.url import open_transport

DATA = random.Random(11).randbytes(9000)
MODES = ["twin", "engine"]
DATA_AT = 24  # of a block in a packet
USB = "virtual:esp32c3?size=1MB&kind=usb-jtag&stub="


def told(device: Device) -> StubOptions:
    """What stands in the options of the stub that was uploaded."""
    where = load_stub(device.chip.id).options_address
    return parse_stub_options(
        device.transport.chip.registers.ram.read(where, OPTIONS.size + FIRST_BATCH)
    )


def start(transport: Transport, **more: object) -> tuple[Device, list[str]]:
    """The device, and the stubs that ran and the warnings that came, in order."""
    events: list[Event] = []
    device = connect(transport, report=events.append, stub=True, **more)
    names = [
        e.stub if isinstance(e, StubStarted) else e.code
        for e in events
        if isinstance(e, StubStarted | Warned)
    ]
    return device, names


def write_and_read(device: Device) -> None:
    write_flash(device, [Blob(0x10000, DATA)])
    assert read_flash(device, 0x10000, len(DATA)) == DATA


@pytest.mark.parametrize("mode", MODES)
def test_it_talks_over_the_chips_own_usb_port(mode: str) -> None:
    device, names = start(open_transport(USB + mode))
    with device:
        assert names == ["stub"]
        assert told(device).over_usb
        write_and_read(device)


@pytest.mark.parametrize("revision", ["1.0", "1.1"])
@pytest.mark.parametrize("mode", MODES)
def test_behind_a_server_the_rom_variable_shows_the_port(mode: str, revision: str) -> None:
    transport = open_transport(f"{USB}{mode}&revision={revision}&boot=download")
    transport.info = replace(
        transport.info, kind="tcp", vid=None, pid=None, can_reset=False, remote=True
    )
    device, names = start(transport)
    with device:
        assert names == ["stub"]
        write_and_read(device)


@pytest.mark.parametrize(("chip", "value"), [("esp32s2", 2), ("esp32s3", 3), ("esp32p4", 5)])
def test_behind_a_server_usb_otg_keeps_the_rom(chip: str, value: int) -> None:
    """The stub cannot serve this port: it is not started, so the chip needs no reset."""
    transport = open_transport(f"virtual:{chip}?size=1MB")
    transport.info = replace(transport.info, kind="tcp", can_change_baud=False, remote=True)
    variable = load_chip(chip).usb.console_variable
    address = variable.find_address(transport.chip.config.revision)
    transport.chip.registers.preset[address & ~3] = value << address % 4 * 8
    events: list[Event] = []
    with connect(transport, report=events.append, stub=True) as device:
        notes = [event.text for event in events if isinstance(event, Note)]
        assert "the ROM loader is used: the stub does not work over USB-OTG" in notes
        assert device.loader.dialect.name == "ROM"


@pytest.mark.parametrize("chip", ["esp32c3", "esp32", "esp8266"])
def test_behind_a_server_a_uart_is_a_uart(chip: str) -> None:
    transport = open_transport(f"virtual:{chip}?size=1MB")
    transport.info = replace(transport.info, kind="tcp", can_change_baud=False, remote=True)
    device, names = start(transport)
    with device:
        assert names == ["stub"]
        assert not told(device).over_usb


@pytest.mark.parametrize("mode", MODES)
def test_with_the_wrong_port_the_stub_gets_no_answer_and_the_rom_is_used(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "find_own_port", lambda *_: "")
    device, names = start(open_transport(USB + mode))
    with device:
        assert names == ["stub-failed"]
        write_flash(device, [Blob(0x10000, DATA[:4096])])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chip", ["esp32c3", "esp32", "esp8266"])
def test_flash_at_the_controllers_own_pins_is_clocked_at_40_mhz(chip: str, mode: str) -> None:
    device, names = start(open_transport(f"virtual:{chip}?size=1MB&stub={mode}"))
    with device:
        assert names == ["stub"]
        assert told(device).spi_clock == load_chip(chip).stub.own.spi_clocks.direct


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "query",
    ["pins", "package=5&spi_pad_clk=6&spi_pad_q=17&spi_pad_d=8&spi_pad_cs=16&spi_pad_hd=11"],
)
def test_flash_at_other_pins_is_clocked_at_20_mhz(query: str, mode: str) -> None:
    device = connect(
        open_transport(f"virtual:esp32?size=1MB&stub={mode}&{query.replace('pins', '')}"),
        stub=False,
    )
    with device:
        if query == "pins":
            device.use_flash_pins("HSPI")
        assert device.use_stub()
        assert told(device).spi_clock == load_chip("esp32").stub.own.spi_clocks.routed
        write_and_read(device)


def test_where_the_clock_is_left_alone_so_is_the_flashs() -> None:
    transport = open_transport("virtual:esp32?size=1MB&stub=engine")
    ends: list[bytes] = []
    write = transport.write

    def lose_first_start(data: bytes, deadline: float) -> None:
        if data[1:3] == b"\0\x06" and not ends:
            ends.append(data)
            return
        write(data, deadline)

    transport.write = lose_first_start
    device, names = start(transport)
    with device:
        assert names == ["stub"]
        assert (told(device).leave_clock, told(device).spi_clock) == (True, 0)


def test_the_esp32_has_its_core_at_full_voltage_before_it_takes_the_pll() -> None:
    registers = load_chip("esp32").stub.own.registers
    transport = open_transport("virtual:esp32?size=1MB&stub=engine")
    writes: list[int] = []
    write = transport.chip.registers.write

    def watch(t: float, address: int, value: int, mask: int = 0xFFFFFFFF) -> bool:
        writes.append(address)
        return write(t, address, value, mask)

    transport.chip.registers.write = watch
    device, _ = start(transport)
    with device:
        assert device.loader.read_reg(registers["core_voltage"]) >> 11 & 7 == 7
        assert writes.index(registers["core_voltage"]) < writes.index(registers["clock_control"])


PLACES = [(8, 72), (978, 984), (2000, 4004), (5000, 5004), (100, 6000), (12, 3000)]


class SpoiledUpload:
    """Flips one bit in two bytes of the first block of code on its way to the chip."""

    def __init__(self, transport: Transport, places: tuple[int, int]) -> None:
        self.done = False
        self._write, self._places = transport.write, places
        vars(transport)["write"] = self.write

    def write(self, data: bytes, deadline: float) -> None:
        packets = slip.Decoder().feed(data)
        for number, packet in enumerate(packets):
            if packet[1] == Op.MEM_DATA and len(packet) > 6000 and not self.done:
                changed = bytearray(packet)
                for place in self._places:
                    changed[DATA_AT + place] ^= 0x40
                packets[number], self.done = bytes(changed), True
                data = b"".join(map(slip.encode, packets))
        self._write(data, deadline)


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("chip", ["esp32", "esp32c3", "esp32s3"])
def test_code_that_was_damaged_without_a_trace_in_the_checksum_is_uploaded_again(
    chip: str, places: tuple[int, int]
) -> None:
    """The ROM's checksum of a block misses the same flip in two bytes."""
    transport = open_transport(f"virtual:{chip}?size=1MB&stub=engine")
    spoiled = SpoiledUpload(transport, places)
    device, names = start(transport)
    with device:
        assert spoiled.done
        assert names == ["stub"]
        ram = device.transport.chip.registers.ram
        address, code = load_stub(chip).segments[0]
        assert ram.read(address, len(code)) == code
        write_and_read(device)


def test_a_stub_that_does_not_start_on_a_chip_that_must_not_be_reset_names_the_option():
    transport = open_transport("virtual:esp32c3?size=1MB&stub=off&boot=download")
    with pytest.raises(ConnectError) as caught:
        connect(transport, before="no-reset", stub=True)
    assert caught.value.code == "stub-failed"
    assert "--before no-reset forbids it" in str(caught.value)
    assert caught.value.hint.startswith("Leave out --before no-reset")


@pytest.mark.parametrize(("chip", "text", "fits"), [
    ("esp32c3", 0x40380000, True), ("esp32c3", 0x40800000, False), ("esp32c3", 0x400BE000, False),
    ("esp32", 0x400BE000, True), ("esp32", 0x40380000, False), ("esp8266", 0x4010D000, True),
    ("esp8266", 0x400BE000, False), ("esp32c6", 0x40800000, True), ("esp32p4", 0x40800000, False),
])  # fmt: skip
def test_a_stub_for_another_chip_is_refused_by_its_addresses(chip, text, fits, tmp_path):
    code = base64.b64encode(bytes(0x1000)).decode()
    stub = tmp_path / "stub.json"
    stub.write_text(json.dumps({"entry": text, "text_start": text, "text": code}))
    if fits:
        assert open_stub(stub, load_chip(chip), 0).entry == text
        return
    with pytest.raises(DataError) as caught:
        open_stub(stub, load_chip(chip), 0)
    assert caught.value.code == "stub-wrong-chip"
    assert f"4,096 bytes to {text:#x}" in str(caught.value)


def test_no_reset_stub_without_a_stub_is_explained(capsys):
    words = ["-p", "virtual:esp32c3?size=1MB", "--no-stub", "--after", "no-reset-stub", "flash-id"]
    assert main(words) == 0
    assert "the ROM loader stays, because no stub is used" in capsys.readouterr().out
