"""The ROM loader's behaviour, request by request, without a wire."""

import hashlib
import zlib

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.protocol import slip
from espwire.protocol.commands import (
    ChangeBaudrate,
    Command,
    FlashBegin,
    FlashData,
    FlashDeflBegin,
    FlashDeflData,
    FlashEnd,
    GetSecurityInfo,
    MemBegin,
    MemData,
    MemEnd,
    ReadFlashSlow,
    ReadReg,
    RegWrite,
    Reply,
    Request,
    SpiAttach,
    SpiFlashMd5,
    SpiSetParams,
    Sync,
    WriteReg,
    parse_reply,
)
from espwire.protocol.dialect import EraseRule
from espwire.protocol.opcodes import Op
from espwire.secure.flash_encryption import encrypt_xts
from espwire.virtual.build import build_chip
from espwire.virtual.chip import State, VirtualChip
from espwire.virtual.config import parse_options
from espwire.virtual.rom import count_erased

MIB = 0x100000


class Host:
    """Sends requests to a chip without a wire, and lets it finish each."""

    def __init__(self, url: str) -> None:
        self.chip: VirtualChip = build_chip(parse_options(url))
        self.t = 0.0
        self.text = b""
        assert len(self.say(Sync())) == 8

    def say(self, command: Command | Request | bytes, wait: float = 300.0) -> list[Reply]:
        data = command if isinstance(command, bytes) else slip.encode(command.packet())
        self.chip.receive(self.t, data)
        out, end = b"", self.t + wait
        while self.chip.busy and (due := self.chip.next_event()) is not None and due <= end:
            self.t = due
            out += b"".join(piece for _, piece in self.chip.run_until(due))
        self.text = out
        return [
            reply for frame in slip.Decoder().feed(out) if (reply := parse_reply(frame)) is not None
        ]

    def ask(self, command: Command | Request) -> Reply:
        (reply,) = self.say(command)
        return reply

    def attach(self, size: int = 4 * MIB) -> None:
        if self.chip.chip.rom.attach_bytes:
            assert self.ask(SpiAttach(0, 0)).body[0] == 0
            assert self.ask(SpiSetParams(0, size)).body[0] == 0

    def begin(self, size: int, blocks: int, offset: int, block_size: int = 0x400) -> Reply:
        words = self.chip.chip.rom.begin_words
        return self.ask(FlashBegin(size, blocks, block_size, offset, 0 if words == 5 else None))


@pytest.fixture
def c3() -> Host:
    host = Host("virtual:esp32c3?profile=instant")
    host.attach()
    return host


@pytest.mark.parametrize("name", chip_ids())
def test_every_rom_syncs_eight_times_and_shows_its_magic(name):
    host = Host(f"virtual:{name}?profile=instant")
    chip = load_chip(name)
    reply = host.ask(ReadReg(0x40001000))
    assert len(reply.body) == chip.rom.status_bytes
    if chip.identity.magic_values:
        assert reply.value in chip.identity.magic_values


@pytest.mark.parametrize("name", chip_ids())
def test_security_info_has_the_chips_length_or_is_refused_with_the_stale_header(name):
    host = Host(f"virtual:{name}?profile=instant")
    chip = load_chip(name)
    replies = host.say(GetSecurityInfo())
    if chip.identity.security_info_bytes:
        assert [len(reply.body) for reply in replies] == [chip.identity.security_info_bytes + 4]
    else:
        assert [(reply.op, reply.body[:2]) for reply in replies] == [(Op.SYNC, b"\x01\x05")] * 8
        host.ask(ReadReg(0x40001000))
        assert [reply.op for reply in host.say(GetSecurityInfo())] == [Op.READ_REG]


@pytest.mark.parametrize("name", chip_ids())
def test_begin_takes_the_words_of_its_rom_only(name):
    host = Host(f"virtual:{name}?profile=instant")
    host.attach()
    five = load_chip(name).rom.begin_words == 5
    results = [
        host.ask(FlashBegin(0x1000, 4, 0x400, 0, encrypted)).body[0] for encrypted in (None, 0)
    ]
    assert results == ([1, 0] if five else [0, 1])


