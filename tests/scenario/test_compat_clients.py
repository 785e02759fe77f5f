"""What clients of esptool's module use beyond its documented functions, on virtual chips."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import serial

import espwire
from espwire.transport.url import open_transport

DEMO = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"


@pytest.fixture
def esptool() -> Any:
    return pytest.importorskip("esptool")


@pytest.mark.parametrize(
    ("chip", "offset", "chip_id"),
    [("esp8266", 0, None), ("esp32", 0x1000, 0), ("esp32c3", 0, 5), ("esp32p4", 0x2000, 18)],
)
def test_constants_are_attributes_of_the_class(
    esptool: Any, chip: str, offset: int, chip_id: int | None
) -> None:
    rom = esptool.targets.CHIP_DEFS[chip]
    assert (offset, chip_id) == (rom.BOOTLOADER_FLASH_OFFSET, rom.IMAGE_CHIP_ID)
    assert rom is getattr(esptool, f"{chip.upper()}ROM")
    assert offset == rom("virtual:" + chip).BOOTLOADER_FLASH_OFFSET
    assert rom.FLASH_SIZES["4MB"] in (0x20, 0x40)
    assert esptool.ESPLoader.CHIP_NAME == "Espressif device"


def test_the_object_is_of_its_chips_class(esptool: Any) -> None:
    from esptool.targets.esp32c3 import ESP32C3ROM

    with esptool.detect_chip("virtual:esp32c3") as esp:
        assert type(esp) is ESP32C3ROM
        assert isinstance(esp, esptool.ESP32ROM)
        assert esp.IMAGE_CHIP_ID == esp.get_chip_id() == 5
        assert esp.get_memory_region("IROM") == (esp.IROM_MAP_START, esp.IROM_MAP_END)
        assert esp.get_memory_region("nothing") is None
        assert esp.get_baud() == 115200
        assert (esp.get_major_chip_version(), esp.get_minor_chip_version()) == (1, 1)
        assert esp.get_security_info()["chip_id"] == 5
        assert not esp.secure_download_mode
        assert not esp.get_secure_boot_enabled()
        esp.change_baud(460800)
        assert esp.get_baud() == 460800
    with esptool.ESPLoader.detect_chip("virtual:esp8266") as esp:
        assert not isinstance(esp, esptool.ESP32ROM)
        assert esp.chip_id() == esp.device.legacy_chip_id


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3", "esp32s3"])
@pytest.mark.parametrize("stub", [False, True])
def test_blocks_written_one_by_one_are_in_flash(esptool: Any, chip: str, stub: bool) -> None:
    data = os.urandom(9000)
    with esptool.detect_chip(f"virtual:{chip}") as esp:
        if stub:
            assert esp.run_stub() is esp
        assert stub == esp.IS_STUB
        size = esp.FLASH_WRITE_SIZE
        blocks = esp.flash_begin(len(data), 0x10000)
        assert blocks == -(-len(data) // size)
        for number in range(blocks):
            esp.flash_block(data[number * size :][:size].ljust(size, b"\xff"), number)
        if esp.IS_STUB:
            esp.flash_finish(False)
        assert (
            bytes(esp.device.transport.chip.flash.contents[0x10000 : 0x10000 + len(data)]) == data
        )
        if chip == "esp8266" and not stub:
            with pytest.raises(esptool.FatalError):
                esp.flash_md5sum(0x10000, 16)
            return
        packed = zlib.compress(data, 9)
        blocks = esp.flash_defl_begin(len(data), len(packed), 0x20000)
        for number in range(blocks):
            esp.flash_defl_block(packed[number * size :][:size], number, timeout=10)
        esp.flash_defl_finish(False)
        assert esp.flash_md5sum(0x20000, len(data)) == hashlib.md5(data).hexdigest()
        seen: list[tuple[int, int]] = []
        assert (
            esp.read_flash(0x20000, len(data), lambda done, total: seen.append((done, total)))
            == data
        )
        assert seen[-1] == (len(data), len(data))
        esp.erase_region(0x20000, 0x1000)
        assert esp.read_flash(0x20000, 8) == b"\xff" * 8


def test_a_program_is_put_into_ram_and_words_are_written_with_delays(esptool: Any) -> None:
    with esptool.detect_chip("virtual:esp32c3") as esp:
        esp.mem_begin(8, 1, 8, 0x3FC80000)
        esp.mem_block(b"\x01\x02\x03\x04\x05\x06\x07\x08", 0)
        esp.mem_finish(0)
        assert esp.read_reg(0x3FC80004) == 0x08070605
        esp.write_reg(0x3FC80000, 0xAABBCCDD, mask=0xFFFF, delay_us=50, delay_after_us=100)
        assert esp.read_reg(0x3FC80000) == 0x0403CCDD
        esp.update_reg(0x3FC80000, 0x00FF0000, 0x12)
        assert esp.read_reg(0x3FC80000) == 0x0412CCDD
        with pytest.raises(esptool.FatalError) as bad:
            esp.write_reg(0x3FC80001, 0)
        assert bad.value.code == "unaligned"


def test_raw_commands_are_sent_and_checked(esptool: Any) -> None:
    with esptool.detect_chip("virtual:esp32") as esp:
        read, attach = esp.ESP_CMDS["READ_REG"], esp.ESP_CMDS["SPI_ATTACH"]
        value, body = esp.command(read, struct.pack("<I", 0x40001000))
        assert (value, body[:1]) == (esp.MAGIC_VALUE, b"\0")
        assert esp.check_command("read", read, struct.pack("<I", 0x40001000)) == esp.MAGIC_VALUE
        esp.check_command("attach", attach, bytes(8))
        with pytest.raises(esptool.FatalError):
            esp.check_command(
                "refused",
                esp.ESP_CMDS["FLASH_DATA"],
                struct.pack("<IIII", 4, 0, 0, 0) + b"data",
                chk=0,
            )
        with pytest.raises(esptool.NotSupportedError):
            esp.command(0x77)


def test_the_port_is_a_pyserial_object_that_hears_the_chip_and_stays_the_same(esptool: Any) -> None:
    esp = esptool.get_default_connected_device(
        ["virtual:esp32c3"],
        port="virtual:esp32c3",
        connect_attempts=3,
        initial_baud=115200,
        chip="esp32c3",
    )
    assert esp.serial_port == "virtual:esp32c3"
    port = esp._port
    assert isinstance(port, serial.SerialBase)
    assert port.is_open
    assert (port.port, port.name, port.baudrate) == ("virtual:esp32c3", "virtual:esp32c3", 115200)
    before = port.get_settings()
    port.timeout = 0.05
    esp.hard_reset()
    text = b""
    for _ in range(2000):
        text += port.read_all()
    assert b"ESP-ROM:esp32c3" in text
    esp.connect()
    esp.run_stub()
    assert esp.IS_STUB
    esptool.main(["erase-region", "0x0", "0x1000"], esp=esp)
    port.apply_settings(before)
    esp.connect()
    assert not esp.IS_STUB
    assert esp._port is port
    assert esp.read_mac()[:3] == (0x24, 0x0A, 0xC4)
    port.close()
    assert not port.is_open
    with pytest.raises(serial.SerialException):
        port.read()
    with pytest.raises(esptool.FatalError):
        esp.read_reg(0x60008000)
    port.open()
    assert port.is_open
    esp.connect()
    assert esp.read_reg(0x40001000) is not None
    esp._port.close()
    esp._port = None


def test_main_resets_a_connected_chip_at_the_end_as_the_command_line_says(
    esptool: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """pytest-embedded flashes so, and then waits for the application's log."""
    with esptool.detect_chip("virtual:esp32c3") as esp:
        port = esp._port
        before = port.get_settings()
        capsys.readouterr()
        esptool.main(["--baud", "460800", "write-flash", "0x0", str(DEMO)], esp=esp)
        out = capsys.readouterr().out
        assert "Stub flasher running." in out
        assert "Hard resetting via RTS pin..." in out
        assert port.baudrate == esp.get_baud() == 460800
        port.apply_settings(before)
        assert port.baudrate == 115200
        port.timeout = 0.5
        esp.hard_reset()
        assert b"SPI_FAST_FLASH_BOOT" in port.read(2000)
        esp.connect()
        assert not esp.IS_STUB
        capsys.readouterr()
        esptool.main(["--no-stub", "--after", "no-reset", "read-mac"], esp=esp)
        assert "Hard resetting" not in capsys.readouterr().out
        assert esp.read_flash(0, 16) == DEMO.read_bytes()[:16]


