"""Programs that are uploaded to the virtual chip's RAM run: small ones in machine code, and our stub."""

from __future__ import annotations

import hashlib
import importlib.util
import random
import struct
import zlib
from pathlib import Path

import pytest

from espwire.protocol.commands import ChangeBaudrate, SpiAttach
from espwire.protocol.stub import (
    Abort,
    AskCapabilities,
    Codec,
    Hash,
    ReadOpen,
    StubReset,
    WriteOpen,
    parse_capabilities,
)
from espwire.secure.flash_encryption import encrypt_esp32
from espwire.virtual.chip import State
from espwire.virtual.soc.program import EngineProgram

spec = importlib.util.spec_from_file_location("raw_host", Path(__file__).with_name("raw_host.py"))
assert spec is not None
raw_host = importlib.util.module_from_spec(spec)
spec.loader.exec_module(raw_host)
RawHost = raw_host.RawHost

# l32r a2, [0]; l32r a3, [4]; movi a4, 'h'; s32i.n a4, a3, 0; movi a4, 'i'; s32i.n a4, a3, 0;
# 1: l32i.n a4, a2, 28; extui a4, a4, 0, 8; beqz a4, 1b; l32i.n a5, a2, 0; s32i.n a5, a3, 0; j 1b
XTENSA_ECHO = bytes.fromhex(
    "21feff 31feff 42a068 4903 42a069 4903 4872 404074 1674ff 5802 5903 06fcff 00"
)
# lui a2, 0x60000; li a4, 'h'; sw a4, 0(a2); li a4, 'i'; sw a4, 0(a2);
# 1: lw a4, 28(a2); andi a4, a4, 255; beqz a4, 1b; lw a5, 0(a2); sw a5, 0(a2); j 1b
RISCV_ECHO = bytes.fromhex("37060060 13078006 18c2 13079006 18c2 584e 1377f70f 6ddf 1c42 1cc2 d5bf")
# the same on USB: lui a2, 0x60043; 1: lw a4, 4(a2); andi a4, a4, 4; beqz a4, 1b; lw a5, 0(a2); sw a5, 0(a2);
# li a4, 1; sw a4, 4(a2); 2: lw a4, 4(a2); andi a4, a4, 2; beqz a4, 2b; j 1b
USB_ECHO = bytes.fromhex("37360460 5842 118b 75df 1c42 1cc2 0547 58c2 5842 098b 75df f5b7")
# lui a2, 0x6001f; lui a3, 0x50d84; addi a3, a3, -0x55f; sw a3, 0x64(a2); lui a4, 0x10000; sw a4, 0x4c(a2);
# li a4, 400; sw a4, 0x50(a2); lui a4, 0x80000; sw a4, 0x48(a2); 1: j 1b     (a watchdog of 400 * 4096 / 40 MHz)
ARM_WATCHDOG = bytes.fromhex(
    "37f60160 b746d850 938616aa 74d2 37070010 78c6 13070019 38ca 37070080 38c6 01a0"
)
# forty times: a slow flash transaction is waited for, and then counted to 16384; at the end a sign. lui a2, 0x60002;
# lui a3, 0xff0; sw a3, 0x14(a2); lui a3, 0x40; li t0, 40; 0: sw a3, 0(a2); 1: lw a4, 0(a2); bnez a4, 1b; lui a5, 4;
# 2: addi a5, a5, -1; bnez a5, 2b; addi t0, t0, -1; bnez t0, 0b; lui a2, 0x60000; li a4, '!'; sw a4, 0(a2); 3: j 3b
WAIT_AND_WORK = bytes.fromhex(
    "37260060b706ff0054cab70604009302800214c218427dff9167fd17fdfffd12e39902fe370600601307100218c201a0"
)
ENTRY = {"esp8266": 0x40100008, "esp32": 0x40080008, "esp32c3": 0x40380000}
CHIPS = list(ENTRY)


