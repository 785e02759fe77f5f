"""Memory of virtual chips: words read and written, dumps, programs for RAM; by library call and by command."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from test_cli import Board

import espwire
from espwire.chips.registry import chip_ids, load_chip
from espwire.device.loader import Loader, Packet
from espwire.device.memory_access import MemWord, MemWrite
from espwire.errors import (
    CommandFailed,
    DeviceError,
    FileError,
    ImageError,
    SafetyStop,
    Unsupported,
    UsageError,
)
from espwire.events import Finished, Progress
from espwire.flash.load_ram import RamLoad, find_rom_ram
from espwire.image.codec import build
from espwire.image.model import ExtendedHeader, Image, Segment
from espwire.transport.base import CancelToken
from espwire.virtual.chip import State
from espwire.virtual.transport import open_virtual

SECURE = [name for name in chip_ids() if load_chip(name).rom.secure_ops]
NOWHERE = 0xDEADBEE0


def ram_of(name: str) -> int:
    """An address in data RAM that the loader leaves alone."""
    return (
        next(region.start for region in load_chip(name).memory.map if region.name == "DRAM")
        + 0x1000
    )


@pytest.fixture
def board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Board:
    return Board(tmp_path, capsys)


@pytest.mark.parametrize("name", chip_ids())
def test_a_word_is_written_masked_and_read_in_one_trip_each(name: str) -> None:
    with espwire.connect(f"virtual:{name}", stub=False) as device:
        address, trips = ram_of(name), device.loader.trips
        assert device.write_mem(address, 0x12345678) == MemWrite(
            address=address, value=0x12345678, mask=0xFFFFFFFF
        )
        device.write_mem(address, 0xAAAAAAAA, 0x0000FF00)
        assert device.read_mem(address) == MemWord(address=address, value=0x1234AA78)
        assert device.loader.trips == trips + 3


@pytest.mark.parametrize("name", chip_ids())
def test_a_dump_reads_each_word_twice_and_shows_progress(name: str) -> None:
    events: list[espwire.Event] = []
    with espwire.connect(f"virtual:{name}", stub=False) as device:
        address, data = ram_of(name), random.Random(1).randbytes(0x1802)
        device.transport.chip.registers.ram.write(address, data)  # type: ignore[attr-defined]
        dump = espwire.dump_mem(device, address, len(data), report=events.append)
    assert dump.data == data
    words = -(-len(data) // 4)
    assert words < dump.trips <= 2 * words, "each word twice"
    assert [e.done for e in events if isinstance(e, Progress)][-1] == len(data)
    assert isinstance(events[-1], Finished)


def test_a_dump_goes_on_over_a_line_that_loses_answers() -> None:
    with espwire.connect("virtual:esp32c3?seed=8&fault=stall:0.01", stub=False) as device:
        data = random.Random(2).randbytes(0x800)
        device.transport.chip.registers.ram.write(ram_of("esp32c3"), data)  # type: ignore[attr-defined]
        assert espwire.dump_mem(device, ram_of("esp32c3"), len(data)).data == data


@pytest.mark.parametrize("name", SECURE)
def test_in_secure_download_mode_nothing_is_sent(name: str, tmp_path: Path) -> None:
    with espwire.connect(f"virtual:{name}?secure-download=1", stub=False) as device:
        trips, address = device.loader.trips, ram_of(name)
        for work in (
            lambda: device.read_mem(address),
            lambda: device.write_mem(address, 0),
            lambda: espwire.dump_mem(device, address, 8, tmp_path / "dump"),
        ):
            with pytest.raises(Unsupported) as caught:
                work()
            assert caught.value.code == "secure-download-mode"
        assert device.loader.trips == trips
    assert not (tmp_path / "dump").exists()


@pytest.mark.parametrize(
    "address, size, code",
    [
        (0x3FC88001, 4, "unaligned"),
        (0x3FC88002, 4, "unaligned"),
        (0x3FC88000, 0, "memory-range"),
        (0xFFFFFFFC, 8, "memory-range"),
        (-4, 4, "memory-range"),
        (1 << 32, 4, "memory-range"),
    ],
)
def test_what_is_no_range_of_words_is_refused(address: int, size: int, code: str) -> None:
    with (
        espwire.connect("virtual:esp32c3", stub=False) as device,
        pytest.raises(UsageError) as caught,
    ):
        espwire.dump_mem(device, address, size)
    assert caught.value.code == code


@pytest.mark.parametrize("name", chip_ids())
def test_an_address_with_nothing_behind_it_is_told_by_name(name: str) -> None:
    with (
        espwire.connect(f"virtual:{name}", stub=False) as device,
        pytest.raises(DeviceError) as caught,
    ):
        device.read_mem(NOWHERE)
    assert (caught.value.code, caught.value.details["address"]) == ("memory-access", NOWHERE)
    with (
        espwire.connect(f"virtual:{name}", stub=False) as device,
        pytest.raises(DeviceError) as caught,
    ):
        device.write_mem(NOWHERE, 1)
    assert caught.value.code == "memory-access"


def test_a_dump_by_the_stub_of_what_is_not_there_names_the_address() -> None:
    with (
        espwire.connect("virtual:esp32c3", stub=True) as device,
        pytest.raises(DeviceError) as caught,
    ):
        espwire.dump_mem(device, NOWHERE, 256)
    assert (caught.value.code, caught.value.details["address"]) == ("memory-access", NOWHERE)


def test_a_cancelled_dump_and_a_bad_path_leave_no_file(tmp_path: Path) -> None:
    token, path = CancelToken(), tmp_path / "dump"
    path.write_bytes(b"old")

    def cancel_soon(event: espwire.Event) -> None:
        if isinstance(event, Progress) and event.done:
            token.cancel()

    with espwire.connect("virtual:esp32c3", stub=False) as device:
        with pytest.raises(espwire.Cancelled):
            espwire.dump_mem(
                device, ram_of("esp32c3"), 0x4000, path, cancel=token, report=cancel_soon
            )
        with pytest.raises(FileError):
            espwire.dump_mem(device, ram_of("esp32c3"), 8, tmp_path / "no" / "dump")
    assert [entry.name for entry in tmp_path.iterdir()] == ["dump"]
    assert path.read_bytes() == b"old"


def test_the_commands_read_write_and_dump(board: Board) -> None:
    assert board.result("read_mem", "0x3fc88000") == {"address": 0x3FC88000, "value": 0}
    assert "0x3fc88000 = 0x00000000" in board.run("read-mem", "0x3fc88000")
    result = board.result("write-mem", "0x3fc88000", "0x12345678", "0xff00")
    assert result == {"address": 0x3FC88000, "value": 0x12345678, "mask": 0xFF00}
    assert "Wrote 0x00000005 to 0x3fc88000." in board.run("write_mem", "0x3fc88000", "5")
    file = board.folder / "dump.bin"
    result = board.result("dump-mem", "0x3fc88000", "4k", file)
    assert result == {"address": 0x3FC88000, "size": 0x1000, "file": str(file), "trips": 0x10}
    assert file.read_bytes() == bytes(0x1000)


@pytest.mark.parametrize(
    "words",
    [
        ["read-mem", "0x3fc88001"],
        ["read-mem", "x"],
        ["read-mem"],
        ["write-mem", "4", "0x100000000"],
        ["write-mem", "0x3fc88002", "1"],
        ["write-mem", "0"],
        ["dump-mem", "0x3fc88000", "0", "f"],
        ["dump-mem", "0x3fc88000", "ALL", "f"],
        ["dump-mem", "2", "4", "f"],
    ],
)
def test_bad_arguments_are_exit_2_before_connecting(board: Board, words: list[str]) -> None:
    board.port = "/dev/no-such-port"
    board.run(*words, code=2)


def program(name: str, *segments: Segment, entry: int = 0, chip_id: int | None = None) -> bytes:
    """An image for RAM."""
    chip = load_chip(name)
    number = chip.identity.image_chip_id if chip_id is None else chip_id
    extended = ExtendedHeader(chip_id=number or 0) if chip.image.extended_header else None
    entry = entry or segments[0].address
    return build(
        Image(mode_code=0, size_frequency=0, entry=entry, segments=segments, extended=extended)
    )


@pytest.mark.parametrize("name", chip_ids())
def test_a_program_goes_into_ram_block_by_block_and_starts(name: str) -> None:
    first, data = ram_of(name), random.Random(3).randbytes(0x4004)
    transport = open_virtual(f"virtual:{name}")
    packets: list[Packet] = []
    with espwire.connect(transport, on_packet=packets.append, stub=False) as device:
        image = program(name, Segment(first, data), Segment(first + 0x8000, b"abcd"))
        packets.clear()
        done = espwire.load_ram(device, image)
    assert done == RamLoad(entry=first, segments=((first, 0x4004), (first + 0x8000, 4)))
    assert transport.chip.registers.ram.read(first, len(data)) == data
    assert transport.chip.registers.ram.read(first + 0x8000, 4) == b"abcd"
    assert transport.chip.state is State.GONE  # no CPU is emulated: the loader has been left
    whole = -(-0x4004 // load_chip(name).rom.ram_block)
    blocks = [packet.command.op for packet in packets if packet.command is not None]
    assert blocks == [5, *[7] * whole, 5, 7, 6]


@pytest.mark.parametrize("name", [n for n in chip_ids() if load_chip(n).usb.otg_ram_block])
def test_over_usb_otg_blocks_are_smaller(name: str) -> None:
    transport = open_virtual(f"virtual:{name}?kind=usb-otg")
    sizes: list[int] = []

    def note(packet: Packet) -> None:
        sizes.append(len(getattr(packet.command, "data", b"")))

    with espwire.connect(transport, on_packet=note, stub=False) as device:
        espwire.load_ram(device, program(name, Segment(ram_of(name), bytes(0x2000))))
    assert max(sizes) == load_chip(name).usb.otg_ram_block


def test_a_block_that_is_refused_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from espwire.virtual.rom import Rom, Transfer

    taken, original = [], Rom._take_block

    def take(self: Rom, transfer: Transfer | None) -> object:
        taken.append(1)
        return 0x07 if len(taken) == 2 else original(self, transfer)

    monkeypatch.setattr(Rom, "_take_block", take)
    transport, data = open_virtual("virtual:esp32c3"), random.Random(4).randbytes(0x4000)
    with espwire.connect(transport, stub=False) as device:
        espwire.load_ram(device, program("esp32c3", Segment(ram_of("esp32c3"), data)))
    assert transport.chip.registers.ram.read(ram_of("esp32c3"), len(data)) == data
    monkeypatch.setattr(Rom, "_take_block", lambda self, transfer: 0x07)
    with espwire.connect("virtual:esp32c3", stub=False) as device, pytest.raises(CommandFailed):
        espwire.load_ram(device, program("esp32c3", Segment(ram_of("esp32c3"), data)))


def test_images_that_are_not_for_ram_are_refused_before_anything_is_sent() -> None:
    name, good = "esp32c3", Segment(ram_of("esp32c3"), b"abcd")
    damaged = bytearray(program(name, good))
    damaged[0x20] ^= 1
    cases = {
        "image-wrong-chip": program(name, good, chip_id=0),
        "image-damaged": bytes(damaged),
        "image-not-for-ram": program(name, good, Segment(0x42000020, b"abcd")),
        "image-magic": b"no image at all",
        "image-empty": b"",
    }
    with espwire.connect(f"virtual:{name}", stub=False) as device:
        trips = device.loader.trips
        for code, data in cases.items():
            with pytest.raises(ImageError) as caught:
                espwire.load_ram(device, data)
            assert caught.value.code == code
        assert device.loader.trips == trips


@pytest.mark.parametrize("name", [n for n in chip_ids() if find_rom_ram(load_chip(n), None, 8)])
def test_the_roms_own_ram_is_not_overwritten_unless_forced(name: str) -> None:
    with espwire.connect(f"virtual:{name}", stub=False) as device:
        ranges = find_rom_ram(device.chip, device.revision, 8)
        assert ranges
        image = program(name, Segment(ranges[0][0] - 4, bytes(8)))
        trips = device.loader.trips
        with pytest.raises(SafetyStop) as caught:
            espwire.load_ram(device, image)
        assert caught.value.code == "rom-ram"
        assert device.loader.trips == trips
        if any(
            region.end > ranges[0][0] for region in device.chip.memory.map if region.name == "DRAM"
        ):
            espwire.load_ram(device, image, policy=espwire.Policy(consents=frozenset({"rom-ram"})))


@pytest.mark.parametrize("name", ["esp8266", "esp32", "esp32c3", "esp32s3", "esp32p4"])
def test_the_running_stub_is_not_overwritten(name: str) -> None:
    with espwire.connect(f"virtual:{name}?profile=instant", stub=True) as device:
        own = device.chip.stub.own
        assert own is not None
        for address in (own.code_start, own.data_end - 4):
            trips = device.loader.trips
            with pytest.raises(SafetyStop) as caught:
                espwire.load_ram(
                    device,
                    program(name, Segment(address, bytes(8))),
                    policy=espwire.Policy(consents=frozenset({"rom-ram"})),
                )
            assert caught.value.code == "stub-ram"
            assert device.loader.trips == trips
        assert device.loader.read_reg(own.code_start) is not None


def test_in_secure_download_mode_no_program_is_loaded() -> None:
    with (
        espwire.connect("virtual:esp32s3?secure-download=1", stub=False) as device,
        pytest.raises(Unsupported) as caught,
    ):
        espwire.load_ram(device, program("esp32s3", Segment(ram_of("esp32s3"), b"abcd")))
    assert caught.value.code == "secure-download-mode"


def test_load_ram_as_a_command_starts_the_program_and_leaves_it_alone(board: Board) -> None:
    file = board.file("app.bin", program("esp32c3", Segment(0x3FC90000, b"abcd")))
    events = board.events("load_ram", file)
    assert events[-1]["data"] == {
        "entry": 0x3FC90000,
        "segments": [{"address": 0x3FC90000, "size": 4}],
    }
    assert not [e for e in events if e["event"] == "Resetting" and e["into"] == "application"]
    assert "and started the program at" in board.run("load-ram", file)
    board.run("load-ram", "missing.bin", code=6)
    board.run(
        "load-ram", board.file("rom.bin", program("esp32c3", Segment(0x3FCDFFFC, b"abcd"))), code=8
    )


@pytest.mark.parametrize(
    "words", [("read-mem", 0), ("write-mem", 0, 1), ("dump-mem", 0, 4, "dump")]
)
def test_a_refused_request_is_reported_as_it_is(
    board: Board, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...]
) -> None:
    def refuse(self: Loader, *arguments: object) -> None:
        raise CommandFailed("READ_REG failed", command="READ_REG", status=0x105)

    command, offset, *rest = words
    monkeypatch.chdir(board.folder)
    for name in ("read_reg", "write_regs"):
        monkeypatch.setattr(f"espwire.device.memory_access.Loader.{name}", refuse)
    error = board.events(
        "--no-stub", command, hex(ram_of("esp32c3") + int(str(offset))), *rest, code=5
    )[-1]
    assert (error["code"], error["message"]) == ("command-failed", "READ_REG failed")
