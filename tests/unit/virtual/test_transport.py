"""The wire and the transport: simulated time, baud rates, lines, boot, watchdogs."""

import time

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import Cancelled, TransportLost, UsageError
from espwire.protocol import slip
from espwire.protocol.commands import (
    ChangeBaudrate,
    Command,
    FlashBegin,
    FlashData,
    ReadReg,
    RegWrite,
    Reply,
    SpiAttach,
    SpiSetParams,
    Sync,
    WriteReg,
    parse_reply,
)
from espwire.transport.base import CancelToken
from espwire.virtual.chip import State
from espwire.virtual.config import parse_options
from espwire.virtual.line import resample
from espwire.virtual.transport import VirtualTransport, open_virtual


def ask(transport: VirtualTransport, command: Command, timeout: float = 3.0) -> Reply | None:
    transport.write(slip.encode(command.packet()), transport.now() + 10)
    decoder, end = slip.Decoder(), transport.now() + timeout
    while transport.now() < end:
        for frame in decoder.feed(transport.read(end - transport.now())):
            reply = parse_reply(frame)
            if reply is not None and reply.op == command.op:
                return reply
    return None


def sync(transport: VirtualTransport) -> bool:
    reply = ask(transport, Sync(), 0.1)
    transport.sleep(0.05)
    transport.discard_input()
    return reply is not None


def read_text(transport: VirtualTransport, seconds: float = 0.5) -> bytes:
    out, end = b"", transport.now() + seconds
    while transport.now() < end:
        out += transport.read(end - transport.now())
    return out


def reset(transport: VirtualTransport, *, download: bool) -> None:
    transport.set_lines(dtr=False, rts=True)
    transport.sleep(0.1)
    transport.set_lines(dtr=download)
    transport.set_lines(rts=False)
    transport.sleep(0.05)
    transport.set_lines(dtr=False)


def test_an_exchange_takes_its_bit_times_and_two_latencies():
    transport = open_virtual("virtual:esp32c3?latency=0.002")
    assert sync(transport)
    began = transport.now()
    packet = slip.encode(ReadReg(0x60008844).packet())
    assert ask(transport, ReadReg(0x60008844)) is not None
    wire = (len(packet) + 14) * 10 / 115200
    assert transport.now() - began == pytest.approx(wire + 0.004, abs=0.0004)


@pytest.mark.parametrize("baud", [57600, 115200, 921600, 3_000_000])
def test_the_loader_measures_any_rate_of_the_first_sync(baud):
    transport = open_virtual("virtual:esp32")
    transport.set_baud(baud)
    assert sync(transport)
    assert transport.chip.baud == baud


def test_a_rate_above_three_megabaud_is_not_followed():
    transport = open_virtual("virtual:esp32")
    transport.set_baud(4_000_000)
    assert not sync(transport)


def test_only_sync_is_received_before_the_rate_is_measured():
    transport = open_virtual("virtual:esp32c3")
    assert ask(transport, ReadReg(0x40001000), 0.5) is None
    assert sync(transport)
    assert ask(transport, ReadReg(0x40001000)) is not None


def test_after_a_change_of_rate_only_the_new_one_is_understood():
    transport = open_virtual("virtual:esp32c3")
    assert sync(transport)
    assert ask(transport, ChangeBaudrate(460800)) is not None
    assert ask(transport, ReadReg(0x60008844), 0.5) is None
    transport.set_baud(460800)
    transport.sleep(0.05)
    transport.discard_input()
    transport.write(b"\xc0", transport.now() + 1)
    assert ask(transport, ReadReg(0x60008844)) is not None


def test_the_c2_ends_at_a_wrong_rate_if_its_crystal_is_forgotten():
    transport = open_virtual("virtual:esp32c2?crystal=26")
    assert sync(transport)
    assert ask(transport, ChangeBaudrate(460800)) is not None
    transport.set_baud(460800)
    transport.sleep(0.05)
    transport.discard_input()
    assert ask(transport, ReadReg(0x40001000), 0.5) is None


def test_at_a_wrong_rate_a_receiver_gets_the_bits_that_it_samples():
    def hear(rate: int) -> bytes:
        transport = open_virtual("virtual:esp8266?boot=app&crystal=26")
        transport.set_baud(rate)
        return read_text(transport, 3)

    right = hear(74880)
    assert right.endswith(b"\r\n")
    assert hear(115200) == hear(115200) != right
    assert len(hear(921600)) > len(right) > len(hear(9600))


@pytest.mark.parametrize("sender", [9600, 74880, 115200, 921600])
def test_sampling_at_nearly_the_right_rate_changes_nothing(sender):
    data = bytes(range(256))
    for receiver in (sender, sender * 1.02, sender * 0.98):
        assert resample(data, sender, receiver) == data


def test_sampling_twice_as_fast_sees_each_bit_twice():
    # start 0, then 1 0 1 0 1 0 1 0, stop 1; the receiver's first ten bits are five of the sender's
    assert resample(b"\x55", 100, 200)[0] == 0b01100110
    assert resample(b"\x00", 100, 100) == b"\x00"
    assert resample(b"abc", 0, 100) == resample(b"abc", 100, 0) == b""