@pytest.mark.parametrize("name", chip_ids())
def test_plain_blocks_land_in_flash(name):
    powered = "&revision=1.0" if load_chip(name).flash_power_on else ""
    host = Host(f"virtual:{name}?profile=instant{powered}")
    host.attach()
    data = bytes(range(256)) * 16
    assert host.begin(len(data), 4, 0x2000).body[0] == 0
    for number in range(4):
        assert host.ask(FlashData(number, data[number * 0x400 :][:0x400])).body[0] == 0
    assert bytes(host.chip.flash.contents[0x2000:0x3000]) == data
    if load_chip(name).rom.attach_bytes:
        reply = host.ask(SpiFlashMd5(0x2000, len(data)))
        assert reply.body[:32] == hashlib.md5(data).hexdigest().encode()
        assert host.ask(ReadFlashSlow(0x2000, 16)).body[:16] == data[:16]


def test_deflated_blocks_land_in_flash_and_all_of_a_block_is_there_at_its_reply(c3):
    data = bytes(100_000)
    packed = zlib.compress(data, 9)
    assert c3.ask(FlashDeflBegin(len(data), 1, 0x400, 0x10000, 0)).body[0] == 0
    assert len(packed) < 0x400
    assert c3.ask(FlashDeflData(0, packed)).body[0] == 0
    assert bytes(c3.chip.flash.contents[0x10000 : 0x10000 + len(data)]) == data


def test_more_than_announced_out_of_deflate_is_written_too(c3):
    assert c3.ask(FlashDeflBegin(0x1000, 1, 0x400, 0, 0)).body[0] == 0
    assert c3.ask(FlashDeflData(0, zlib.compress(bytes(0x5000)))).body[0] == 0
    assert not any(c3.chip.flash.contents[:0x5000])


@pytest.mark.parametrize("late", [True, False])
def test_data_behind_the_end_of_a_deflate_stream_hangs_the_loader(c3, late):
    packed = zlib.compress(b"hello" * 100)
    assert c3.ask(FlashDeflBegin(0x1000, 2, 0x400, 0, 0)).body[0] == 0
    if late:
        assert c3.ask(FlashDeflData(0, packed)).body[0] == 0
        assert c3.say(FlashDeflData(1, b"more")) == []
    else:
        assert c3.say(FlashDeflData(0, packed + b"more")) == []
    assert c3.text == b""
    assert c3.say(Sync()) == []


def test_a_broken_adler_checksum_has_its_own_code(c3):
    packed = bytearray(zlib.compress(b"hello" * 100))
    packed[-1] ^= 1
    assert c3.ask(FlashDeflBegin(0x1000, 1, 0x400, 0, 0)).body[0] == 0
    assert c3.ask(FlashDeflData(0, bytes(packed))).body[:2] == b"\x01\x0c"


def test_flash_commands_need_an_attached_flash():
    host = Host("virtual:esp32c3?profile=instant")
    assert host.begin(0x1000, 4, 0).body[:2] == b"\x01\x06"
    assert host.ask(SpiFlashMd5(0, 16)).body[32:34] == b"\x01\x09"


def test_flash_begin_attaches_by_itself_on_the_esp8266():
    host = Host("virtual:esp8266?profile=instant")
    assert not host.chip.registers.attached
    assert host.begin(0, 0, 0).body[0] == 0
    assert host.chip.registers.attached


def test_params_set_the_size_that_the_rom_believes_in():
    host = Host("virtual:esp32c3?profile=instant&size=8MB")
    host.ask(SpiAttach(0, 0))
    assert host.begin(0x1000, 4, 4 * MIB).body[:2] == b"\x01\x06"
    host.ask(SpiSetParams(0, 8 * MIB))
    assert host.begin(0x1000, 4, 4 * MIB).body[0] == 0


