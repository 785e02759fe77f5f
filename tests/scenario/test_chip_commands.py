"""Security information, chip id, erasing all, running and resetting: virtual chips, by library call and by command."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from test_cli import Board

import espwire
from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import SafetyStop, Unsupported, UsageError
from espwire.events import Resetting
from espwire.protocol.opcodes import Op
from espwire.transport.base import TransportInfo
from espwire.virtual.chip import State
from espwire.virtual.transport import open_virtual

TELLING = [name for name in chip_ids() if Op.GET_SECURITY_INFO in load_chip(name).rom.ops]
SECURE = [name for name in chip_ids() if load_chip(name).rom.secure_ops]


def test_the_chips_that_tell_are_all_but_the_oldest_two() -> None:
    assert set(chip_ids()) - set(TELLING) == {"esp8266", "esp32"}


@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("secure", [False, True])
def test_security_is_told_by_name(name: str, secure: bool) -> None:
    chip = load_chip(name)
    with espwire.connect(f"virtual:{name}?secure-download={int(secure)}", stub=False) as device:
        trips = device.loader.trips
        info = device.read_security_info()
        assert device.loader.trips > trips
        assert device.security is info
    assert info.secure_download is secure
    assert ("SECURE_DOWNLOAD_ENABLE" in info.flag_names()) is secure
    assert len(info.purpose_names(chip)) == chip.security.key_count
    wanted = None if chip.rom.security_info_bytes == 12 else chip.identity.image_chip_id
    assert info.chip_id == wanted


@pytest.mark.parametrize("name", ["esp8266", "esp32"])
def test_old_chips_fail_before_sending(name: str) -> None:
    with espwire.connect(f"virtual:{name}", stub=False) as device:
        trips = device.loader.trips
        with pytest.raises(Unsupported) as caught:
            device.read_security_info()
        assert device.loader.trips == trips
    assert caught.value.code == "no-security-info"


@pytest.mark.parametrize("mode", ["twin", "engine"])
@pytest.mark.parametrize("chip", ["esp32c3", "esp32s2"])
def test_security_info_is_the_same_from_our_stub_of_an_earlier_run(chip: str, mode: str) -> None:
    url = f"virtual:{chip}?flash-encryption=1&stub={mode}"
    with espwire.connect(url, stub=False) as device:
        from_rom = device.read_security_info()
    transport = open_virtual(url)
    first = espwire.connect(transport, stub=False)
    assert first.use_stub()
    with espwire.connect(transport, before="no-reset", stub=False) as device:
        found = device.security
        from_stub = device.read_security_info()
    assert from_rom.flash_encryption
    assert found == from_stub == from_rom


def test_security_info_comes_from_efuses_if_an_older_stub_of_ours_is_running() -> None:
    transport = open_virtual("virtual:esp32c3?flash-encryption=1")
    with espwire.connect(transport, stub=False) as device:
        from_rom = device.read_security_info()
        assert device.use_stub()
        dialect = device.loader.dialect
        device.loader.dialect = dialect.replace(ops=dialect.ops - {Op.GET_SECURITY_INFO})
        from_efuses = device.read_security_info()
    assert (from_efuses.flash_encryption, from_efuses.flash_crypt_count) == (
        True,
        from_rom.flash_crypt_count,
    )
    assert (from_efuses.key_purposes, from_efuses.chip_id) == (from_rom.key_purposes, 5)


def test_get_security_info_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(tmp_path, capsys, "esp32c3", **{"secure-download": 1})
    out = board.run("get_security_info")
    assert "SECURE_DOWNLOAD_ENABLE" in out
    assert "Key 0:                USER" in out
    result = board.result("get-security-info")
    assert (result["flag_names"], result["chip_id"]) == (["SECURE_DOWNLOAD_ENABLE"], 5)
    old = Board(tmp_path, capsys, "esp32")
    out = old.run("get-security-info", code=5)
    assert "Secure Boot off, Flash Encryption off" in out + old.err
    assert "[no-security-info]" in old.err


@pytest.mark.parametrize("name", chip_ids())
def test_only_the_esp8266_has_a_chip_id(name: str) -> None:
    with espwire.connect(f"virtual:{name}?mac=18:fe:34:12:34:56", stub=False) as device:
        found = device.legacy_chip_id
        if name != "esp8266":
            assert found is None
            return
        mac0, mac1 = (device.read_mem(address).value for address in (0x3FF00050, 0x3FF00054))
    assert found == eval(rule_of("esp8266"), {"mac0": mac0, "mac1": mac1})
    assert found is not None
    assert found & 0xFFFFFF == 0x123456


def rule_of(name: str) -> str:
    text = files("espwire.chips").joinpath("data", f"{name}.toml").read_text("utf-8")
    rule: str = tomllib.loads(text)["mac"]["chip_id"]
    return rule


def test_chip_id_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Board(tmp_path, capsys, "esp8266")
    assert f"Chip ID: {old.result('chip_id')['chip_id']:#010x}" in old.run("chip-id")
    new = Board(tmp_path, capsys, "esp32c3")
    events = new.events("chip-id")
    assert [e["code"] for e in events if e["event"] == "Warned"] == ["no-chip-id"]
    assert events[-1]["data"] == {"chip_id": None, "mac": "24:6f:28:aa:bb:cc"}
    hidden = Board(tmp_path, capsys, "esp32s3", **{"secure-download": 1})
    hidden.run("chip-id", code=5)
    assert "[secure-download-mode]" in hidden.err


@pytest.mark.parametrize("name", chip_ids())
def test_the_whole_flash_is_erased(name: str) -> None:
    transport = open_virtual(f"virtual:{name}?size=1MB")
    contents = transport.chip.flash.contents
    contents[:] = bytes(1 << 20)
    with espwire.connect(transport, stub=False) as device:
        assert espwire.erase_flash(device) == 1 << 20
    assert bytes(contents) == b"\xff" * (1 << 20)


@pytest.mark.parametrize("name", SECURE)
def test_in_secure_download_mode_the_size_must_be_given_and_force_too(name: str) -> None:
    # a revision whose flash has power from the start: without registers nobody can switch it on
    revision = "&revision=300" if load_chip(name).flash_power_on is not None else ""
    transport = open_virtual(f"virtual:{name}?size=1MB&secure-download=1{revision}")
    contents = transport.chip.flash.contents
    contents[:] = bytes(1 << 20)
    with espwire.connect(transport, stub=False) as device:
        with pytest.raises(UsageError) as caught:
            espwire.erase_flash(device)
        assert caught.value.code == "flash-size-unknown"
        assert (
            espwire.erase_flash(device, flash_size=1 << 20, policy=espwire.Policy(force=True))
            == 1 << 20
        )
    assert bytes(contents) == b"\xff" * (1 << 20)


def test_a_size_that_is_given_counts_even_if_it_had_been_assumed() -> None:
    with espwire.connect("virtual:esp32c3?size=4MB&secure-download=1", stub=False) as device:
        with pytest.raises(UsageError):
            espwire.erase_flash(device)
        assert device.flash is not None
        assert device.flash.size == 2 << 20
        assert (
            espwire.erase_flash(device, flash_size=2 << 20, policy=espwire.Policy(force=True))
            == 2 << 20
        )


def test_a_secured_chip_is_erased_by_force_only() -> None:
    with espwire.connect("virtual:esp32c3?size=1MB&flash-encryption=1", stub=False) as device:
        assert device.security.flash_encryption
        with pytest.raises(SafetyStop):
            espwire.erase_flash(device)
        espwire.erase_flash(device, policy=espwire.Policy(force=True))


def test_a_stub_tells_how_far_the_erasing_is() -> None:
    seen: list[espwire.Event] = []
    with espwire.connect("virtual:esp32c3?size=4MB", stub=True) as device:
        espwire.erase_region(device, 0x1000, 0x280000, report=seen.append)
    assert [e.done for e in seen if isinstance(e, espwire.Progress)] == [
        0,
        0xFF000,
        0x1FF000,
        0x280000,
    ]


def test_erase_flash_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(tmp_path, capsys)
    board.run("write-flash", "0x10000", board.file("a.bin", bytes(5000)))
    assert board.result("erase-flash", "--dry-run") == {"size": 4 << 20, "erased": False}
    assert board.held(0x10000, 16) == bytes(16)
    assert "Done: the whole flash (4MB) is erased" in board.run("erase_flash", "--force")
    assert set(board.flash.read_bytes()) == {0xFF}
    board.run("erase-flash", "-fs", "huge", code=2)


@pytest.mark.parametrize("name", chip_ids())
@pytest.mark.parametrize("attached", [False, True])
def test_run_leaves_the_loader_for_the_application(name: str, attached: bool) -> None:
    transport = open_virtual(f"virtual:{name}")
    transport.chip.flash.contents[load_chip(name).flash.bootloader_offset] = 0xE9
    events: list[espwire.Event] = []
    with espwire.connect(transport, report=events.append, stub=False) as device:
        if attached:
            device.attach_flash()
        boots = transport.chip.boots
        device.run()
        transport.sleep(0.1)
        assert transport.chip.state is State.APP
        assert transport.chip.boots == boots
    assert [e.how for e in events if isinstance(e, Resetting)][-1] == "run"


def test_run_as_a_command_is_the_last_thing_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Board(tmp_path, capsys)
    board.run("write-flash", "0", board.file("a.bin", b"\xe9" + bytes(15)), "--force")
    events = board.events("run")
    assert [e["how"] for e in events if e["event"] == "Resetting"][-1] == "run"
    assert events[-1]["data"] == {"started": True}


@pytest.mark.parametrize("name", chip_ids())
def test_reset_pulses_the_lines_and_sends_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = open_virtual(f"virtual:{name}")
    transport.chip.flash.contents[load_chip(name).flash.bootloader_offset] = 0xE9
    monkeypatch.setattr(transport, "write", lambda *args: pytest.fail("a byte was sent"))
    boots = transport.chip.boots
    assert espwire.reset(transport) == "hard"
    transport.sleep(0.2)
    assert transport.chip.boots > boots
    assert transport.chip.state is State.APP


def test_a_port_without_lines_cannot_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = open_virtual("virtual:esp32c3")
    monkeypatch.setattr(
        transport,
        "info",
        TransportInfo(name="there", kind="tcp", can_reset=False, can_change_baud=False),
    )
    with pytest.raises(Unsupported) as caught:
        espwire.reset(transport)
    assert caught.value.code == "cannot-reset"


@pytest.mark.parametrize("kind", ["usb-jtag", "usb-otg"])
def test_native_usb_may_go_away_with_what_starts(kind: str) -> None:
    from espwire.flash.load_ram import load_ram
    from espwire.image.codec import build
    from espwire.image.model import ExtendedHeader, Image, Segment

    transport = open_virtual(f"virtual:esp32s3?kind={kind}")
    transport.chip.flash.contents[0] = 0xE9
    with espwire.connect(transport, stub=False) as device:
        device.run()
        assert transport.chip.state is State.APP
    transport = open_virtual(f"virtual:esp32s3?kind={kind}")
    extended = ExtendedHeader(chip_id=9)
    image = Image(
        mode_code=0,
        size_frequency=0,
        entry=0x3FC90000,
        segments=(Segment(0x3FC90000, b"abcd"),),
        extended=extended,
    )
    with espwire.connect(transport, stub=False) as device:
        load_ram(device, build(image))
        assert transport.chip.state is State.GONE


def test_reset_as_a_command_identifies_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Board(tmp_path, capsys)
    events = board.events("reset")
    assert [event["event"] for event in events] == ["Opened", "Resetting", "Result"]
    assert events[-1]["data"] == {"sequence": "hard"}
    assert "The chip was reset." in board.run("reset")
    board.port = str(tmp_path / "nothing")
    board.run("reset", code=3)