def echo(chip: str) -> tuple[int, tuple[int, bytes]]:
    """The echo program: entry, segment."""
    entry = ENTRY[chip]
    if chip == "esp32c3":
        return entry, (entry, RISCV_ECHO)
    uart = 0x60000000 if chip == "esp8266" else 0x3FF40000
    return entry, (entry - 8, struct.pack("<II", uart, 0x60000000) + XTENSA_ECHO)


def run_words(chip: str, code: bytes, query: str = "", **keywords) -> RawHost:
    host = RawHost(f"virtual:{chip}?stub=engine{query}", **keywords)
    entry = ENTRY[chip]
    host.run(entry, (entry - 8, bytes(8) + code) if chip != "esp32c3" else (entry, code))
    return host


@pytest.mark.parametrize("stub", ["twin", "engine"])
@pytest.mark.parametrize("chip", CHIPS)
def test_a_program_prints_text_and_echoes(chip, stub):
    host = RawHost(f"virtual:{chip}?stub={stub}")
    host.run(*echo(chip))
    assert host.text(0.1).endswith(b"hi")
    host.transport.write(b"x" + bytes(range(256)), host.transport.now() + 1)
    assert host.text(0.1) == b"x" + bytes(range(256))
    assert host.chip.overruns == 0
    assert host.chip.state is State.PROGRAM


def test_a_second_of_waiting_costs_next_to_nothing():
    host = RawHost("virtual:esp32c3?stub=engine")
    host.run(*echo("esp32c3"))
    host.text(1000.0)
    assert host.program.instructions < 5000
    host.transport.write(b"still there?", host.transport.now() + 1)
    assert host.text(0.1) == b"still there?"


