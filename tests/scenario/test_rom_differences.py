"""Each way in which one chip's ROM differs from the others, shown by an exchange that only those chips answer so.

A row: what differs, the exchange, what every chip must answer. Where a row says "only", the test also shows that no
other chip answers like that.
"""

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.protocol import commands as c
from espwire.protocol import slip
from espwire.virtual.transport import open_virtual

ALL = frozenset(chip_ids())
OLD = frozenset({"esp8266"})
FOUR_WORDS = frozenset({"esp8266", "esp32"})
SECURE_MODE = ALL - FOUR_WORDS
BLOCK = 0x400
REFUSED = "refused"


class Chip:
    """A virtual chip, synced, with raw exchanges."""

    def __init__(self, name, **options):
        self.facts = load_chip(name)
        if self.facts.flash_power_on is not None:
            options.setdefault("revision", 300)  # a revision whose flash has power from the start
        query = "&".join(f"{key}={value}" for key, value in {"size": "4MB", **options}.items())
        self.transport = open_virtual(f"virtual:{name}?{query}")
        self.decoder = slip.Decoder()
        self.words = self.facts.rom.begin_words
        self.ask(c.Sync())

    def ask(self, command, wait=20.0):
        self.transport.write(slip.encode(command.packet()), self.transport.now() + 10)
        replies = []
        while data := self.transport.read(wait):
            replies += [
                reply for f in self.decoder.feed(data) if (reply := c.parse_reply(f)) is not None
            ]
            wait = 0.2
        return replies

    def result(self, command, size=0):
        """The result bytes, or REFUSED; a reply must carry the opcode asked for and the chip's status length."""
        replies = self.ask(command)
        if (
            not replies
            or replies[-1].op != command.op
            or replies[-1].body[size : size + 1] != b"\0"
        ):
            return REFUSED
        assert len(replies[-1].body) == size + self.facts.rom.status_bytes
        return replies[-1].body[:size]

    def attach(self):
        if self.facts.rom.attach_bytes:
            assert self.result(c.SpiAttach(0, 0)) == b""
            assert self.result(c.SpiSetParams(0, 0x400000)) == b""

    def begin(self, size, offset, words=None, kind=c.FlashBegin):
        return self.result(
            kind(size, -(-size // BLOCK), BLOCK, offset, 0 if (words or self.words) == 5 else None)
        )


@dataclass(frozen=True)
class Row:
    name: str
    exchange: Any
    expected: Any  # chip id -> answer


def status_length(name):
    return len(Chip(name).ask(c.Sync())[0].body)


def begin_with(words):
    def exchange(name):
        chip = Chip(name)
        chip.attach()
        return chip.begin(0x1000, 0x10000, words)

    return exchange


def md5(name):
    chip = Chip(name)
    chip.attach()
    return chip.result(c.SpiFlashMd5(0, 0x1000), 32)


def deflate(name):
    chip = Chip(name)
    chip.attach()
    packed = zlib.compress(b"z" * BLOCK)
    if chip.begin(BLOCK, 0x10000, kind=c.FlashDeflBegin) == REFUSED:
        return REFUSED
    chip.result(c.FlashDeflData(0, packed))
    return bytes(chip.transport.chip.flash.contents[0x10000:0x10003])


def slow_read(name):
    chip = Chip(name)
    chip.attach()
    result = chip.result(c.ReadFlashSlow(0, 16), 64)
    return result if result == REFUSED else len(result)


def attach_form(name):
    return Chip(name).result(c.SpiAttach(0, 0))


def flash_without_attach(name):
    """Whether FLASH_BEGIN attaches the flash by itself."""
    return Chip(name).begin(0x1000, 0x10000)


def erased_by_naive_size(name):
    """Sectors that FLASH_BEGIN for 8 KiB at a block's start erases when it is told the true size."""
    chip = Chip(name)
    contents = chip.transport.chip.flash.contents
    contents[:0x40000] = bytes(0x40000)
    chip.attach()
    assert chip.begin(0x2000, 0x10000) == b""
    return sum(contents[at] == 0xFF for at in range(0, 0x40000, 0x1000))


def security_info(name):
    for size in (20, 12):
        result = Chip(name).result(c.GetSecurityInfo(), size)
        if result != REFUSED:
            return size, int.from_bytes(result[12:16], "little") if size == 20 else None
    return REFUSED


def magic(name):
    value = Chip(name).ask(c.ReadReg(0x40001000))[-1].value
    return (
        value
        if any(value in load_chip(n).identity.magic_values for n in ALL)
        else "not told by magic"
    )


def secure_debug(name):
    replies = Chip(name).ask(c.SdcGenBegin())
    return bool(replies) and replies[-1].op == c.Op.SDC_GEN_BEGIN


def rate_after(number_for):
    """How far the chip's UART is from 460800 baud after CHANGE_BAUDRATE with the number given, in per cent."""

    def exchange(name):
        chip = Chip(name)
        if chip.result(c.ChangeBaudrate(number_for(name))) == REFUSED:
            return REFUSED
        return round(100 * chip.transport.chip.baud / 460800)

    return exchange


def falsified(name):
    """The number that brings each chip to 460800, computed here by hand from the facts."""
    factor = {"esp32": (1, 1), "esp32c2": (40, 26), "esp32c5": (1, 1)}.get(name, (1, 1))
    return 460800 * factor[0] // factor[1]


def of(default, **others):
    return {name: others.get(name, default) for name in ALL}


ROWS = [
    Row("status bytes", status_length, of(4, esp8266=2)),
    Row("BEGIN with four words", begin_with(4), of(REFUSED, esp8266=b"", esp32=b"")),
    Row("BEGIN with five words", begin_with(5), of(b"", esp8266=REFUSED, esp32=REFUSED)),
    Row(
        "MD5 as 32 hex digits",
        md5,
        of(hashlib.md5(b"\xff" * 0x1000).hexdigest().encode(), esp8266=REFUSED),
    ),
    Row("inflates", deflate, of(b"zzz", esp8266=REFUSED)),
    Row("slow read of 64 bytes", slow_read, of(64, esp8266=REFUSED)),
    Row("SPI_ATTACH of eight bytes", attach_form, of(b"", esp8266=REFUSED)),
    Row("FLASH_BEGIN attaches", flash_without_attach, of(REFUSED, esp8266=b"")),
    Row("sectors erased for a true size", erased_by_naive_size, of(2, esp8266=4)),
    Row(
        "security information",
        security_info,
        {n: (20, load_chip(n).identity.image_chip_id) for n in ALL}
        | {"esp8266": REFUSED, "esp32": REFUSED, "esp32s2": (12, None)},
    ),
    Row(
        "magic", magic, of("not told by magic", esp8266=0xFFF0C101, esp32=0x00F01D83, esp32s2=0x7C6)
    ),
    Row("secure debug commands", secure_debug, of(False, esp32s31=True)),
    Row("baud, plain number", rate_after(lambda n: 460800), of(100, esp8266=REFUSED, esp32c2=65)),
    Row("baud, falsified number", rate_after(falsified), of(100, esp8266=REFUSED)),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_chip_answers_as_the_facts_say(row):
    assert {name: row.exchange(name) for name in sorted(ALL)} == dict(sorted(row.expected.items()))


def test_the_esp32_divides_by_its_own_measurement():
    """CK8M_FREQ and a calibration that say 40.5 MHz: the plain number misses by as much, the scaled one does not."""
    chip = Chip("esp32")
    calibration = chip.facts.crystal.rom_calibration
    assert calibration is not None
    word = chip.ask(c.ReadReg(calibration.address))[-1].value
    measured = (word >> calibration.shift & calibration.mask) * 15625 * 0x50 / 40
    assert measured > calibration.threshold_hz
    chip.result(c.ChangeBaudrate(round(460800 * measured / 40e6)))
    assert abs(chip.transport.chip.baud - 460800) < 460800 * 0.01


@pytest.mark.parametrize(
    "crystal, set_for, factor", [(48, 40, 40 / 48), (40, 48, 48 / 40), (48, 48, 1), (40, 40, 1)]
)
def test_the_esp32c5_divides_by_the_crystal_it_is_set_for(crystal, set_for, factor):
    chip = Chip("esp32c5", **{"crystal": crystal, "rom-crystal": set_for})
    chip.result(c.ChangeBaudrate(460800))
    assert abs(chip.transport.chip.baud * factor - 460800) < 4608
    again = Chip("esp32c5", **{"crystal": crystal, "rom-crystal": set_for})
    again.result(c.ChangeBaudrate(round(460800 * factor)))
    assert abs(again.transport.chip.baud - 460800) < 4608


SAMPLES = [
    c.ReadReg(0x40001000),
    c.WriteReg((c.RegWrite(0x60000000, 0, 0),)),
    c.MemBegin(4, 1, 4, 0x40080000),
    c.SpiFlashMd5(0, 0x1000),
    c.ReadFlashSlow(0, 64),
    c.FlashDeflBegin(0x1000, 1, BLOCK, 0, 0),
    c.FlashDeflEnd(1),
    c.MemEnd(1, 0),
]


@pytest.mark.parametrize("name", sorted(SECURE_MODE))
def test_secure_download_mode_leaves_only_its_subset(name):
    chip = Chip(name, **{"secure-download": 1})
    for command in SAMPLES:
        replies = chip.ask(command)
        assert all(reply.body[-4] == 1 for reply in replies), command
    assert chip.ask(c.Sync())[0].body[-4] == 0
    assert chip.result(c.GetSecurityInfo(), chip.facts.identity.security_info_bytes) != REFUSED
    chip.attach()
    assert chip.begin(BLOCK, 0x10000) == b""
    assert chip.result(c.FlashData(0, b"\x5a" * BLOCK)) == b""
    assert bytes(chip.transport.chip.flash.contents[0x10000:0x10400]) == b"\x5a" * BLOCK
    assert chip.result(c.ChangeBaudrate(230400)) == b""


def test_old_chips_have_no_secure_download_mode():
    for name in FOUR_WORDS:
        assert load_chip(name).rom.secure_ops == frozenset()