@pytest.mark.parametrize("name", chip_ids())
def test_the_classic_sequence_enters_the_loader_and_a_plain_reset_leaves_it(name):
    transport = open_virtual(f"virtual:{name}?boot=app")
    assert not sync(transport)
    transport.set_baud(transport.chip.text_baud)
    reset(transport, download=True)
    text = read_text(transport)
    assert transport.chip.state is State.LOADER
    if name != "esp8266":
        assert b"boot:0x" in text
        assert b"waiting for download" in text
    assert sync(transport)
    reset(transport, download=False)
    text = read_text(transport)
    assert transport.chip.state is State.APP
    if name != "esp8266":
        assert b"FLASH_BOOT" in text
    assert not sync(transport)


def test_an_esp32c2_prints_at_74880_with_a_crystal_of_26_mhz():
    for crystal, rate in ((26, 74880), (40, 115200)):
        transport = open_virtual(f"virtual:esp32c2?crystal={crystal}")
        transport.set_baud(rate)
        reset(transport, download=True)
        assert b"ESP-ROM:esp8684" in read_text(transport)


def test_the_esp8266_prints_at_74880_with_its_usual_crystal():
    transport = open_virtual("virtual:esp8266")
    transport.set_baud(74880)
    reset(transport, download=True)
    assert read_text(transport).endswith(b"ets Jan  8 2013,rst cause:1, boot mode:(1,6)\r\n\r\n")
    transport = open_virtual("virtual:esp8266")
    reset(transport, download=True)
    assert b"ets Jan" not in read_text(transport)


def test_a_very_short_reset_pulse_does_nothing():
    transport = open_virtual("virtual:esp32")
    assert sync(transport)
    transport.set_lines(dtr=False, rts=True)
    transport.sleep(0.001)
    transport.set_lines(rts=False)
    assert ask(transport, ReadReg(0x40001000)) is not None


def test_the_application_logs_and_the_rom_reports_a_missing_application():
    transport = open_virtual("virtual:esp32c3?boot=app")
    assert b"invalid header: 0xffffffff" in read_text(transport, 3)
    transport.chip.flash.contents[0] = 0xE9
    assert b"app: running" in read_text(transport, 3)


def test_usb_lines_reset_by_their_own_rules():
    transport = open_virtual("virtual:esp32c3?kind=usb-jtag&boot=app")
    assert transport.info.kind == "usb-jtag"
    assert (transport.info.vid, transport.info.pid) == (0x303A, 0x1001)
    assert not transport.info.can_change_baud
    transport.set_lines(dtr=False, rts=False)
    transport.sleep(0.1)
    transport.set_lines(dtr=True)
    transport.sleep(0.1)
    transport.set_lines(rts=True)
    transport.set_lines(dtr=False)
    transport.sleep(0.1)
    transport.set_lines(dtr=False, rts=False)
    assert b"USB_UART_CHIP_RESET),boot:0x4 (DOWNLOAD" in read_text(transport)
    assert sync(transport)
    transport.set_lines(rts=True)
    transport.sleep(0.2)
    transport.set_lines(rts=False)
    read_text(transport)
    assert transport.chip.state is State.APP


def disable(
    transport: VirtualTransport, *, rtc: bool = True, swd: bool = True, key_error: int = 0
) -> None:
    reset_facts = transport.chip.chip.reset
    dog, super_dog = reset_facts.watchdog, reset_facts.super_watchdog
    writes = []
    if rtc:
        writes += [
            (dog.write_protect, dog.key ^ key_error),
            (dog.config0, 0),
            (dog.write_protect, 0),
        ]
    if swd:
        auto = 1 << super_dog.auto_feed_bit
        writes += [
            (super_dog.write_protect, super_dog.key),
            (super_dog.config, auto),
            (super_dog.write_protect, 0),
        ]
    for address, value in writes:
        assert ask(transport, WriteReg((RegWrite(address, value),))) is not None


USB_CHIPS = [
    name
    for name in chip_ids()
    if load_chip(name).usb.serial_jtag and load_chip(name).reset.watchdog
]


@pytest.mark.parametrize("name", USB_CHIPS)
def test_watchdogs_bite_over_usb_unless_both_are_off(name):
    transport = open_virtual(f"virtual:{name}?kind=usb-jtag")
    assert sync(transport)
    disable(transport)
    transport.sleep(60)
    assert ask(transport, ReadReg(0x40001000)) is not None
    for keywords in ({"rtc": False}, {"swd": False}, {"key_error": 1}):
        transport = open_virtual(f"virtual:{name}?kind=usb-jtag")
        assert sync(transport)
        disable(transport, **keywords)
        transport.sleep(60)
        assert ask(transport, ReadReg(0x40001000)) is None