def test_a_chip_that_was_closed_can_be_connected_again(esptool: Any) -> None:
    esp = esptool.detect_chip("virtual:esp32c3")
    for _ in range(2):
        esp.close()
        with pytest.raises(esptool.FatalError):
            esp.read_reg(0x60008000)
        esp.connect()
        assert esp.read_mac()[:3] == (0x24, 0x0A, 0xC4)
        assert esp._port.is_open
    esp.close()


def test_an_open_pyserial_object_is_a_port_too(esptool: Any) -> None:
    from esptool._port import PyserialTransport, TransportPort

    opened = TransportPort("virtual:esp32s3", open_transport("virtual:esp32s3"), 115200)
    with esptool.detect_chip(opened) as esp:
        assert esp.CHIP_NAME == "ESP32-S3"

    class Foreign(TransportPort):
        """Known only by pyserial's methods."""

    foreign = Foreign("virtual:esp32", open_transport("virtual:esp32"), 115200)
    transport = PyserialTransport(foreign)
    foreign.timeout = 5.0
    assert transport.read(0.0) == b""  # without the port's own time-out, which is left as it is
    assert foreign.timeout == 5.0
    assert foreign.write_timeout is not None  # a write ends
    foreign.close()
    with pytest.raises(espwire.TransportError):
        transport.write(b"x", 0.0)