def test_a_wrong_sequence_is_refused_and_the_right_one_still_taken(c3):
    assert c3.begin(0x1000, 4, 0).body[0] == 0
    assert c3.ask(FlashData(1, bytes(0x400))).body[:2] == b"\x01\x05"
    assert c3.ask(FlashData(0, bytes(0x400))).body[0] == 0
    assert c3.ask(FlashData(0, bytes(0x400))).body[:2] == b"\x01\x05"
    assert c3.ask(FlashData(1, bytes(0x400))).body[0] == 0


def test_a_wrong_checksum_uses_the_sequence_number_up_and_leaves_a_shift(c3):
    assert c3.begin(0x1000, 4, 0).body[0] == 0
    good = FlashData(0, b"\x11" * 0x400)
    assert c3.ask(Request(Op.FLASH_DATA, 1, good.body())).body[:2] == b"\x01\x07"
    assert c3.ask(good).body[:2] == b"\x01\x05"
    assert c3.ask(FlashData(1, b"\x22" * 0x400)).body[0] == 0
    assert c3.chip.flash.contents[0] == 0x22


def test_a_block_above_the_announced_size_is_refused_and_a_smaller_one_taken(c3):
    assert c3.begin(0x1000, 4, 0).body[0] == 0
    assert c3.ask(FlashData(0, bytes(0x800))).body[:2] == b"\x01\x05"
    assert c3.ask(FlashData(0, b"\x11" * 0x200)).body[0] == 0
    assert c3.ask(FlashData(1, b"\x22" * 0x400)).body[0] == 0
    assert c3.chip.flash.contents[0x200] == 0x22


def test_the_number_of_blocks_is_not_checked_but_flash_end_reports_missing_blocks(c3):
    assert c3.begin(0x1000, 1, 0).body[0] == 0
    for number in range(2):
        assert c3.ask(FlashData(number, bytes(0x400))).body[0] == 0
    assert c3.begin(0x1000, 2, 0).body[0] == 0
    assert c3.say(FlashEnd(0))[0].body[:2] == b"\x01\x06"


def test_blocks_beyond_the_flash_are_accepted_and_lost(c3):
    assert c3.begin(0x1000, 5, 4 * MIB - 0x1000).body[0] == 0
    for number in range(5):
        assert c3.ask(FlashData(number, bytes(0x400))).body[0] == 0
    assert c3.chip.flash.contents[0] == 0xFF


def test_an_erase_must_start_at_a_sector(c3):
    assert c3.begin(0x800, 2, 0x2C00).body[:2] == b"\x01\x06"


def test_the_length_of_a_frame_does_not_matter_the_last_request_lies_below_it(c3):
    address = ReadReg(0x60008844)
    value = c3.ask(address).value
    assert c3.say(b"\xc0\x00\xc0")[0] == c3.ask(address)
    assert c3.ask(Request(Op.READ_REG, 0, b"")).value == value


def test_the_error_byte_of_a_success_is_that_of_the_last_failure(c3):
    unknown = Request(0x55, 0, b"")
    assert c3.ask(unknown).body[:2] == b"\x01\x05"
    assert c3.ask(SpiSetParams(0, 4 * MIB)).body[:2] == b"\x00\x05"
    assert c3.begin(0x1000, 4, 0).body[:2] == b"\x00\x05"
    assert c3.ask(SpiAttach(0, 0)).body[:2] == b"\x00\x00"


def test_a_bad_escape_stands_for_its_second_byte(c3):
    request = ReadReg(0x3FC84041).packet()
    c3.ask(WriteReg((RegWrite(0x3FC84040, 0x44332211),)))
    frame = b"\xc0" + request.replace(b"\x41", b"\xdb\x40", 1) + b"\xc0"
    assert c3.say(frame)[0].value == 0x44332211


