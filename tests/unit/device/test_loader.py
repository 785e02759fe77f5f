"""The loader against recorded and hand-written bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from espwire.errors import CommandFailed, DeviceError, NoReply, Unsupported
from espwire.protocol.commands import (
    FlashData,
    FlashDeflBegin,
    FlashDeflEnd,
    GetSecurityInfo,
    ReadReg,
    RegWrite,
    SpiFlashMd5,
)
from espwire.protocol.opcodes import Op

READ = "c0000a0400000000000ca0f53fc0"  # READ_REG 0x3ff5a00c, recorded
READ_OK = "c0010a04000080000000000000c0"
SYNC = (
    "c0c00008240000000000070712205555555555555555555555555555555555555555555555555555555555555555c0"
)
SYNC_OK = "c0010804000707122000000000c0"
REFUSED = "c0010804000707122001050000c0"
BANNER = b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x3 (SW_RESET),boot:0xf (UART_BOOT(UART))\r\n".hex()
PANIC = b"Guru Meditation Error: Core ".hex()


def test_a_register_read_is_the_recorded_exchange(scripted):
    loader, transport = scripted({READ: READ_OK})
    assert loader.read_reg(0x3FF5A00C) == 0x8000
    assert [data.hex() for data in transport.sent] == [READ]
    assert loader.trips == 1


def test_a_lower_rate_is_advised_only_where_the_port_has_one(scripted):
    loader, transport = scripted({})
    assert loader.line_hint == "Lower --baud, and check cable and supply."
    transport.info = replace(transport.info, can_change_baud=False)
    assert loader.line_hint == "Check cable and supply."


def test_escapes_are_sent_as_recorded(scripted):
    loader, _ = scripted({"c0000a04000000000000dbdcfc3fc0": "c0010a04004433221100000000c0"})
    assert loader.read_reg(0x3FFCC000) == 0x11223344


def test_two_groups_of_one_write_are_the_recorded_request(scripted):
    request = (
        "c0000920000000000000dbdcfc3f01000000ffffffff0000000004dbdcfc3f02000000ffffffffe8030000c0"
    )
    loader, _ = scripted({request: "c001090400aa33aa1100000000c0"})
    loader.write_regs(RegWrite(0x3FFCC000, 1), RegWrite(0x3FFCC004, 2, delay_us=1000))


def test_the_error_byte_is_stale_on_success(scripted):
    loader, _ = scripted({"c0001204000000000001000000c0": "c0011204000707122000613461c0"})
    loader.call(FlashDeflEnd(1))


def test_late_sync_answers_and_text_before_the_reply_are_dropped_and_the_text_is_kept(scripted):
    loader, _ = scripted(
        {READ: [[(0.0, SYNC_OK * 7 + b"waiting\r\n".hex()), (0.1, "c0" + READ_OK)]]}
    )
    assert loader.read_reg(0x3FF5A00C) == 0x8000
    assert loader.text == "waiting\r\n"


def test_a_reply_in_single_bytes_is_a_reply(scripted):
    pieces = [(0.001 * at, READ_OK[at : at + 2]) for at in range(0, len(READ_OK), 2)]
    loader, _ = scripted({READ: [pieces]})
    assert loader.read_reg(0x3FF5A00C) == 0x8000


def test_an_unknown_command_is_refused_under_the_last_ones_opcode_and_costs_no_time_out(scripted):
    loader, transport = scripted(
        {SYNC: SYNC_OK * 8, "c00014000000000000c0": REFUSED * 8, READ: READ_OK}, chip="esp32c3"
    )
    assert loader.sync() == 0x20120707
    assert loader.request(GetSecurityInfo()).body[:2] == b"\x01\x05"
    assert loader.read_reg(0x3FF5A00C) == 0x8000
    assert transport.now() < 0.2


def test_no_reply_names_the_command_and_the_seconds(scripted):
    loader, transport = scripted()
    with pytest.raises(NoReply, match=r"READ_REG within 3 s"):
        loader.call(ReadReg(0x3FF5A00C))
    assert 3.0 <= transport.now() < 3.1


def test_a_late_answer_is_not_taken_for_the_next_commands(scripted):
    late = "c0010a0400efbeadde00000000c0"
    loader, transport = scripted(
        {READ: [[(3.5, late)], READ_OK], SYNC: [[(1.0, late), (1.0, SYNC_OK * 8)]]}
    )
    with pytest.raises(NoReply):
        loader.call(ReadReg(0x3FF5A00C))
    assert loader.call(ReadReg(0x3FF5A00C)).value == 0x8000
    assert [data.hex() for data in transport.sent] == [READ, SYNC, READ]


def test_an_answer_that_came_twice_is_not_taken_for_the_next_commands(scripted):
    other = "c0000a04000000000010a0f53fc0"
    loader, _ = scripted({READ: READ_OK * 2, other: "c0010a04005000000000000000c0"})
    assert loader.read_reg(0x3FF5A00C) == 0x8000
    assert loader.read_reg(0x3FF5A010) == 0x50


def test_a_lost_register_read_is_asked_again(scripted):
    loader, _ = scripted({READ: [[], READ_OK]})
    assert loader.read_reg(0x3FF5A00C) == 0x8000


@pytest.mark.parametrize("text", [BANNER, PANIC, b"ESP-ROM:esp32c3-api1-20210207\r\n".hex()])
def test_a_chip_that_starts_anew_is_reported_at_once(scripted, text):
    loader, transport = scripted({READ: [text]})
    loader.sync()
    with pytest.raises(DeviceError, match="reset") as caught:
        loader.read_reg(0x3FF5A00C)
    assert caught.value.code == "chip-reset"
    assert bytes.fromhex(text).decode().split("\r")[0] in caught.value.details["text"]
    assert transport.now() < 0.5


def test_a_boot_banner_before_the_first_sync_answer_is_only_text(scripted):
    loader, _ = scripted({SYNC: [[(0.0, BANNER + SYNC_OK * 8)]]})
    assert loader.sync() == 0x20120707
    assert "UART_BOOT" in loader.text


def test_flash_contents_that_read_like_a_banner_are_no_reset(scripted):
    body = b"rst:0x1 Guru Meditation ESP-ROM:esp32".ljust(64, b".")
    reply = b"\xc0\x01\x0e\x44\x00\x00\x00\x00\x00" + body + b"\0\0\0\0\xc0"
    loader, _ = scripted(
        {
            "c0000e08000000000000000000" + "40000000c0": [
                [(0, reply[:60].hex()), (0.1, reply[60:].hex())]
            ]
        }
    )
    loader.sync()
    from espwire.protocol.commands import ReadFlashSlow

    assert loader.call(ReadFlashSlow(0, 64), result=64).body == body


def test_what_the_loader_lacks_is_refused_before_anything_is_sent(scripted):
    loader, transport = scripted(chip="esp8266")
    with pytest.raises(Unsupported):
        loader.call(SpiFlashMd5(0, 16))
    assert not transport.sent


def test_secure_download_mode_bars_commands_before_they_are_sent(scripted):
    loader, transport = scripted(chip="esp32c3", secure=True)
    for command in (ReadReg(0), SpiFlashMd5(0, 16), FlashDeflBegin(0, 0, 0, 0)):
        with pytest.raises(Unsupported) as caught:
            loader.call(command)
        assert caught.value.code == "secure-download-mode"
    assert not transport.sent
    assert loader.supports(Op.FLASH_DATA)


def test_a_bad_checksum_is_a_failure_with_its_number(scripted):
    # the checksum word is 0xEF ^ 0x41 ^ 0x42
    request = "c000031200ec000000" + "02000000" + "00000000" * 3 + "4142c0"
    loader, _ = scripted({request: "c0010304000080000001070000c0"})
    with pytest.raises(CommandFailed, match="checksum") as caught:
        loader.call(FlashData(0, b"AB"))
    assert caught.value.status == 0x0107


def test_a_failed_md5_is_judged_behind_its_digest(scripted):
    request = "c0001310000000000000f0ff03000001000000000000000000c0"
    reply = "c00113240000800000010b00000000000000000000000000000000000000000000000000000000000001090000c0"
    loader, _ = scripted({request: reply})
    with pytest.raises(CommandFailed, match="failed to read flash"):
        loader.call(SpiFlashMd5(0x3FFF000, 0x10000), result=32)


def test_a_body_shorter_than_the_result_begins_with_the_status(scripted):
    loader, _ = scripted(
        {"c0001310000000000000000000100000000000000000000000c0": "c0011304000000000001060000c0"}
    )
    with pytest.raises(CommandFailed, match=r"0x0106"):
        loader.call(SpiFlashMd5(0, 0x10), result=32)


def test_a_success_without_its_result_is_a_failure(scripted):
    loader, _ = scripted({"c00014000000000000c0": "c0011404000000000000000000c0"}, chip="esp32c3")
    with pytest.raises(CommandFailed, match="too short"):
        loader.call(GetSecurityInfo(), result=20)


def test_a_lone_end_goes_before_sync(scripted):
    loader, transport = scripted()
    loader.sync()
    assert transport.sent[0].hex() == SYNC


def test_only_a_stub_answers_zero_eight_times(scripted):
    zero = "c0010804000000000000000000c0"
    loader, _ = scripted({SYNC: [zero * 8]})
    assert loader.sync() == 0
    loader, _ = scripted({SYNC: [zero + SYNC_OK * 7]})
    assert loader.sync() == 0x20120707


def test_text_is_bounded_and_printable(scripted):
    loader, _ = scripted(
        {
            READ: [
                [(0.0, (b"x" * 0x8000 + b"\xc0").hex())] * 4
                + [(0.0, b"\x07\x1bend".hex() + "c0" + READ_OK)]
            ]
        }
    )
    loader.read_reg(0x3FF5A00C)
    assert len(loader.text) <= 0x10000
    assert loader.text.endswith("xend")


def test_a_callback_receives_requests_and_replies(scripted):
    loader, _ = scripted({READ: READ_OK})
    seen = []
    loader.on_packet = lambda packet: seen.append(
        type(packet.command).__name__ if packet.command else packet.content.op
    )
    loader.sync()
    loader.read_reg(0x3FF5A00C)
    with pytest.raises(NoReply):
        loader.call(ReadReg(4))
    assert seen == ["Sync", Op.SYNC, "ReadReg", Op.READ_REG, "ReadReg"]
