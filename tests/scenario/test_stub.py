"""The stub for users: start, use, end, and a failed start. On the virtual chip's model of it."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from espwire import Device, connect
from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.cli.main import main
from espwire.device.backends.rom import ask_harmless
from espwire.device.backends.stub import ReadTransfer, WriteTransfer
from espwire.device.backends.stub_commands import find_written, read_md5s, run_batch
from espwire.device.stub_image import stub_chips
from espwire.errors import CommandFailed, SafetyStop, Unsupported
from espwire.events import Event, StubStarted, Warned
from espwire.flash.findings import Policy
from espwire.flash.read import read_flash
from espwire.flash.write import write_flash
from espwire.protocol.commands import FlashBegin, FlashData, ReadReg, RegWrite, WriteReg
from espwire.protocol.dialect import BaudRule
from espwire.protocol.stub import Codec
from espwire.virtual.transport import open_virtual

CHIPS = ("esp8266", "esp32", "esp32c3")
NOISE = random.Random(6).randbytes(40_000)


def open_device(chip: str, query: str = "", **more: object) -> tuple[Device, list[Event]]:
    events: list[Event] = []
    url = f"virtual:{chip}?size=1MB&{query}"
    return connect(url, report=events.append, stub=True, **more), events  # type: ignore[arg-type]


def warnings(events: list[Event]) -> list[str]:
    return [event.code for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize("chip", CHIPS)
def test_it_starts_writes_hashes_and_reads(chip: str) -> None:
    device, events = open_device(chip, baud=921600)
    with device:
        assert [event.stub for event in events if isinstance(event, StubStarted)] == ["stub"]
        assert device.loader.baud == 921600
        loader = device.loader
        device.attach_flash()
        with WriteTransfer(loader, 0x10000, len(NOISE), len(NOISE), Codec.RAW) as transfer:
            transfer.send(NOISE[:30_000])
            transfer.send(NOISE[30_000:])
            transfer.finish()
        wanted = [hashlib.md5(NOISE[at : at + 4096]).digest() for at in range(0, len(NOISE), 4096)]
        assert read_md5s(loader, 0x10000, len(NOISE), 4096) == wanted
        assert find_written(loader, 0, 0x20000, 0x8000) == [0x10000, 0x18000]
        assert read_flash(device, 0x10000 - 5, len(NOISE) + 5) == b"\xff" * 5 + NOISE
        assert warnings(events) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("chip", ["esp8266", "esp32c3"])
def test_damage_on_the_way_is_repaired(chip: str, seed: int) -> None:
    device, _ = open_device(chip, baud=921600)
    with device:
        device.attach_flash()
        hurt = random.Random(seed)
        transport, write, read = device.transport, device.transport.write, device.transport.read

        def spoil(data: bytes, worst: float = 0.00008) -> bytes:
            return bytes(byte ^ (hurt.random() < worst) << hurt.randrange(8) for byte in data)

        transport.write = lambda data, deadline: write(spoil(data), deadline)  # type: ignore[method-assign]
        transport.read = lambda timeout: spoil(read(timeout))  # type: ignore[method-assign]
        with WriteTransfer(device.loader, 0x10000, len(NOISE), len(NOISE), Codec.RAW) as transfer:
            transfer.send(NOISE)
            transfer.finish()
        with ReadTransfer(device.loader, 0x10000, len(NOISE)) as reading:
            assert b"".join(reading) == NOISE


def test_an_abandoned_transfer_leaves_the_stub_in_step() -> None:
    device, _ = open_device("esp32c3", baud=921600)
    with device:
        device.attach_flash()
        with WriteTransfer(device.loader, 0, 40_000, 40_000, Codec.RAW) as transfer:
            transfer.send(NOISE[:9000])  # and no finish
        with ReadTransfer(device.loader, 0, 0x40000) as reading:
            next(iter(reading))
        ask_harmless(device.loader)
        assert find_written(device.loader, 0x20000, 0x1000, 0x1000) == []


def test_a_stream_that_unpacks_to_something_else_is_reported() -> None:
    device, _ = open_device("esp32c3", baud=921600)
    with device:
        device.attach_flash()
        transfer = WriteTransfer(device.loader, 0, 4096, 4096, Codec.ZLIB)
        transfer.send(NOISE[:4096])
        with pytest.raises(CommandFailed) as caught:
            transfer.finish()
        assert caught.value.status == 0xC700
        assert find_written(device.loader, 0x1000, 0x1000, 0x1000) == []


def test_a_batch_brings_many_words_in_one_trip() -> None:
    device, _ = open_device("esp32")
    with device:
        place = 0x3FFE8000
        run_batch(device.loader, [WriteReg((RegWrite(place, 0x1234),))])
        before = device.loader.trips
        values = [reply.value for reply in run_batch(device.loader, [ReadReg(place)] * 64)]
        assert values == [0x1234] * 64
        assert device.loader.trips == before + 1


@pytest.mark.parametrize("chip", CHIPS)
def test_a_stub_that_does_not_start_is_reported_once_and_the_rom_continues(chip: str) -> None:
    device, events = open_device(chip, "stub=off")
    with device:
        assert warnings(events) == ["stub-failed"]
        assert device.loader.dialect is device.chip.rom
        assert device.attach_flash().size == 1 << 20


@pytest.mark.parametrize(
    ("chip", "query", "why"),
    [
        ("esp32e22", "", "espwire has no stub for the ESP32-E22"),
        ("esp32c2", "revision=0.0", "revision 0"),
        ("esp32s3", "kind=usb-otg", "USB-OTG"),
        ("esp32c3", "secure-download=1", "Secure Download Mode"),
        ("esp32c3", "secure-boot=1", "secure boot enabled"),
    ],
)
def test_where_none_can_be_used_the_rom_is_taken_without_a_word(
    chip: str, query: str, why: str
) -> None:
    device, events = open_device(chip, query)
    with device:
        assert why in device.find_stub_obstacle()
        assert device.loader.dialect.name == "ROM"
        assert warnings(events) == []


def test_no_stub_and_a_file_that_is_not_a_stub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["-p", "virtual:esp8266", "--json"]
    assert main([*line, "--no-stub", "flash-id"]) == 0
    assert "StubStarted" not in capsys.readouterr().out
    assert main([*line, "flash-id"]) == 0
    assert "StubStarted" in capsys.readouterr().out
    assert main([*line, "read-mac"]) == 0
    assert "StubStarted" not in capsys.readouterr().out
    assert main([*line, "--after", "no-reset-stub", "read-mac"]) == 0
    assert "StubStarted" in capsys.readouterr().out
    file = tmp_path / "stub.json"
    file.write_text("{}")
    assert main([*line, "--stub", str(file), "flash-id"]) == 6
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "Error"


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3"])
@pytest.mark.parametrize("baud", [115200, 460800])
def test_a_stub_that_stays_is_found_whatever_the_rate_was(chip: str, baud: int) -> None:
    transport = open_virtual(f"virtual:{chip}")
    connect(transport, baud=921600, stub=True).leave("no-reset-stub")
    with connect(transport, before="no-reset", baud=baud, stub=False) as again:
        assert again.loader.dialect.capabilities is not None
        assert again.loader.baud == baud
        assert again.attach_flash().size == 4 << 20


@pytest.mark.parametrize(
    "chip", [chip for chip in chip_ids() if load_chip(chip).rom.baud is not BaudRule.NONE]
)
def test_a_rom_that_stays_is_found_whatever_the_rate_was(chip: str) -> None:
    transport = open_virtual(f"virtual:{chip}?size=4MB")
    first = connect(transport, baud=921600, stub=False)
    assert first.loader.baud == 921600
    first.leave("no-reset")
    with connect(transport, before="no-reset", stub=False) as again:
        assert again.chip.id == chip


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3"])
def test_a_stub_that_stays_is_found_without_a_sync_too(chip: str) -> None:
    transport = open_virtual(f"virtual:{chip}")
    connect(transport, stub=True).leave("no-reset-stub")
    with connect(transport, before="no-reset-no-sync", stub=False) as again:
        assert again.loader.dialect.capabilities is not None
        assert again.attach_flash().size == 4 << 20


@pytest.mark.parametrize("chip", chip_ids())
def test_without_a_sync_a_rom_is_taken_for_a_rom(chip: str) -> None:
    transport = open_virtual(f"virtual:{chip}")
    connect(transport, stub=False).leave("no-reset")
    with connect(transport, before="no-reset-no-sync", stub=False) as again:
        assert again.loader.dialect.name == "ROM"
        assert again.chip.id == chip


def test_after_no_reset_the_rom_answers_and_after_no_reset_stub_the_stub() -> None:
    device, _ = open_device("esp32")
    with device:
        device.leave("no-reset-stub")
        assert device.loader.sync() == 0
        device.leave("no-reset")
        assert device.loader.sync() != 0
        assert device.use_stub()
        device.leave("no-reset-stub")
        with connect(device.transport, before="no-reset", stub=False) as again:
            assert again.loader.dialect.capabilities is not None
            assert again.attach_flash().size == 1 << 20


@pytest.mark.parametrize("mode", ["twin", "engine"])
@pytest.mark.parametrize("chip", ["esp32s2", "esp32s3", "esp32c6", "esp32p4"])
def test_flash_above_16_mb_is_not_mistaken_for_flash_below(chip: str, mode: str) -> None:
    """Each operation on the upper half leaves alone, and does not return, what is 16 MB below."""
    url = f"virtual:{chip}?size=32MB&stub={mode}"
    above, size = 0x1800000, 0x2000
    below = above - 0x1000000
    data, marker = random.Random(chip).randbytes(size), random.Random(7).randbytes(size)
    with connect(url, stub=True, baud=921600) as device:
        flash = device.transport.chip.flash.contents
        flash[below : below + size] = marker
        flash[above : above + size] = bytes(size)
        device.attach_flash()
        device.backend.write(above, data)
        assert flash[above : above + size] == data
        assert device.flash_md5(above, size) == hashlib.md5(data).digest()
        assert b"".join(device.read_flash(above, size)) == data
        device.backend.erase(above, size)
        assert flash[above : above + size] == b"\xff" * size
        assert flash[below : below + size] == marker


@pytest.mark.parametrize("chip", ["esp32c3", "esp32s3", "esp32c5", "esp32c61"])
def test_a_rom_of_24_address_bits_erases_and_programs_16_mb_below(chip: str) -> None:
    """As the real ROMs of these chips do behind the virtual flash (docs/evidence)."""
    with connect(f"virtual:{chip}?size=32MB&profile=instant", stub=False) as device:
        device.attach_flash()
        flash = device.transport.chip.flash.contents
        flash[0x100000:0x100004], flash[0x1100000:0x1100004] = b"LOW!", b"HIGH"
        device.loader.call(FlashBegin(0x400, 1, 0x400, 0x1100000, 0))
        device.loader.call(FlashData(0, b"DATA" * 0x100))
        assert bytes(flash[0x100000:0x100004]) == b"DATA"
        assert bytes(flash[0x1100000:0x1100004]) == b"HIGH"


@pytest.mark.parametrize("chip", ["esp32", "esp32c3", "esp32s3"])
def test_a_rom_does_not_answer_for_flash_that_its_addresses_do_not_reach(chip: str) -> None:
    with connect(f"virtual:{chip}?size=32MB", stub=False) as device:
        device.attach_flash()
        for job in (
            lambda: list(device.read_flash(0x1000000 - 4, 8)),
            lambda: device.flash_md5(0x1FE0000, 16),
            lambda: write_flash(device, [Blob(0x1FE0000, b"data")], policy=Policy(force=True)),
        ):
            with pytest.raises((Unsupported, SafetyStop)) as caught:
                job()
            assert caught.value.code == "beyond-16mb"
        assert len(b"".join(device.read_flash(0x1000000 - 8, 8))) == 8


@pytest.mark.parametrize(
    ("chip", "kind", "runs"),
    [("esp32c3", "usb-jtag", True), ("esp32s3", "usb-otg", False), ("esp32c6", "uart", True)],
)
def test_on_a_port_without_usb_ids_the_rom_knows_which_port_it_is(
    chip: str, kind: str, runs: bool
) -> None:
    """As on a pseudo-terminal."""
    transport = open_virtual(f"virtual:{chip}?size=4MB&kind={kind}")
    transport.info = replace(transport.info, kind="uart", vid=None, pid=None, can_reset=False)
    with connect(transport, before="no-reset", stub=True) as device:
        assert (device.loader.dialect.capabilities is not None) is runs
        assert device.attach_flash().size == 4 << 20


@pytest.mark.parametrize("chip", ["esp8266", "esp32s3"])
def test_a_window_at_a_slow_rate_is_not_a_dead_line(chip: str) -> None:
    with connect(f"virtual:{chip}?size=4MB", stub=True, baud=4800) as device:
        write_flash(device, [Blob(0x10000, NOISE)], policy=Policy(compress=False))
        assert device.transport.chip.flash.contents[0x10000 : 0x10000 + len(NOISE)] == NOISE


@pytest.mark.parametrize("mode", ["twin", "engine"])
@pytest.mark.parametrize("chip", ["esp32s3", "esp32c6"])
def test_reads_across_16_mb_do_not_continue_at_0(chip: str, mode: str) -> None:
    """A read with three address bytes would, on some flash chips and on the virtual one."""
    start, size = 0x1000000 - 0x1010, 0x2000  # not a multiple of a burst before the border
    data = random.Random(chip).randbytes(size)
    with connect(f"virtual:{chip}?size=32MB&stub={mode}", stub=True, baud=921600) as device:
        device.transport.chip.flash.contents[start : start + size] = data
        device.attach_flash()
        assert device.flash_md5(start, size) == hashlib.md5(data).digest()
        assert b"".join(device.read_flash(start, size)) == data


@pytest.mark.parametrize("chip", stub_chips())
def test_the_default_command_line_writes_and_reads_through_the_stub(
    chip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, back, flash = (tmp_path / name for name in ("app.bin", "back.bin", "chip.flash"))
    file.write_bytes(NOISE)
    line = ["-p", f"virtual:{chip}?flash={flash}", "--json"]
    assert main([*line, "write-flash", "0x10000", str(file)]) == 0
    assert main([*line, "read-flash", "0x10000", str(len(NOISE)), str(back)]) == 0
    events = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [event["stub"] for event in events if event["event"] == "StubStarted"] == ["stub"] * 2
    assert back.read_bytes() == NOISE