@pytest.mark.parametrize("url", ["esp32c3", "esp32s2", "esp32s31"])
def test_secure_download_leaves_its_subset_only(url):
    host = Host(f"virtual:{url}?profile=instant&secure-download=1")
    assert host.say(ReadReg(0x40001000))[0].body[:2] == b"\x01\x05"
    for command in (
        SpiFlashMd5(0, 16),
        MemBegin(4, 1, 4, 0x3FC84000),
        FlashDeflBegin(16, 1, 16, 0, 0),
    ):
        assert host.say(command)[0].body[:2] == b"\x01\x05"
    info = host.ask(GetSecurityInfo())
    assert int.from_bytes(info.body[:4], "little") >> 2 & 1
    host.attach()
    assert host.begin(0x400, 1, 0).body[0] == 0
    assert host.ask(FlashData(0, b"x" * 0x400)).body[0] == 0


def test_encrypted_writes_are_refused_without_a_key_or_where_the_fuses_disable_them(c3):
    assert c3.ask(FlashBegin(0x1000, 4, 0x400, 0, 1)).body[:2] == b"\x01\x64"
    host = Host("virtual:esp32c3?profile=instant&flash-encryption=1&manual-encrypt-disabled=1")
    host.attach()
    assert host.ask(FlashBegin(0x1000, 4, 0x400, 0, 1)).body[:2] == b"\x01\x64"


@pytest.mark.parametrize("key", ["flash-encryption=1", f"flash-key={bytes(range(32)).hex()}"])
def test_an_encrypted_write_stores_what_the_cipher_makes_of_it(key):
    host = Host(f"virtual:esp32c3?profile=instant&{key}")
    host.attach()
    assert host.ask(FlashBegin(0x800, 2, 0x400, 0x1000, 1)).body[0] == 0
    for number in range(2):
        assert host.ask(FlashData(number, bytes((number,)) * 0x400)).body[0] == 0
    plain = bytes(0x400) + b"\1" * 0x400
    assert host.chip.flash.contents[0x1000:0x1800] == encrypt_xts(plain, 0x1000, bytes(range(32)))


def test_compressed_data_are_never_encrypted():
    host = Host("virtual:esp32c3?profile=instant&flash-encryption=1")
    host.attach()
    assert host.ask(FlashDeflBegin(0x800, 1, 0x400, 0x1000, 1)).body[:2] == b"\x01\x64"


def test_encrypted_blocks_are_whole_cipher_blocks():
    host = Host("virtual:esp32c3?profile=instant&flash-encryption=1")
    host.attach()
    assert host.ask(FlashBegin(0x800, 2, 0x400, 0x1000, 1)).body[0] == 0
    assert host.ask(FlashData(0, bytes(0x3FC))).body[:2] == b"\x01\x64"


def test_compressed_data_are_in_flash_after_the_last_announced_block(c3):
    packed = zlib.compress(b"hello" * 100)
    assert c3.ask(FlashDeflBegin(0x1000, 2, 0x400, 0, 0)).body[0] == 0
    assert c3.ask(FlashDeflData(0, packed[:8])).body[0] == 0
    assert c3.chip.flash.contents[0] == 0xFF
    assert c3.ask(FlashDeflData(1, packed[8:])).body[0] == 0
    assert bytes(c3.chip.flash.contents[:501]) == b"hello" * 100 + b"\xff"


def test_the_esp32_programs_the_whole_window_behind_compressed_data():
    host = Host("virtual:esp32?profile=instant")
    host.attach()
    assert host.ask(FlashDeflBegin(500, 1, 0x400, 0x1000)).body[0] == 0
    assert host.ask(FlashDeflData(0, zlib.compress(b"hello" * 100))).body[0] == 0
    assert (
        bytes(host.chip.flash.contents[0x1000:0x9001])
        == (b"hello" * 100).ljust(0x8000, b"\0") + b"\xff"
    )


