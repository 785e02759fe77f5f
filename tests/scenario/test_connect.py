"""Connecting to each chip: who it is, what its flash is, what that costs; and what happens when it goes wrong."""

from __future__ import annotations

import pytest

from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.compress import deflate_zlib
from espwire.device.connect import connect
from espwire.device.loader import MAGIC_ADDRESS
from espwire.errors import (
    ConnectError,
    DeviceError,
    Unsupported,
    UsageError,
    WrongBootMode,
    WrongChip,
)
from espwire.events import ChipFound, Note, Opened, Resetting, Warned
from espwire.flash.write import write_flash
from espwire.protocol.opcodes import Op
from espwire.transport.url import open_transport
from espwire.virtual.transport import open_virtual

SECURE = tuple(name for name in chip_ids() if load_chip(name).rom.secure_ops)
JTAG = tuple(name for name in chip_ids() if load_chip(name).usb.serial_jtag)
OTG = tuple(name for name in chip_ids() if load_chip(name).usb.otg)
MOST_TRIPS, MOST_TRIPS_ONE_BY_ONE = 20, 50


def open_device(kind, query="", **keywords):
    return connect(f"virtual:{kind}?profile=instant&{query}", **({"stub": False} | keywords))


def requests(packets):
    """The commands among ``packets``, in order."""
    return [packet.command for packet in packets if isinstance(packet.content, bytes)]


def write(device, data, address=0x10000):
    backend = device.backend
    packed = deflate_zlib(data) if backend.limits.can_compress and len(data) % 4 == 0 else None
    backend.write(address, data, packed=packed)
    return bytes(device.transport.chip.flash.contents[address : address + len(data)])


@pytest.mark.parametrize("chip", chip_ids())
def test_every_chip_is_found_identified_attached_and_written_in_few_trips(chip):
    packets, events = [], []
    with open_device(chip, report=events.append, on_packet=packets.append) as device:
        assert device.chip.id == chip
        assert device.mac == "24:0a:c4:00:01:10"
        assert device.security.known is (chip != "esp8266")
        info = device.attach_flash()
        assert (info.jedec, info.size, info.maker_name) == (0x1640EF, 0x400000, "Winbond")
        data = bytes(range(256)) * 20
        assert write(device, data) == data
        before_data = [type(command).__name__ for command in requests(packets)]
        first = next(at for at, name in enumerate(before_data) if name.endswith("Data"))
        runs = [
            name
            for at, name in enumerate(before_data[:first])
            if at == 0 or name != before_data[at - 1]
        ]
        together = device.loader.dialect.requests_ahead > 1  # then a run of reads is one trip
        assert (len(runs) if together else first) <= (
            MOST_TRIPS if together else MOST_TRIPS_ONE_BY_ONE
        ), before_data
        reads = [
            command.address
            for command in requests(packets)[:first]
            if type(command).__name__ == "ReadReg"
        ]
        fuses = [
            at for at in reads if not device.chip.spi.base <= at < device.chip.spi.base + 0x100
        ]
        counts = {at: fuses.count(at) for at in fuses if at != MAGIC_ADDRESS}
        assert set(counts.values()) == {2}, "every register is read twice"
    assert [type(event) for event in events[:1]] == [Opened]
    assert next(event for event in events if isinstance(event, ChipFound)).mac == device.mac