def test_ports_are_tried_from_the_last_and_none_means_none(
    esptool: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = ["/dev/none1", "virtual:esp32", "/dev/none2"]
    with esptool.get_default_connected_device(ports, None, 1, 115200) as esp:
        assert esp.serial_port == "virtual:esp32"
    assert "/dev/none2" in capsys.readouterr().out
    assert esptool.get_default_connected_device(["/dev/none1"], None, 1, 115200) is None
    assert esptool.get_default_connected_device([], None, 1, 115200) is None
    with pytest.raises(esptool.FatalError):
        esptool.get_default_connected_device(ports, "/dev/none1", 1, 115200)
    with esptool.connect_loop("virtual:esp32", 115200, "esp32", 3) as esp:
        assert esp.CHIP_NAME == "ESP32"
    with pytest.raises(esptool.FatalError):
        esptool.connect_loop("/dev/none1", 115200, "auto", 2)


def test_port_names_are_listed_and_filtered(esptool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from serial.tools import list_ports, list_ports_common

    def port(name: str, vid: int, number: str) -> Any:
        made = list_ports_common.ListPortInfo(name)
        made.vid, made.pid, made.serial_number = vid, 0x1001, number
        return made

    found = [port("/dev/ttyUSB9", 0x10C4, "AA"), port("/dev/ttyACM0", 0x303A, "24:0A")]
    monkeypatch.setattr(list_ports, "comports", lambda include_links=False: found)
    assert esptool.get_port_list() == ["/dev/ttyACM0", "/dev/ttyUSB9"]
    assert esptool.get_port_list(vids=[0x303A]) == ["/dev/ttyACM0"]
    assert esptool.get_port_list(serials=["aa"]) == ["/dev/ttyUSB9"]
    assert esptool.get_port_list(names=["ACM"], pids=[1]) == []


def test_the_logger_has_the_names_that_clients_call(
    esptool: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from esptool.logger import log

    assert esptool.log is log
    log.print("a", "b", end="!\n")
    log.note("note")
    log.hint("try", "this")
    log.warn("warned", suggestion="do that")
    log.err("failed")
    log.debug("silent")
    log.stage()
    log.stage(finish=True)
    log.progress_bar(1, 4, prefix="Working", suffix=" now")
    with pytest.raises(SystemExit) as ended:
        log.die("over", exit_code=3)
    assert ended.value.code == 3
    log.set_verbosity("silent")
    log.print("not shown")
    log.set_verbosity("auto")
    said = capsys.readouterr()
    assert said.out.splitlines() == ["a b!", "note", "try this", "Working... (25 %) now"]
    assert said.err.splitlines() == ["warning: warned", "do that", "failed", "over"]


def test_flash_size_and_small_helpers(esptool: Any) -> None:
    from esptool import cmds, util

    with esptool.detect_chip("virtual:esp32?size=8MB") as esp:
        assert cmds.detect_flash_size(esp) == "8MB"
        assert (
            esptool.DETECTED_FLASH_SIZES[esp.flash_id() >> 16]
            == cmds.DETECTED_FLASH_SIZES[0x17]
            == "8MB"
        )
        assert esp.parse_flash_size_arg("8MB") == 0x30
        assert esp.parse_flash_freq_arg("80m") == 0xF
        with pytest.raises(esptool.FatalError):
            esp.parse_flash_size_arg("3MB")
    assert util.flash_size_bytes("4MB") == 0x400000
    assert util.flash_size_bytes(None) is None
    assert util.hexify(b"\x0a\xff") == "0AFF"
    assert util.pad_to(b"abc", 4) == b"abc\xff"
    assert util.mask_to_shift(0xF0) == 4
    assert (util.strip_chip_name("ESP32-C3"), util.expand_chip_name("esp32c3")) == (
        "esp32c3",
        "ESP32-C3",
    )
    assert util.get_bytes(b"x") == (b"x", None)
    assert "0102" in str(esptool.FatalError.WithResult("bad", b"\x01\x02"))


def test_an_image_is_loaded_with_its_digest(esptool: Any) -> None:
    from esptool.bin_image import LoadFirmwareImage

    image = LoadFirmwareImage("esp32c3", str(DEMO))
    assert image.append_digest
    assert image.stored_digest == image.calc_digest
    assert image.segments[0].addr
    assert (
        LoadFirmwareImage("esp32c3", io.BytesIO(DEMO.read_bytes())).entrypoint == image.entrypoint
    )
    with pytest.raises(esptool.FatalError):
        LoadFirmwareImage("esp32c3", b"no image")


@pytest.mark.parametrize(
    ("name", "more", "into"),
    [
        ("HardReset", (), b"SPI_FAST_FLASH_BOOT"),
        ("ClassicReset", (), b"waiting for download"),
        ("UnixTightReset", (), b"waiting for download"),
        ("CustomReset", ("D0|R1|W0.1|D1|R0|W0.1|D0",), b"waiting for download"),
    ],
)
def test_a_reset_by_lines_needs_only_the_port(
    esptool: Any, name: str, more: tuple[str, ...], into: bytes
) -> None:
    from esptool import reset
    from esptool._port import TransportPort

    port = TransportPort("virtual:esp32c3", open_transport("virtual:esp32c3"), 115200)
    port.timeout = 0.5
    getattr(reset, name)(port, *more)()
    assert into in port.read(2000)
    with pytest.raises(esptool.FatalError) as bad:
        reset.CustomReset(port, "X9")()
    assert bad.value.code == "reset-sequence"
    port.close()


@pytest.mark.parametrize("program", ["esp_rfc2217_server.py", "esp_rfc2217_server"])
def test_the_port_server_has_the_peers_options_and_exit_codes(
    program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = pytest.importorskip("espwire_compat.rfc2217_server").main
    served = []
    monkeypatch.setattr(
        "espwire.serve.server.serve_ports",
        lambda sources, options, **_: served.append((sources[0].name, options)),
    )
    assert main(["-p", "4000", "--r0", "-v", "-v", "virtual:esp32c3"], program) == 0
    name, options = served[0]
    assert (name, options.host, options.first) == ("virtual:esp32c3", "0.0.0.0", 4000)
    assert (options.long_reset, options.token) == (True, None)
    assert "warning: listening on all addresses" in capsys.readouterr().err
    assert main(["--localport=4001", "virtual:esp32c3"], program) == 0
    assert (served[1][1].first, served[1][1].long_reset) == (4001, False)
    for line, code in (([], 2), (["-h"], 0), (["--version"], 0)):
        assert main(line, program) == code
        assert capsys.readouterr().out.startswith((f"Usage: {program} ", "espwire "))
    for line in (["-p", "70000", "x"], ["--oops"], ["a", "b"]):
        assert main(line, program) == 2
        assert re.match(r"error: .* \[usage\]\nhint: ", capsys.readouterr().err)


def test_the_port_server_ends_with_1_if_the_port_cannot_be_opened(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main = pytest.importorskip("espwire_compat.rfc2217_server").main
    assert main(["-p", "0", "/dev/none-of-that-name"], "esp_rfc2217_server.py") == 1
    assert "[port-not-found]" in capsys.readouterr().err