def test_a_block_over_data_that_was_not_erased_fails_by_its_checksum(c3):
    c3.chip.flash.contents[0x1000:0x1400] = bytes(0x400)
    assert c3.begin(0, 1, 0x1000).body[0] == 0
    assert c3.ask(FlashData(0, b"\x11" + bytes(0x3FF))).body[:2] == b"\x01\x08"


def test_a_block_is_whole_words(c3):
    assert c3.begin(0x1000, 4, 0).body[0] == 0
    assert c3.ask(FlashData(0, bytes(0x3FE))).body[:2] == b"\x01\x05"


def test_md5_and_slow_reads_take_whole_words_at_the_end_of_the_flash(c3):
    assert c3.ask(SpiFlashMd5(4 * MIB - 2, 2)).body[32:34] == b"\x01\x09"
    assert c3.ask(ReadFlashSlow(0, 5)).body[:9] == b"\xff" * 8 + b"\0"


def test_ram_download_can_be_read_back_and_started(c3):
    assert c3.ask(MemBegin(8, 1, 8, 0x3FC84000)).body[0] == 0
    assert c3.ask(MemData(0, b"\x11\x22\x33\x44\x55\x66\x77\x88")).body[0] == 0
    assert c3.ask(ReadReg(0x3FC84004)).value == 0x88776655
    assert c3.ask(MemEnd(0, 0x3FC84000)).body[0] == 0
    assert c3.say(Sync()) == []


def test_ram_download_to_nowhere_is_a_fault_at_its_data(c3):
    assert c3.ask(MemBegin(8, 1, 8, 0x3FFE0000)).body[0] == 0
    assert c3.say(MemData(0, bytes(8))) == []
    assert c3.text.startswith(b"Guru Meditation Error: Core 0 panic'ed (Store/AMO access fault)")


def test_write_reg_does_its_groups_in_order_each_after_its_delay(c3):
    began = c3.t
    group = (
        RegWrite(0x3FC84000, 1, delay_us=1000),
        RegWrite(0x3FC84000, 0xFF00, mask=0xFF00, delay_us=2000),
    )
    assert c3.ask(WriteReg(group)).body[0] == 0
    assert c3.t - began == pytest.approx(0.003, abs=0.0005)
    assert c3.ask(ReadReg(0x3FC84000)).value == 0xFF01


def test_a_fault_kills_the_loader_with_a_panic_text_where_the_rom_has_one(c3):
    assert c3.say(ReadReg(0)) == []
    assert c3.text.startswith(b"Guru Meditation Error: Core 0 panic'ed (Load access fault)")
    assert c3.chip.state is State.GONE
    host = Host("virtual:esp32?profile=instant")
    assert host.say(ReadReg(0)) == []
    assert host.text == b""


def test_flash_end_0_restarts_and_the_next_sync_is_answered(c3):
    (reply,) = c3.say(FlashEnd(0))
    assert reply.body[0] == 0
    assert b"waiting for download" in c3.text
    assert c3.say(ReadReg(0x40001000)) == []  # no baud rate has been measured yet
    assert len(c3.say(Sync())) == 8


def test_flash_end_1_starts_what_is_in_flash(c3):
    c3.chip.flash.contents[0] = 0xE9
    c3.say(FlashEnd(1))
    assert c3.chip.state is State.APP