def test_work_behind_a_wait_goes_on_without_anybody_asking():
    host = RawHost("virtual:esp32c3?stub=engine")
    host.ask(SpiAttach(0, 0))
    host.run(
        ENTRY["esp32c3"],
        (ENTRY["esp32c3"], WAIT_AND_WORK.ljust(-(-len(WAIT_AND_WORK) // 4) * 4, b"\0")),
    )
    began = host.transport.now()
    assert host.transport.read(10.0).endswith(b"!")
    assert host.transport.now() - began < 1.0


@pytest.mark.parametrize("chip", CHIPS)
def test_idle_time_that_is_jumped_over_is_the_same_to_the_bit(chip, monkeypatch):
    def record(jumps: bool) -> list[tuple[float, bytes]]:
        monkeypatch.setattr(EngineProgram.__init__, "__kwdefaults__", {"jumps": jumps})
        host = RawHost(f"virtual:{chip}?stub=engine&profile=fast&latency=0.0005")
        host.run_stub()
        heard, data = [], zlib.compress(bytes(range(256)) * 16)
        for command in (
            AskCapabilities(),
            Hash(0, 0x2000, 0, 0),
            ReadOpen(0x1000, 64, 64, 64, 0),
            Abort(1),
        ):
            reply = host.ask(command)
            heard.append((host.transport.now(), reply.body))
        host.write(0x1000, data, WriteOpen(0x1000, 0x1000, len(data), Codec.ZLIB, 0, 1))
        heard.append((host.transport.now(), bytes(host.chip.flash.contents[0x1000:0x2000])))
        assert (host.program.jumped > 0) is jumps
        return heard

    assert record(True) == record(False)


def test_without_a_program_that_reads_bytes_are_lost():
    host = run_words("esp32c3", bytes.fromhex("01a0"))  # 1: j 1b
    host.program.uart.read_status()
    host.transport.write(bytes(200), host.transport.now() + 1)
    host.text(0.1)
    assert host.program.uart.read_status() & 0x3FF == 128
    assert host.chip.overruns == host.program.uart.overruns == 72


def test_programs_can_be_switched_off():
    host = RawHost("virtual:esp32c3?stub=off")
    host.run(*echo("esp32c3"))
    assert host.chip.state is State.GONE
    assert host.text(0.2) == b""


def test_a_byte_of_instruction_ram_is_refused_on_xtensa():
    # l32r a2, [0]; l8ui a3, a2, 0
    host = RawHost("virtual:esp8266?stub=engine")
    host.run(
        0x40100008,
        (0x40100000, struct.pack("<II", 0x40100000, 0) + bytes.fromhex("21feff 320200 000000")),
    )
    assert host.text(0.1) == b""
    ended = host.chip.runner.ended
    assert (ended.how, ended.address, host.chip.state) == ("crash", 0x40100000, State.GONE)
    assert "supports words only" in ended.fault


def test_a_fault_on_risc_v_ends_in_the_rom_s_panic_text():
    host = run_words("esp32c3", bytes.fromhex("37067000 1842"))  # lui a2, 0x700; lw a4, 0(a2)
    text = host.text(0.3)
    assert b"panic'ed (Load access fault)" in text
    assert b"MTVAL   : 0x00700000" in text
    assert host.chip.state is State.GONE


def test_a_watchdog_that_is_not_fed_resets_the_chip():
    host = run_words("esp32c3", ARM_WATCHDOG)
    boots = host.chip.boots
    host.text(0.02)
    assert host.chip.boots == boots
    host.text(0.1)
    assert (host.chip.boots, host.chip.state, host.chip.runner.ended.how) == (
        boots + 1,
        State.LOADER,
        "watchdog",
    )


def test_reset_lines_stop_a_program():
    host = RawHost("virtual:esp32?stub=engine")
    host.run(*echo("esp32"))
    host.transport.set_lines(dtr=False, rts=True)
    host.transport.sleep(0.1)
    assert host.chip.program is None
    host.transport.set_lines(dtr=True, rts=False)
    host.transport.sleep(0.05)
    host.transport.set_lines(dtr=False, rts=False)
    assert b"boot:" in host.text(0.2)


def test_usb_serial_jtag_carries_a_program_s_bytes():
    host = RawHost("virtual:esp32c3?stub=engine&kind=usb-jtag")
    host.run(0x40380000, (0x40380000, USB_ECHO))
    host.transport.write(bytes(range(200)), host.transport.now() + 1)
    assert host.text(0.2) == bytes(range(200))
    host.text(15)
    assert host.chip.runner.ended.how == "watchdog"  # the ROM's is still running


def some_data(size: int) -> bytes:
    rng = random.Random(6)
    return bytes(rng.choice(b"abcdefgh") if i % 3 else rng.randrange(256) for i in range(size))


@pytest.mark.parametrize("chip", CHIPS)
def test_our_stub_writes_hashes_reads_and_resets(chip):
    host, size = RawHost(f"virtual:{chip}?stub=engine&profile=fast"), 0x3000
    data = some_data(size)
    stream = zlib.compress(data)
    host.run_stub()
    told = parse_capabilities(host.ask(AskCapabilities()).body[:-2])
    assert told is not None
    assert told.cpu_hz == host.program.clock.hz
    host.ask(ChangeBaudrate(921600, 115200))
    host.transport.set_baud(921600)
    host.transport.sleep(0.01)
    assert abs(host.chip.baud - 921600) < 9216 * 2
    host.write(0x10000, stream, WriteOpen(0x10000, size, len(stream), Codec.ZLIB, 0, 1))
    assert host.chip.flash.contents[0x10000 : 0x10000 + size] == data
    assert host.ask(Hash(0x10000, size, 0, 0)).body[:16] == hashlib.md5(data).digest()
    assert host.read(ReadOpen(0x10000, size, 4096, 65536, 1)) == data
    program = host.program
    assert program.uart.overruns == 0
    assert program.uart.longest_gap / program.clock.hz <= 0.0003
    host.ask(StubReset(0))
    host.text(0.2)
    assert (host.chip.state, host.chip.runner.ended.how) == (State.LOADER, "reset")


def test_the_esp32_s_rom_function_encrypts_for_our_stub():
    pytest.importorskip("cryptography")
    key = bytes(range(32))
    host = RawHost(f"virtual:esp32?stub=engine&profile=fast&flash-key={key.hex()}")
    host.run_stub()
    data = some_data(0x1000)
    host.write(0x10000, data, WriteOpen(0x10000, len(data), len(data), Codec.RAW, 1, 1))
    assert host.chip.flash.contents[0x10000:0x11000] == encrypt_esp32(data, 0x10000, key)