@pytest.mark.parametrize(
    ("chip", "query", "revision", "name"),
    [
        ("esp8266", "", 0, "ESP8266EX"),
        ("esp8266", "esp8285-bits=1&flash-capacity=1", 0, "ESP8285N08"),
        ("esp32", "revision=100&package=0", 100, "ESP32-D0WDQ6"),
        ("esp32", "revision=301&package=4", 301, "ESP32-U4WDH"),
        ("esp32", "revision=3.1&package=6", 301, "ESP32-PICO-V3-02"),
        ("esp32s2", "revision=0&flash-capacity=1", 0, "ESP32-S2FH2"),
        ("esp32s2", "revision=100&flash-capacity=2&psram-capacity=1", 100, "ESP32-S2FNR2"),
        ("esp32s3", "revision=0", 0, "ESP32-S3 (QFN56)"),
        ("esp32s3", "revision=2&package=1", 2, "ESP32-S3-PICO-1 (LGA56)"),
        ("esp32c2", "revision=100", 100, "ESP32-C2"),
        ("esp32c2", "revision=200&package=1", 200, "ESP8684H"),
        ("esp32c3", "revision=3&package=3", 3, "ESP8686 (QFN24)"),
        ("esp32c3", "revision=101&package=1", 101, "ESP8685 (QFN28)"),
        (
            "esp32c5",
            "revision=100&temperature=1&flash-capacity=1&psram-capacity=2",
            100,
            "ESP32-C5HF4R8",
        ),
        ("esp32c5", "revision=1", 1, "ESP32-C5N"),
        ("esp32c6", "revision=2&package=1&flash-capacity=2", 2, "ESP32-C6FH8 (QFN32)"),
        ("esp32c6", "revision=0", 0, "ESP32-C6 (QFN40)"),
        ("esp32c61", "revision=100&package=3&flash-capacity=2", 100, "ESP32-C61NF8LA"),
        ("esp32c61", "revision=1&temperature=1", 1, "ESP32-C61H"),
        ("esp32h2", "revision=102&flash-capacity=1&temperature=1", 102, "ESP32-H2FH4S"),
        ("esp32h2", "revision=1&flash-capacity=2&temperature=2", 1, "ESP32-H2FN2"),
        ("esp32h21", "revision=1&flash-capacity=2", 1, "ESP32-H21NF2"),
        ("esp32h21", "revision=0&temperature=1", 0, "ESP32-H21H"),
        ("esp32h4", "revision=0&flash-capacity=1&flash-vendor=3&temperature=1", 0, "ESP32-H4HFL4"),
        ("esp32h4", "revision=1&psram-capacity=1&temperature=1", 1, "ESP32-H4HR8"),
        ("esp32p4", "revision=100", 100, "ESP32-P4"),
        ("esp32p4", "revision=301", 301, "ESP32-P4"),
        ("esp32p4", "revision=302", 302, "ESP32-P4"),
        ("esp32e22", "", 0, "ESP32-E22"),
        ("esp32s31", "revision=0", 0, "ESP32-S31"),
        ("esp32s31", "revision=101", 101, "ESP32-S31"),
    ],
)
def test_revisions_and_packages(chip, query, revision, name):
    with open_device(chip, query) as device:
        assert (device.revision, device.description) == (revision, name)
        assert device.attach_flash().size == 0x400000
        assert write(device, b"proof" * 300) == b"proof" * 300


@pytest.mark.parametrize("chip", SECURE)
def test_secure_download_mode_writes_and_nothing_else(chip):
    events, packets = [], []
    # a later ESP32-P4 needs registers to switch its flash on, which this mode bars
    revision = "&revision=100" if load_chip(chip).flash_power_on else ""
    with open_device(
        chip, "secure-download=1" + revision, report=events.append, on_packet=packets.append
    ) as device:
        assert device.chip.id == chip
        assert device.secure_download
        assert not device.revision_known
        assert device.mac == ""
        info = device.attach_flash()
        assert (info.jedec, info.size, info.assumed) == (None, device.chip.flash.default_size, True)
        assert any(
            isinstance(event, Warned) and event.code == "flash-size-unknown" for event in events
        )
        data = bytes(range(256)) * 9
        device.backend.write(0x10000, data)
        assert device.transport.chip.flash.contents[0x10000 : 0x10000 + len(data)] == data
        for forbidden in (
            lambda: device.flash_md5(0, 16),
            lambda: device.read_flash(0, 16),
            lambda: device.loader.read_reg(0),
        ):
            with pytest.raises(Unsupported) as caught:
                forbidden()
            assert caught.value.code == "secure-download-mode"
    assert {command.op for command in requests(packets)} <= device.chip.rom.secure_ops


def test_the_esp32s2_in_secure_download_mode_is_told_by_the_short_answer_alone():
    with open_device("esp32s2", "secure-download=1") as device:
        assert device.security.chip_id is None
        assert device.attach_flash(size=0x1000000).size == 0x1000000


@pytest.mark.parametrize("chip", JTAG)
def test_over_usb_jtag_the_watchdogs_are_off(chip):
    with open_device(chip, "kind=usb-jtag", baud=921600) as device:
        device.attach_flash()
        device.transport.sleep(60)
        assert write(device, b"still here" * 50) == b"still here" * 50


@pytest.mark.parametrize("chip", OTG)
def test_over_usb_otg(chip):
    with open_device(chip, "kind=usb-otg") as device:
        device.attach_flash()
        assert write(device, b"otg" * 50) == b"otg" * 50


