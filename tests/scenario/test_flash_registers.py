"""The flash part's own registers on virtual chips: status read and written, SFDP raw and decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cli import Board

import espwire
from espwire.chips.registry import chip_ids, load_chip
from espwire.device.flash_registers import FlashStatus
from espwire.errors import DeviceError, SafetyStop, Unsupported, UsageError, VerifyError
from espwire.virtual.nor_flash import NorFlash

SECURE = [name for name in chip_ids() if load_chip(name).rom.secure_ops]


def flash_of(device: espwire.Device) -> NorFlash:
    part: NorFlash = device.transport.chip.flash  # type: ignore[attr-defined]
    return part


@pytest.fixture
def board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Board:
    return Board(tmp_path, capsys)


@pytest.mark.parametrize("name", chip_ids())
@pytest.mark.parametrize("count, value", [(1, 0x1C), (2, 0x021C), (3, 0x60021C)])
@pytest.mark.parametrize("non_volatile", [False, True])
def test_status_is_written_and_read_back(
    name: str, count: int, value: int, non_volatile: bool
) -> None:
    with espwire.connect(f"virtual:{name}", stub=False) as device:
        change = device.write_flash_status(value, count, non_volatile=non_volatile)
        assert (change.before.value, change.after.value, change.after.bytes) == (0, value, count)
        assert change.non_volatile is non_volatile
        assert change.disturbed is None
        assert device.read_flash_status(count) == change.after
        assert flash_of(device)._status == list(value.to_bytes(3, "little"))
        # after the next loss of power only what was meant to last is there
        kept = value if non_volatile else 0
        assert flash_of(device)._kept_status == list(kept.to_bytes(3, "little"))


@pytest.mark.parametrize("value, count", [(0x80, 1), (0x0100, 2), (0x0800, 2), (0x002000, 3)])
def test_bits_that_lock_for_good_need_consent(value: int, count: int) -> None:
    with espwire.connect("virtual:esp32c3", stub=False) as device:
        with pytest.raises(SafetyStop) as caught:
            device.write_flash_status(value, count, non_volatile=True)
        assert (caught.value.code, caught.value.consents) == ("status-lock", ("status-lock",))
        assert flash_of(device)._status == [0, 0, 0]
        assert (
            device.write_flash_status(value, count).after.value == value
        )  # gone with the next reset
        device.write_flash_status(value, count, non_volatile=True, consents=("status-lock",))
        assert device.read_flash_status(count).value == value


def test_registers_are_bytes_in_order() -> None:
    assert FlashStatus(value=0x030201, bytes=3).registers == (1, 2, 3)


def test_read_only_bits_do_not_count() -> None:
    with espwire.connect("virtual:esp32c3", stub=False) as device:
        assert device.write_flash_status(0x07, non_volatile=True).after.value == 0x04


def test_a_part_that_takes_one_byte_per_register_gets_them_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[tuple[int, bytes]] = []
    original = NorFlash.execute

    def execute(
        self: NorFlash, t: float, opcode: int, *, data: bytes = b"", **keywords: object
    ) -> bytes:
        if opcode in (0x01, 0x31, 0x11):
            written.append((opcode, data))
            if len(data) != 1:
                return b""
        return original(self, t, opcode, data=data, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(NorFlash, "execute", execute)
    with espwire.connect("virtual:esp32c3", stub=False) as device:
        assert device.write_flash_status(0x60021C, 3, non_volatile=True).after.value == 0x60021C
    assert written == [(0x01, b"\x1c\x02"), (0x01, b"\x1c"), (0x31, b"\x02"), (0x11, b"\x60")]


def test_a_locked_register_is_a_verify_error_with_both_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(NorFlash, "_write_status", lambda *args: b"")
    import espwire.virtual.nor_flash as virtual

    for opcode in (0x01, 0x31, 0x11):
        monkeypatch.setitem(virtual._SMALL_ACTIONS, opcode, NorFlash._write_status)
    with (
        espwire.connect("virtual:esp32", stub=False) as device,
        pytest.raises(VerifyError) as caught,
    ):
        device.write_flash_status(0x1C)
    assert caught.value.code == "status-not-taken"
    assert (caught.value.details["wanted"], caught.value.details["after"]) == (0x1C, 0)


def test_a_flash_chip_that_clears_register_2_with_register_1_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import espwire.virtual.nor_flash as virtual

    original = virtual._SMALL_ACTIONS[0x01]

    def write(self: NorFlash, t: float, opcode: int, address: int, data: bytes, read: int) -> bytes:
        return original(self, t, opcode, address, data.ljust(2, b"\0"), read)

    monkeypatch.setitem(virtual._SMALL_ACTIONS, 0x01, write)
    with espwire.connect("virtual:esp32", stub=False) as device:
        device.write_flash_status(0x0200, 2, non_volatile=True)
        assert device.write_flash_status(0x04, non_volatile=True).disturbed == (0x02, 0x00)


def test_a_part_that_stays_busy_ends_in_an_error() -> None:
    with espwire.connect("virtual:esp32s3", stub=False) as device:
        device.attach_flash()
        flash_of(device).busy_until = 1e9
        with pytest.raises(DeviceError) as caught:
            device.write_flash_status(0x1C)
    assert caught.value.code == "flash-busy"


@pytest.mark.parametrize("name", chip_ids())
def test_sfdp_is_read_raw_and_decoded(name: str) -> None:
    with espwire.connect(f"virtual:{name}?size=4MB", stub=False) as device:
        assert device.read_flash_sfdp(0, 4) == b"SFDP"
        assert device.read_flash_sfdp(1, 2) == b"FD"
        found = device.decode_flash_sfdp()
    assert (found.major, found.minor, found.size, found.page_size) == (1, 6, 4 << 20, 256)
    assert [(kind.size, kind.opcode) for kind in found.erase_types] == [
        (0x1000, 0x20),
        (0x8000, 0x52),
        (0x10000, 0xD8),
    ]
    assert (found.erase_4k_opcode, found.address_bytes) == (0x20, "3")
    assert [table.id for table in found.tables] == [0xFF00, 0x01EF]
    assert found.quad_enable_text is not None
    assert found.quad_enable_text.startswith("status 2 bit 1")


@pytest.mark.parametrize("name", SECURE)
def test_in_secure_download_mode_nothing_is_sent(name: str) -> None:
    with espwire.connect(f"virtual:{name}?secure-download=1", stub=False) as device:
        trips = device.loader.trips
        for work in (
            device.read_flash_status,
            lambda: device.write_flash_status(0),
            lambda: device.read_flash_sfdp(0, 4),
            device.decode_flash_sfdp,
        ):
            with pytest.raises(Unsupported) as caught:
                work()
            assert caught.value.code == "secure-download-mode"
        assert device.loader.trips == trips


def test_what_makes_no_sense_is_refused() -> None:
    with espwire.connect("virtual:esp32c3", stub=False) as device:
        for count, value in ((0, 0), (4, 0), (1, 0x100), (2, 0x10000), (1, -1)):
            with pytest.raises(UsageError):
                device.write_flash_status(value, count)
        for address, size in ((0, 0), (0, 5), (0xFFFFFF, 2), (-1, 1)):
            with pytest.raises(UsageError):
                device.read_flash_sfdp(address, size)


def test_the_status_commands_show_before_and_after(board: Board) -> None:
    assert board.result("read-flash-status", "--bytes", "2") == {
        "value": 0,
        "bytes": 2,
        "registers": [0, 0],
    }
    assert "Status: 0x00\n" in board.run("read_flash_status", "--bytes", "1")
    out = board.run("write-flash-status", "--bytes", "2", "--non-volatile", "0x0204")
    assert "Status before: 0x0000\nStatus after:  0x0204" in out
    result = board.result("write-flash-status", "--bytes", "1", "0x4")
    assert (result["before"]["value"], result["after"]["value"], result["non_volatile"]) == (
        0,
        4,
        False,
    )
    board.run("write-flash-status", "--bytes", "1", "0x100", code=2)
    assert board.result("read-flash-status")["bytes"] == 2
    board.run("read-flash-status", "--bytes", "4", code=2)


def test_the_sfdp_command_shows_bytes_and_names(board: Board) -> None:
    assert "SFDP 0x0: 53 46 44 50" in board.run("read-flash-sfdp", "0", "4")
    assert board.result("read_flash_sfdp", "0", "2") == {"address": 0, "size": 2, "data": "5346"}
    out = board.run("read-flash-sfdp", "--decode")
    assert "4MB" in out
    assert "4KB by 20h, 32KB by 52h, 64KB by d8h" in out
    result = board.result("read-flash-sfdp", "--decode")
    assert (result["size"], result["page_size"], len(result["basic_words"])) == (4 << 20, 256, 15)
    for words in (["0"], ["0", "5"], [], ["--decode", "0", "4"], ["0x1000000", "1"]):
        board.run("read-flash-sfdp", *words, code=2)