def test_the_watchdog_can_be_fired_on_purpose():
    transport = open_virtual("virtual:esp32c3")
    assert sync(transport)
    dog = transport.chip.chip.reset.watchdog
    for address, value in (
        (dog.write_protect, dog.key),
        (dog.config1, 2000),
        (dog.config0, 0xD0000102),
    ):
        assert ask(transport, WriteReg((RegWrite(address, value),))) is not None
    assert b"RTCWDT" in read_text(transport)


def test_force_download_survives_a_software_reset():
    transport = open_virtual("virtual:esp32c3?boot=app")
    reset(transport, download=True)
    read_text(transport)
    assert sync(transport)
    at = transport.chip.chip.reset.force_download
    assert ask(transport, WriteReg((RegWrite(at.address, 1 << at.bit),))) is not None
    transport.chip.restart()
    read_text(transport)
    assert transport.chip.state is State.LOADER
    transport.chip.restart()
    read_text(transport)
    assert transport.chip.state is State.APP


@pytest.mark.parametrize("weak", [False, True])
def test_power_loss_in_an_erase_leaves_random_bytes_or_blank_ones_that_do_not_last(
    monkeypatch, weak
):
    monkeypatch.setattr("espwire.virtual.nor_flash.WEAK_CHANCE", float(weak))
    transport = open_virtual("virtual:esp32c3")
    assert sync(transport)
    transport.chip.flash.contents[:0x10000] = bytes(0x10000)
    ask(transport, SpiAttach(0, 0))
    ask(transport, SpiSetParams(0, 0x400000))
    transport.write(slip.encode(FlashBegin(0x10000, 64, 0x400, 0, 0).packet()), transport.now() + 1)
    transport.sleep(0.05)
    transport.chip.power_loss(transport.now())
    contents = transport.chip.flash.contents
    values = set(bytes(contents[:0x10000]))
    assert (values == {0, 0xFF}) if weak else (len(values) > 100)
    before = bytes(contents)
    transport.chip.flash.decay()
    assert (bytes(contents) != before) is weak
    assert not sync(transport)  # it restarts
    read_text(transport)
    assert sync(transport)


def test_a_megabyte_and_a_half_costs_little_cpu():
    transport = open_virtual("virtual:esp32c3?size=4MB")
    assert sync(transport)
    ask(transport, SpiAttach(0, 0))
    ask(transport, SpiSetParams(0, 0x400000))
    packets = [slip.encode(FlashData(i, bytes([i & 0xFF]) * 1024).packet()) for i in range(1536)]
    began = time.process_time()
    assert ask(transport, FlashBegin(len(packets) * 1024, len(packets), 1024, 0, 0), 60) is not None
    for packet in packets:
        transport.write(packet, transport.now() + 1)
        assert transport.read(3)
    assert time.process_time() - began < 0.5


def test_a_token_stops_reading_writing_and_sleeping():
    token = CancelToken()
    transport = open_virtual("virtual:esp32c3", token)
    token.cancel()
    for action in (
        lambda: transport.read(1),
        lambda: transport.write(b"x", 1),
        lambda: transport.sleep(1),
    ):
        with pytest.raises(Cancelled):
            action()


def test_a_closed_link_is_lost():
    transport = open_virtual("virtual:esp32c3")
    transport.close()
    transport.close()
    with pytest.raises(TransportLost):
        transport.read(1)


def test_the_flash_file_keeps_what_was_written(tmp_path):
    path = tmp_path / "flash.bin"
    transport = open_virtual(f"virtual:esp32c3?flash={path}&size=1MB")
    transport.chip.flash.contents[5:8] = b"abc"
    transport.close()
    assert path.read_bytes()[:8] == b"\xff" * 5 + b"abc"
    assert path.stat().st_size == 0x100000


@pytest.mark.parametrize(
    "url",
    [
        "virtual:esp99",
        "virtual:esp32?size=4",
        "virtual:esp32?mac=12",
        "virtual:esp32?profile=x",
        "virtual:esp32?kind=usb-jtag",
        "virtual:esp32?crystal=48",
        "virtual:esp32?secure-download=1",
        "virtual:esp32?secure-download=maybe",
        "virtual:esp32c3?fault=explode:1",
        "virtual:esp32c3?fault=flip",
        "virtual:esp32c3?latency=x",
        "virtual:esp32c3?nonsense=1",
    ],
)
def test_a_url_that_makes_no_sense_is_a_usage_error(url):
    with pytest.raises(UsageError) as caught:
        open_virtual(url)
    assert caught.value.hint


def test_options_are_read_from_the_url():
    options = parse_options(
        "virtual:ESP32-C3?mac=24:0A:C4:00:01:10&revision=1.1&size=16MB&package=1&pace=1&strap=0x2"
    )
    assert (options.chip, options.revision, options.size, options.pace) == (
        "esp32c3",
        101,
        0x1000000,
        True,
    )
    assert options.mac == bytes.fromhex("240ac4000110")
    assert dict(options.fields) == {"package": 1}
    assert options.strap == 2