@pytest.mark.parametrize("chip", chip_ids())
@pytest.mark.parametrize("starts", ["continuous", "sleepy&vendor=xmc"])
def test_a_flash_in_an_odd_state_is_brought_back(chip, starts):
    with open_device(chip, f"starts={starts}") as device:
        assert device.attach_flash().size == 0x400000
        assert write(device, b"awake" * 100) == b"awake" * 100


@pytest.mark.parametrize("size", ["256KB", "1MB", "16MB", "64MB", "128MB"])
def test_the_size_is_told_by_the_id(size):
    with open_device("esp32s3", f"size={size}") as device:
        expected = int(size[:-2]) << (20 if size.endswith("MB") else 10)
        assert device.attach_flash().size == expected


@pytest.mark.parametrize(
    ("chip", "query"),
    [(chip, "") for chip in chip_ids() if chip != "esp8266"]
    + [
        ("esp32", "crystal=26"),
        ("esp32c2", "crystal=40"),
        ("esp32c5", "crystal=40&rom-crystal=48"),
        ("esp32c5", "rom-crystal=40"),
    ],
)
def test_every_rom_can_be_brought_to_another_rate(chip, query):
    with open_device(chip, query, baud=460800) as device:
        assert device.loader.baud == 460800
        device.attach_flash()
        assert write(device, b"fast" * 2000) == b"fast" * 2000


def test_the_esp8266_stays_at_its_rate_and_says_so():
    events = []
    with open_device("esp8266", baud=460800, report=events.append) as device:
        assert device.loader.baud == 115200
        with pytest.raises(Unsupported):
            device.change_baud(230400)
        with pytest.raises(Unsupported, match="does not support READ_FLASH_SLOW"):
            device.read_flash(0, 64)
    assert [event.code for event in events if isinstance(event, Warned)] == ["no-baud-change"]


def test_the_esp32c2_in_secure_download_mode_stays_at_its_rate():
    with open_device("esp32c2", "secure-download=1", baud=460800) as device:
        assert device.loader.baud == 115200
    with open_device("esp32c3", "secure-download=1", baud=460800) as device:
        assert device.loader.baud == 460800


def test_an_esp32_without_a_clock_measurement_is_not_silenced():
    events = []
    with open_device("esp32", "ck8m-frequency=0", baud=460800, report=events.append) as device:
        assert device.loader.baud == 115200
        with pytest.raises(DeviceError) as caught:
            device.change_baud(230400)
        assert caught.value.code == "clock-measurement"
        assert device.attach_flash().size == 0x400000
    assert [event.code for event in events if isinstance(event, Warned)] == ["clock-measurement"]


@pytest.mark.parametrize("named", ["esp32", "esp8266", "esp32s2", "esp32c3", "ESP32-C6"])
@pytest.mark.parametrize("chip", ["esp32", "esp8266", "esp32c3", "esp32s2"])
def test_another_chip_than_the_named_one_is_refused_by_name(chip, named):
    if load_chip(named).id == chip:
        with open_device(chip, chip=named) as device:
            assert device.chip.id == chip
        return
    with pytest.raises(WrongChip, match=f"{load_chip(chip).name}, not an {load_chip(named).name}"):
        open_device(chip, chip=named)


def test_an_unknown_chip_name_is_refused_before_the_port_is_opened():
    with pytest.raises(UsageError, match="unknown chip"):
        connect("/dev/does-not-exist", chip="esp64", stub=False)


def test_a_chip_in_its_application_is_reset_into_the_loader():
    events = []
    with open_device("esp32c3", "boot=app", report=events.append) as device:
        assert device.attach_flash().size == 0x400000
    assert any(isinstance(event, Resetting) and event.into == "loader" for event in events)


def test_a_chip_in_its_application_that_must_not_be_reset_does_not_answer():
    with pytest.raises(ConnectError) as caught:
        open_device("esp32c3", "boot=app", before="no-reset")
    assert "BOOT" in caught.value.hint


def test_a_chip_in_its_loader_is_found_without_a_reset():
    transport = open_transport("virtual:esp32c3?profile=instant")
    device = connect(transport, stub=False)
    again = connect(transport, before="no-reset", stub=False)
    assert again.attach_flash().size == 0x400000
    third = connect(transport, before="no-reset-no-sync", stub=False)
    assert third.description == device.description
    device.close()