@pytest.mark.parametrize(
    ("url", "number", "rate"),
    [
        ("esp32c3", 460800, 460800),
        ("esp32?crystal=40", 460800, 460800),
        ("esp32c2?crystal=26", 460800 * 40 // 26, 460800),
        ("esp32c2?crystal=26", 460800, 299520),
        ("esp32c5?crystal=48&rom-crystal=40", 460800 * 40 // 48, 460800),
        ("esp32c5?crystal=40&rom-crystal=48", 460800 * 48 // 40, 460800),
    ],
)
def test_the_uart_runs_at_what_the_real_crystal_makes_of_the_number(url, number, rate):
    host = Host(f"virtual:{url}{'&' if '?' in url else '?'}profile=instant")
    host.ask(ChangeBaudrate(number))
    assert host.text.endswith(b"\xc0\xc0\xc0")
    assert host.chip.baud == pytest.approx(rate, rel=0.001)


def test_a_nonsense_clock_measurement_leaves_a_dead_uart():
    host = Host("virtual:esp32?profile=instant&ck8m-frequency=0")
    host.ask(ChangeBaudrate(460800))
    assert host.chip.baud == 0


@pytest.mark.parametrize("start", [0, 0x1000, 0x9000, 0xF000, 0x10000])
@pytest.mark.parametrize("sectors", [1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 64, 100])
def test_the_esp8266_erases_what_the_shortened_size_was_meant_for(start, sectors):
    head = min(16 - start // 0x1000 % 16, sectors)
    asked = (sectors + 1) // 2 if sectors < 2 * head else sectors - head
    erased = count_erased(EraseRule.ESP8266_HEAD_BUG, start, asked * 0x1000)
    assert erased == sectors + (sectors % 2 if sectors < 2 * head else 0)


def test_the_esp8266_erases_too_much_for_the_true_size():
    host = Host("virtual:esp8266?profile=instant")
    host.chip.flash.contents[: 8 * 0x1000] = bytes(8 * 0x1000)
    host.begin(0x2000, 0, 0)
    assert bytes(host.chip.flash.contents[: 8 * 0x1000]) == b"\xff" * 0x4000 + bytes(0x4000)


def test_erasing_takes_blocks_only_as_long_as_more_than_one_is_left():
    host = Host("virtual:esp32c3?profile=typ")
    host.attach()
    began = host.t
    assert host.begin(0x21000, 132, 0xF000).body[0] == 0  # a sector, a block, 16 sectors
    assert host.t - began == pytest.approx(17 * 0.045 + 0.15, abs=0.002)


def test_bytes_wait_while_the_loader_is_busy_and_are_lost_when_there_is_no_room():
    host = Host("virtual:esp32c3?profile=typ")
    host.attach()
    host.chip.receive(host.t, slip.encode(FlashBegin(0x10000, 64, 0x400, 0, 0).packet()))
    host.chip.receive(host.t + 0.01, slip.encode(ReadReg(0x60008844).packet()))
    host.t += 0.02
    assert [reply.op for reply in host.say(b"")] == [Op.FLASH_BEGIN, Op.READ_REG]
    host.chip.receive(host.t, slip.encode(FlashBegin(0x10000, 64, 0x400, 0, 0).packet()))
    host.chip.receive(host.t + 0.01, bytes(10_000))
    assert host.chip.overruns > 0


def test_the_flash_of_some_p4_revisions_needs_its_power_on_steps():
    host = Host("virtual:esp32p4?profile=instant&revision=3.1")
    host.attach()
    chip = host.chip.chip
    assert host.begin(0x400, 1, 0).body[0] == 0
    host.ask(FlashData(0, b"\x55" * 0x400))
    assert host.chip.flash.contents[0] == 0xFF
    for step in chip.flash_power_on.steps:
        if step.op == "wait":
            continue
        old = host.ask(ReadReg(step.address)).value
        new = {"write": step.value, "set": old | step.mask, "clear": old & ~step.mask}[step.op]
        assert host.ask(WriteReg((RegWrite(step.address, new),))).body[0] == 0
    assert host.begin(0x400, 1, 0).body[0] == 0
    host.ask(FlashData(0, b"\x55" * 0x400))
    assert host.chip.flash.contents[0] == 0x55


def test_a_lost_end_costs_the_next_frame_no_more(c3):
    frame = slip.encode(ReadReg(0x60008844).packet())
    assert len(c3.say(frame[:-1])) == 0
    assert len(c3.say(frame)) == 1  # its opening END ended the first one
    assert len(c3.say(frame)) == 1
