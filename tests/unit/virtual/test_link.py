"""The wire and the link: simulated time, rates, lines, boot, watchdogs."""

import time

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import Cancelled, LinkLost, UsageError
from espwire.link.base import CancelToken
from espwire.virtual.chip import State
from espwire.virtual.link import VirtualLink, open_virtual
from espwire.virtual.options import parse_options
from espwire.virtual.wire import resample
from espwire.wire import slip
from espwire.wire.commands import (
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


def ask(link: VirtualLink, command: Command, timeout: float = 3.0) -> Reply | None:
    link.write(slip.encode(command.packet()), link.now() + 10)
    decoder, end = slip.Decoder(), link.now() + timeout
    while link.now() < end:
        for frame in decoder.feed(link.read(end - link.now())):
            reply = parse_reply(frame)
            if reply is not None and reply.op == command.op:
                return reply
    return None


def sync(link: VirtualLink) -> bool:
    reply = ask(link, Sync(), 0.1)
    link.sleep(0.05)
    link.discard_input()
    return reply is not None


def read_text(link: VirtualLink, seconds: float = 0.5) -> bytes:
    out, end = b"", link.now() + seconds
    while link.now() < end:
        out += link.read(end - link.now())
    return out


def reset(link: VirtualLink, *, download: bool) -> None:
    link.set_lines(dtr=False, rts=True)
    link.sleep(0.1)
    link.set_lines(dtr=download)
    link.set_lines(rts=False)
    link.sleep(0.05)
    link.set_lines(dtr=False)


def test_an_exchange_takes_its_bit_times_and_two_latencies():
    link = open_virtual("virtual:esp32c3?latency=0.002")
    assert sync(link)
    began = link.now()
    packet = slip.encode(ReadReg(0x60008844).packet())
    assert ask(link, ReadReg(0x60008844)) is not None
    wire = (len(packet) + 14) * 10 / 115200
    assert link.now() - began == pytest.approx(wire + 0.004, abs=0.0004)


@pytest.mark.parametrize("baud", [57600, 115200, 921600, 3_000_000])
def test_the_loader_measures_any_rate_of_the_first_sync(baud):
    link = open_virtual("virtual:esp32")
    link.set_baud(baud)
    assert sync(link)
    assert link.chip.baud == baud


def test_a_rate_above_three_megabaud_is_not_followed():
    link = open_virtual("virtual:esp32")
    link.set_baud(4_000_000)
    assert not sync(link)


def test_nothing_but_sync_is_heard_before_the_rate_is_measured():
    link = open_virtual("virtual:esp32c3")
    assert ask(link, ReadReg(0x40001000), 0.5) is None
    assert sync(link)
    assert ask(link, ReadReg(0x40001000)) is not None


def test_after_a_change_of_rate_only_the_new_one_is_understood():
    link = open_virtual("virtual:esp32c3")
    assert sync(link)
    assert ask(link, ChangeBaudrate(460800)) is not None
    assert ask(link, ReadReg(0x60008844), 0.5) is None
    link.set_baud(460800)
    link.sleep(0.05)
    link.discard_input()
    link.write(b"\xc0", link.now() + 1)
    assert ask(link, ReadReg(0x60008844)) is not None


def test_the_c2_ends_at_a_wrong_rate_if_its_crystal_is_forgotten():
    link = open_virtual("virtual:esp32c2?crystal=26")
    assert sync(link)
    assert ask(link, ChangeBaudrate(460800)) is not None
    link.set_baud(460800)
    link.sleep(0.05)
    link.discard_input()
    assert ask(link, ReadReg(0x40001000), 0.5) is None


def test_at_a_wrong_rate_a_receiver_hears_what_its_samples_make_of_the_bits():
    def hear(rate: int) -> bytes:
        link = open_virtual("virtual:esp8266?boot=app&crystal=26")
        link.set_baud(rate)
        return read_text(link, 3)

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
    link = open_virtual(f"virtual:{name}?boot=app")
    assert not sync(link)
    reset(link, download=True)
    text = read_text(link)
    assert link.chip.state is State.LOADER
    if name != "esp8266":
        assert b"boot:0x" in text
        assert b"waiting for download" in text
    assert sync(link)
    reset(link, download=False)
    text = read_text(link)
    assert link.chip.state is State.APP
    if name != "esp8266":
        assert b"FLASH_BOOT" in text
    assert not sync(link)


def test_the_esp8266_prints_at_74880_with_its_usual_crystal():
    link = open_virtual("virtual:esp8266")
    link.set_baud(74880)
    reset(link, download=True)
    assert read_text(link).endswith(b"ets Jan  8 2013,rst cause:1, boot mode:(1,6)\r\n\r\n")
    link = open_virtual("virtual:esp8266")
    reset(link, download=True)
    assert b"ets Jan" not in read_text(link)


def test_a_very_short_reset_pulse_does_nothing():
    link = open_virtual("virtual:esp32")
    assert sync(link)
    link.set_lines(dtr=False, rts=True)
    link.sleep(0.001)
    link.set_lines(rts=False)
    assert ask(link, ReadReg(0x40001000)) is not None


def test_the_application_complains_when_there_is_none_and_logs_when_there_is():
    link = open_virtual("virtual:esp32c3?boot=app")
    assert b"invalid header: 0xffffffff" in read_text(link, 3)
    link.chip.flash.contents[0] = 0xE9
    assert b"app: running" in read_text(link, 3)


def test_usb_lines_reset_by_their_own_rules():
    link = open_virtual("virtual:esp32c3?kind=usb-jtag&boot=app")
    assert link.info.kind == "usb-jtag"
    assert (link.info.vid, link.info.pid) == (0x303A, 0x1001)
    assert not link.info.can_change_baud
    link.set_lines(dtr=False, rts=False)
    link.sleep(0.1)
    link.set_lines(dtr=True)
    link.sleep(0.1)
    link.set_lines(rts=True)
    link.set_lines(dtr=False)
    link.sleep(0.1)
    link.set_lines(dtr=False, rts=False)
    assert b"USB_UART_CHIP_RESET),boot:0x4 (DOWNLOAD" in read_text(link)
    assert sync(link)
    link.set_lines(rts=True)
    link.sleep(0.2)
    link.set_lines(rts=False)
    read_text(link)
    assert link.chip.state is State.APP


def disable(link: VirtualLink, *, rtc: bool = True, swd: bool = True, key_error: int = 0) -> None:
    reset_facts = link.chip.chip.reset
    dog, super_dog = reset_facts.watchdog, reset_facts.super_watchdog
    writes = []
    if rtc:
        writes += [(dog.write_protect, dog.key ^ key_error), (dog.config0, 0), (dog.write_protect, 0)]
    if swd:
        auto = 1 << super_dog.auto_feed_bit
        writes += [(super_dog.write_protect, super_dog.key), (super_dog.config, auto), (super_dog.write_protect, 0)]
    for address, value in writes:
        assert ask(link, WriteReg((RegWrite(address, value),))) is not None


USB_CHIPS = [name for name in chip_ids() if load_chip(name).usb.serial_jtag and load_chip(name).reset.watchdog]


@pytest.mark.parametrize("name", USB_CHIPS)
def test_watchdogs_bite_over_usb_unless_both_are_off(name):
    link = open_virtual(f"virtual:{name}?kind=usb-jtag")
    assert sync(link)
    disable(link)
    link.sleep(60)
    assert ask(link, ReadReg(0x40001000)) is not None
    for keywords in ({"rtc": False}, {"swd": False}, {"key_error": 1}):
        link = open_virtual(f"virtual:{name}?kind=usb-jtag")
        assert sync(link)
        disable(link, **keywords)
        link.sleep(60)
        assert ask(link, ReadReg(0x40001000)) is None


def test_the_watchdog_can_be_fired_on_purpose():
    link = open_virtual("virtual:esp32c3")
    assert sync(link)
    dog = link.chip.chip.reset.watchdog
    for address, value in ((dog.write_protect, dog.key), (dog.config1, 2000), (dog.config0, 0xD0000102)):
        assert ask(link, WriteReg((RegWrite(address, value),))) is not None
    assert b"RTCWDT" in read_text(link)


def test_force_download_survives_a_software_reset():
    link = open_virtual("virtual:esp32c3?boot=app")
    reset(link, download=True)
    read_text(link)
    assert sync(link)
    at = link.chip.chip.reset.force_download
    assert ask(link, WriteReg((RegWrite(at.address, 1 << at.bit),))) is not None
    link.chip.restart()
    read_text(link)
    assert link.chip.state is State.LOADER
    link.chip.restart()
    read_text(link)
    assert link.chip.state is State.APP


def test_power_loss_in_an_erase_leaves_random_bytes():
    link = open_virtual("virtual:esp32c3")
    assert sync(link)
    link.chip.flash.contents[:0x10000] = bytes(0x10000)
    ask(link, SpiAttach(0, 0))
    ask(link, SpiSetParams(0, 0x400000))
    link.write(slip.encode(FlashBegin(0x10000, 64, 0x400, 0, 0).packet()), link.now() + 1)
    link.sleep(0.05)
    link.chip.power_loss(link.now())
    assert len(set(bytes(link.chip.flash.contents[:0x10000]))) > 100
    assert not sync(link)  # it restarts
    read_text(link)
    assert sync(link)


def test_a_megabyte_and_a_half_costs_little_cpu():
    link = open_virtual("virtual:esp32c3?size=4MB")
    assert sync(link)
    ask(link, SpiAttach(0, 0))
    ask(link, SpiSetParams(0, 0x400000))
    packets = [slip.encode(FlashData(i, bytes([i & 0xFF]) * 1024).packet()) for i in range(1536)]
    began = time.process_time()
    assert ask(link, FlashBegin(len(packets) * 1024, len(packets), 1024, 0, 0), 60) is not None
    for packet in packets:
        link.write(packet, link.now() + 1)
        assert link.read(3)
    assert time.process_time() - began < 0.5


def test_a_token_stops_reading_writing_and_sleeping():
    token = CancelToken()
    link = open_virtual("virtual:esp32c3", token)
    token.cancel()
    for action in (lambda: link.read(1), lambda: link.write(b"x", 1), lambda: link.sleep(1)):
        with pytest.raises(Cancelled):
            action()


def test_a_closed_link_is_lost():
    link = open_virtual("virtual:esp32c3")
    link.close()
    link.close()
    with pytest.raises(LinkLost):
        link.read(1)


def test_the_flash_file_keeps_what_was_written(tmp_path):
    path = tmp_path / "flash.bin"
    link = open_virtual(f"virtual:esp32c3?flash={path}&size=1MB")
    link.chip.flash.contents[5:8] = b"abc"
    link.close()
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
    options = parse_options("virtual:ESP32-C3?mac=24:0A:C4:00:01:10&revision=1.1&size=16MB&package=1&pace=1&strap=0x2")
    assert (options.chip, options.revision, options.size, options.pace) == ("esp32c3", 101, 0x1000000, True)
    assert options.mac == bytes.fromhex("240ac4000110")
    assert dict(options.fields) == {"package": 1}
    assert options.strap == 2
