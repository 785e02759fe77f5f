"""Our stub, uploaded through the real mask ROM of each chip that has one, and left in the state that this ROM leaves.

Load addresses, the state at the entry, interrupts that are still enabled, watchdogs, the baud rate.
"""

from __future__ import annotations

import hashlib
import random
import tomllib
from importlib.resources import files

import pytest
from tests.roms import find_ports
from tests.stub_drivers.client import StubClient
from tests.stub_drivers.frames import frame, text, words
from tests.stub_drivers.programs import FREE_RAM, echo
from tests.watch_rom import watch

from espwire.chips.registry import chip_ids, load_chip
from espwire.compress import deflate_zlib
from espwire.device.connect import connect, speed_up
from espwire.device.device import Device
from espwire.device.stub_image import load_stub, stub_chips
from espwire.errors import Unsupported
from espwire.protocol.commands import GetSecurityInfo
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubReset
from espwire.transport.url import open_transport
from espwire.virtual.soc.rom_program import RomProgram

pytestmark = pytest.mark.slow
SIZE, PLACE = 0x1000, 0x20000
FAST = 921600
# these ROMs trap in their checks of security conditions: something that they check is not modelled
HALTS_IN_SECURE_DOWNLOAD = ("esp32c5", "esp32c61", "esp32p4", "esp32s31")


@pytest.mark.parametrize("chip", stub_chips())
def test_the_rom_writes_nothing_where_the_stub_is_loaded(chip: str) -> None:
    for port in find_ports(chip):
        image = load_stub(chip).for_revision(open_transport(port).chip.config.revision)
        written = watch(port).ram
        assert written
        for start, content in (*image.segments, *(image.first.segments if image.first else ())):
            end = start + len(content)
            assert all(part.stop <= start or part.start >= end for _, part in written), hex(start)


@pytest.mark.parametrize("chip", stub_chips())
def test_our_stub_runs_behind_the_rom(chip: str) -> None:
    for port in find_ports(chip):
        transport = open_transport(port)
        virtual = transport.chip
        data = random.Random(chip).randbytes(SIZE)
        events: list[object] = []
        with connect(transport, stub=False, report=events.append) as device:
            assert isinstance(virtual.program, RomProgram)
            hz = virtual.program.clock.hz
            speed_up(device, stub=True, baud=FAST)
            assert device.loader.baud == FAST
            device.attach_flash()
            assert isinstance(virtual.program, RomProgram), "the stub runs on the ROM's engine"
            form = device.backend.limits.lzma
            device.backend.erase(PLACE, SIZE)
            assert virtual.flash.contents[PLACE] == 0xFF
            for content, packed in ((text(SIZE), deflate_zlib(text(SIZE))), (data, None)):
                # where the stub has LZMA, that is used for compressed data
                codec = form.codec if packed is not None and form is not None else None
                device.backend.write(PLACE, content, packed=packed, codec=codec)
                assert bytes(virtual.flash.contents[PLACE : PLACE + SIZE]) == content
            assert device.flash_md5(PLACE, SIZE) == hashlib.md5(data).digest()
            assert b"".join(device.read_flash(PLACE, SIZE)) == data
            device.change_baud(115200)
            assert device.read_mem(device.chip.identity.magic_address)
            start_program(device)
            assert virtual.program.clock.hz == hz
            boots = virtual.boots
            device.reset()
            transport.sleep(0.1)
            assert virtual.boots > boots


def start_program(device: Device) -> None:
    """Start a program that sends text at the rate that the ROM had, though the stub has changed clocks meanwhile.

    Caches are in sync, or it would not run.
    """
    entry = FREE_RAM[device.chip.id]
    start, code = echo(device.chip.id, entry)
    stub, size = StubClient(device.transport), len(code)
    assert stub.call(frame(Op.MEM_BEGIN, words(size, 1, size, start)))[1] == 0
    assert stub.call(frame(Op.MEM_DATA, words(size, 0, 0, 0) + code))[1] == 0
    assert stub.call(frame(Op.MEM_END, words(0, entry)))[1] == 0
    said, end = b"", device.transport.now() + 1
    while len(said) < 2 and device.transport.now() < end:
        said += device.transport.read(0.2)
    assert said == b"hi"


# eFuses in the flags of the security information, except for those that bar the stub or the download mode
FLAG_FUSES = {
    "SECURE_BOOT_AGGRESSIVE_REVOKE",
    "SECURE_BOOT_KEY_REVOKE0",
    "SECURE_BOOT_KEY_REVOKE2",
    "SOFT_DIS_JTAG",
    "HARD_DIS_JTAG",
    "DIS_PAD_JTAG",
    "DIS_DOWNLOAD_DCACHE",
    "DIS_DOWNLOAD_ICACHE",
    "SPI_BOOT_CRYPT_CNT",
    "KEY_PURPOSE_0",
    "KEY_PURPOSE_3",
}


def fuses_of_flags(chip: str) -> dict[int, int]:
    """Address and mask of all of ``FLAG_FUSES``."""
    facts = tomllib.loads(
        (files("espwire.chips.data") / f"efuses/{chip}.toml").read_text(encoding="utf-8")
    )
    base = next(block["read"] for block in facts["blocks"] if block["id"] == 0)
    found: dict[int, int] = {}
    for field in facts["table"][0]["fields"]:
        if field["name"] in FLAG_FUSES:
            address = base + field["start"] // 32 * 4
            mask = ((1 << field["bits"]) - 1) << field["start"] % 32
            found[address] = found.get(address, 0) | mask
    return found


INFORMED = [chip for chip in stub_chips() if load_chip(chip).identity.security_info_bytes]


@pytest.mark.parametrize("chip", INFORMED)
def test_our_stub_answers_with_the_security_information_of_the_rom(chip: str) -> None:
    for port in find_ports(chip):
        with connect(open_transport(port), stub=False) as device:
            for address, mask in fuses_of_flags(chip).items():
                device.transport.chip.registers.words[address] = mask
            loader, size = device.loader, device.chip.identity.security_info_bytes
            expected = loader.call(GetSecurityInfo(), result=size).body
            device.use_stub()
            assert loader.dialect.sealed
            body = loader.call(GetSecurityInfo(), result=size).body
            if device.revision < (device.chip.stub.own.older_revision or 0):
                body = body[:11] + expected[11:12] + body[12:]  # the key that there is not
            assert body == expected


SECURE = [
    chip
    for chip in chip_ids()
    if load_chip(chip).rom.secure_ops and chip not in HALTS_IN_SECURE_DOWNLOAD
]


@pytest.mark.parametrize("chip", SECURE)
def test_the_rom_refuses_to_read_in_secure_download_mode(chip: str) -> None:
    for port in find_ports(chip):
        transport = open_transport(f"{port}&secure-download=1")
        with connect(transport, stub=False) as device:
            assert device.security is not None
            assert device.security.secure_download
            with pytest.raises(Unsupported) as caught:
                device.read_mem(device.chip.identity.magic_address)
            assert caught.value.code == "secure-download-mode"
            data = random.Random(chip).randbytes(0x400)
            device.backend.write(0x20000, data)
            assert bytes(transport.chip.flash.contents[0x20000:0x20400]) == data


@pytest.mark.parametrize("chip", stub_chips())
def test_the_stub_resets_the_chip_behind_the_rom(chip: str) -> None:
    for port in find_ports(chip):
        transport = open_transport(port)
        with connect(transport, stub=True, baud=FAST):
            boots = transport.chip.boots
            assert StubClient(transport).call(StubReset().packet())[1] == 0
            transport.sleep(0.1)
            assert transport.chip.boots == boots + 1
