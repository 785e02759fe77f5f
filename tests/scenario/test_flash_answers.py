"""A flash chip that does not answer, or is NAND: reported as that, and neither written nor erased."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from espwire.blob import Blob
from espwire.cli.main import main
from espwire.device.connect import connect
from espwire.device.flash_id import find_nand, is_silent
from espwire.errors import DeviceError
from espwire.events import Warned
from espwire.flash.erase import erase_flash, erase_region
from espwire.flash.findings import Policy
from espwire.flash.read import read_flash
from espwire.flash.write import write_flash
from espwire.transport.url import open_transport
from espwire.virtual import flash_parts

SILENT = ["ff-ffff", "00-0000", "3f-ffff", "ff-3fff", "00-ffff", "ff-0000"]
NAND = {
    "ef-aa21": "W25N01GV",
    "00-efaa": "Winbond",
    "ff-c8d1": "GigaDevice",
    "c8-d181": "GigaDevice",
    "2c-2425": "Micron",
}


@pytest.fixture
def open_with(monkeypatch):
    """``open_with("ff-ffff", "esp32")``: a virtual chip whose flash chip has that id, in the order of the line."""

    def prepare(jedec: str, chip: str, size: str = "4MB") -> str:
        maker, kind, code = bytes.fromhex(jedec.replace("-", ""))
        rows = {f"odd{at}": (kind, code, 1 << at) for at in range(18, 28)}
        table = dict(flash_parts.PARTS) | {f"id-{jedec}": (maker, rows)}
        monkeypatch.setattr(flash_parts, "PARTS", MappingProxyType(table))
        return f"virtual:{chip}?size={size}&vendor=id-{jedec}"

    return prepare


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3", "esp32s3"])
@pytest.mark.parametrize("jedec", SILENT + list(NAND))
def test_nothing_is_read_written_or_erased(open_with, jedec, chip):
    transport = open_transport(open_with(jedec, chip, "1MB"))
    flash = transport.chip.flash.contents
    flash[:] = bytes(range(256)) * (len(flash) // 256)
    before = bytes(flash)
    code = "nand-flash" if jedec in NAND else "no-flash"
    with connect(transport, stub=False) as device:
        for work in (
            device.attach_flash,
            lambda: device.attach_flash(size=0x400000),
            lambda: write_flash(device, [Blob(0x10000, b"data")], policy=Policy(force=True)),
            lambda: erase_flash(device, flash_size=0x400000, policy=Policy(force=True)),
            lambda: erase_region(device, 0x10000, 0x1000, policy=Policy(force=True)),
            lambda: read_flash(device, 0x10000, 16),
        ):
            with pytest.raises(DeviceError) as caught:
                work()
            # through the ESP8266's ROM nothing can be read in the first place
            assert caught.value.code == code or (
                chip == "esp8266" and caught.value.code == "cannot-read-flash"
            )
    assert flash == before


@pytest.mark.parametrize("stub", [True, False])
def test_flash_id_hints_at_what_to_check(open_with, capsys, stub):
    url = open_with("ff-ffff", "esp32")
    assert main(["-p", url, *([] if stub else ["--no-stub"]), "flash-id"]) == 5
    lines = capsys.readouterr().err.splitlines()
    assert "error: no flash chip answers: its JEDEC ID reads 0xffffff [no-flash]" in lines
    assert any(
        "pins, power and strapping pins" in line and "octal or NAND" in line for line in lines
    )


def test_flash_id_names_a_nand_chip(open_with, capsys):
    assert main(["-p", open_with("ef-aa21", "esp32c3"), "flash-id"]) == 5
    text = "error: the flash chip is NAND flash (W25N01GV, ID efaa21), which is not supported [nand-flash]"
    assert text in capsys.readouterr().err.splitlines()


def test_chip_info_shows_the_rest(open_with, capsys):
    assert main(["-p", open_with("00-0000", "esp32"), "chip-info"]) == 0
    said = capsys.readouterr()
    assert "MAC:          24:0a:c4:00:01:10" in said.out
    assert "no flash chip answers: its JEDEC ID reads 0x000000 [no-flash]" in said.err + said.out
    assert "Flash size" not in said.out


@pytest.mark.parametrize(
    ("jedec", "size"),
    [("85-6014", "1MB"), ("20-4016", "4MB"), ("c8-4017", "8MB"), ("c2-2018", "16MB")],
)
def test_nor_flash_is_taken_for_what_it_is(open_with, jedec, size):
    with connect(open_with(jedec, "esp32c3", size), stub=False) as device:
        info = device.attach_flash()
        assert (info.size, info.assumed) == (int(size[:-2]) << 20, False)


@pytest.mark.parametrize("jedec", ["2c-5b1a", "2c-5a1a", "20-ba18", "ef-4016"])
def test_nor_flash_of_a_maker_of_nand_is_not_nand(jedec):
    assert find_nand(int.from_bytes(bytes.fromhex(jedec.replace("-", "")), "little")) is None


@pytest.mark.parametrize(("jedec", "name"), [*NAND.items(), *((silent, None) for silent in SILENT)])
def test_which_ids_are_nand(jedec, name):
    word = int.from_bytes(bytes.fromhex(jedec.replace("-", "")), "little")
    assert find_nand(word) == name
    assert is_silent(word) is (name is None)


@pytest.mark.parametrize(
    ("jedec", "fuse", "text"),
    [
        ("c2-8039", 1, ""),
        ("ef-4018", 0, ""),
        ("c2-8039", 0, "is that of octal flash, but the eFuse FLASH_TYPE selects quad flash"),
        ("ef-4018", 1, "is not that of a known octal part, but the eFuse"),
    ],
)
def test_a_flash_chip_of_another_type_than_the_efuse_is_used_with_a_warning(
    open_with, jedec, fuse, text
):
    transport = open_transport(open_with(jedec, "esp32s3", "16MB") + f"&flash_type={fuse}")
    assert transport.chip.registers.words[0x6000703C] >> 9 & 1 == fuse
    events = []
    with connect(transport, stub=True, report=events.append) as device:
        info = device.attach_flash()
        write_flash(device, [Blob(0x10000, b"data", "a.bin")])
    found = [
        event.text for event in events if isinstance(event, Warned) if event.code == "flash-type"
    ]
    assert bool(found) == bool(text)
    assert all(text in warning for warning in found)
    assert len(found) <= 1
    assert info.manufacturer == int(jedec[:2], 16)
    assert transport.chip.flash.contents[0x10000:0x10004] == b"data"