def test_a_boot_pin_that_is_not_pulled_is_told():
    transport = open_transport("virtual:esp32c3?profile=instant")
    pull = transport.set_lines
    # a board whose DTR is not wired
    transport.set_lines = lambda *, dtr=None, rts=None: pull(
        dtr=False, rts=rts if rts is not None else None
    )
    with pytest.raises(WrongBootMode, match="boot:0x") as caught:
        connect(transport, stub=False)
    assert "rst:0x" in caught.value.boot_text


@pytest.mark.parametrize("chip", chip_ids())
@pytest.mark.parametrize(
    "after", ["hard-reset", "soft-reset", "no-reset", "no-reset-stub", "watchdog-reset"]
)
def test_leaving(chip, after):
    events = []
    with open_device(chip, report=events.append) as device:
        if after == "watchdog-reset" and not device.chip.reset.watchdog_reset:
            with pytest.raises(Unsupported):
                device.leave(after)
            return
        device.leave(after)
        resets = [
            event.how
            for event in events
            if isinstance(event, Resetting) and event.into == "application"
        ]
        assert bool(resets) is not after.startswith("no-reset")
        device.transport.sleep(1.0)


def test_a_port_without_lines_says_that_the_button_must_be_pressed():
    events = []
    transport = open_transport("virtual:esp32c3?profile=instant")
    object.__setattr__(transport.info, "can_reset", False)
    with connect(transport, report=events.append, stub=False) as device:
        device.leave("hard-reset")
    assert any(isinstance(event, Note) and "button" in event.text for event in events)


def ops_of(url, **more):
    """What was asked until the chip was known."""
    packets = []
    with connect(url, on_packet=packets.append, **({"stub": False} | more)) as device:
        asked = requests(packets)
        ops = [command.op for command in asked if command.op != Op.SYNC]
        return device.chip.id, ops, [getattr(command, "address", 0) for command in asked]


@pytest.mark.parametrize("chip", chip_ids())
def test_only_chips_without_security_information_are_not_asked_for_it_first(chip):
    found, asked, addresses = ops_of(f"virtual:{chip}?boot=app&size=1MB")
    old = load_chip(chip).identity.security_info_bytes == 0
    assert found == chip
    assert asked[0] == (Op.READ_REG if old else Op.GET_SECURITY_INFO)
    assert (Op.GET_SECURITY_INFO in asked) is not old
    assert (0x40001000 in addresses) is (load_chip(chip).identity.detect == "magic")


@pytest.mark.parametrize("chip", chip_ids())
def test_without_a_boot_text_only_the_answer_to_sync_tells(chip):
    _, asked, _ = ops_of(f"virtual:{chip}?boot=download&size=1MB", before="no-reset")
    assert (asked[0] == Op.READ_REG) is (load_chip(chip).rom.status_bytes == 2)


@pytest.mark.parametrize("chip", chip_ids())
def test_the_status_bytes_that_tell_are_those_of_chips_without_security_information(chip):
    facts = load_chip(chip)
    assert facts.rom.status_bytes != 2 or facts.identity.security_info_bytes == 0
    assert not facts.rom.secure_ops or facts.identity.security_info_bytes > 0


@pytest.mark.parametrize("secure", ["", "&secure-download=1"])
@pytest.mark.parametrize("chip", SECURE)
def test_a_boot_text_of_another_chip_misleads_nobody(chip, secure):
    transport = open_transport(f"virtual:{chip}?boot=app&size=1MB{secure}")
    read = transport.read
    lie = b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0))\r\nwaiting for download\r\n"
    transport.read = lambda timeout: lie if b"rst:" in (data := read(timeout)) else data
    with connect(transport, stub=False) as device:
        assert device.chip.id == chip
        assert device.secure_download is bool(secure)


@pytest.mark.parametrize("stub", [True, False])
@pytest.mark.parametrize("milliseconds", [5, 45, 50, 60, 70, 80, 120, 125, 160, 300])
def test_slow_links(milliseconds, stub):
    """A reply to SYNC counts whenever it comes: 50 ms each way used to fall into the pauses between requests."""
    transport = open_virtual(f"virtual:esp32c3?latency={milliseconds / 1000}&size=1MB")
    data = bytes(range(256)) * 32
    with connect(transport, baud=460800 if stub else 115200, stub=stub) as device:
        assert not device.stub_failed
        write_flash(device, [Blob(0x10000, data)])
    assert bytes(transport.chip.flash.contents[0x10000:][: len(data)]) == data
