"""The chip that runs a ROM: a ROM of a few instructions that answers through interrupts, and wrong images."""

from __future__ import annotations

import hashlib
import struct

import pytest
from tests.elf_writer import Part, Program, write_elf

from espwire.chips.registry import chip_ids, load_chip
from espwire.device.connect import connect
from espwire.errors import DataError, UsageError
from espwire.transport.url import open_transport
from espwire.virtual.boot import find_boot_text
from espwire.virtual.build import build_chip
from espwire.virtual.config import parse_options
from espwire.virtual.soc import mask_rom
from espwire.virtual.soc.mask_rom import (
    FOLDER_VARIABLE,
    RomImage,
    find_images,
    load_mask_roms,
    load_rom,
)
from espwire.virtual.soc.program import EngineProgram
from espwire.virtual.soc.rom_uart import count_edges

MATRIX, PRIORITIES, UART = 0x600C2, 0x104, 0x60000
HANDLER = 0x100
MRET, STAY, BACK = 0x30200073, 0x0000006F, 0xFFDFF06F


def lui(target, value):
    return value << 12 | target << 7 | 0x37


def addi(target, source, value):
    return (value & 0xFFF) << 20 | source << 15 | target << 7 | 0x13


def sw(value, base, offset):
    return offset >> 5 << 25 | value << 20 | base << 15 | 2 << 12 | (offset & 31) << 7 | 0x23


def lw(target, base, offset):
    return offset << 20 | base << 15 | 2 << 12 | target << 7 | 0x03


def csrw(csr, source):
    return csr << 20 | source << 15 | 1 << 12 | 0x73


def csrr(target, csr):
    return csr << 20 | 2 << 12 | target << 7 | 0x73


def sltu(target, first, second):
    return second << 20 | first << 15 | 3 << 12 | target << 7 | 0x33


def and_(target, first, second):
    return second << 20 | first << 15 | 7 << 12 | target << 7 | 0x33


def back_if(kind, register, count):
    """beq (0) or bne (1) with register 0: ``count`` instructions back."""
    offset = -4 * count
    high = 1 << 31 | (offset >> 5 & 0x3F) << 25
    return high | register << 15 | kind << 12 | (offset >> 1 & 0xF) << 8 | 1 << 7 | 0x63


def loop(kind, register, *body):
    """``body`` until the register is not 0 (kind 0) or is 0 (kind 1)."""
    return (*body, back_if(kind, register, len(body)))


MAIN = (
    lui(5, MATRIX),
    addi(6, 0, 1),
    addi(7, 0, 2),
    sw(6, 5, 21 * 4),  # UART 0 to line 1
    sw(7, 5, PRIORITIES),
    sw(6, 5, PRIORITIES + 0x14),
    sw(6, 5, PRIORITIES + 0x90),
    lui(9, UART),
    addi(10, 0, 0x101),
    sw(6, 9, 0x24),  # a threshold of one byte
    sw(10, 9, 0x0C),
    lui(12, 0x40000),
    addi(12, 12, HANDLER),
    csrw(0x305, 12),
    addi(13, 0, 8),
    csrw(0x300, 13),
    STAY,
)
ANSWER = (lw(14, 9, 0), addi(14, 14, 1), sw(14, 9, 0), MRET)


def make_image(main=MAIN, handler=ANSWER, size=0x60000):
    code = struct.pack(f"<{len(main)}I", *main).ljust(HANDLER, b"\0")
    return (code + struct.pack(f"<{len(handler)}I", *handler)).ljust(size, b"\0")


@pytest.fixture
def start(tmp_path):
    def start(image, chip="esp32c3"):
        path = tmp_path / "rom.bin"
        path.write_bytes(image)
        return open_transport(f"virtual:{chip}?rom={path}&profile=instant&latency=0")

    return start


def test_an_interrupt_handler_answers_each_byte(start):
    transport = start(make_image())
    transport.sleep(0.01)
    transport.write(b"HAL", 1.0)
    assert transport.read(0.1) + transport.read(0.1) + transport.read(0.1) == b"IBM"
    program = transport.chip.program
    assert program.engine.interrupts.taken == 3
    assert transport.read(1000.0) == b""
    assert program.instructions < 100_000, "a ROM that waits costs no instructions"


def test_a_loop_that_reads_only_ram_is_skipped_after_an_older_status_read(start):
    """The bytes that the status counted are sent long before; nothing reads it again."""
    send = [sw(6, 9, 0) for _ in range(5)]
    wait = (lui(3, 0x3FC80), lw(4, 3, 0), BACK)
    transport = start(make_image((lui(9, UART), addi(6, 0, 0x41), *send, lw(14, 9, 0x1C), *wait)))
    assert transport.read(0.1) == b"AAAAA"
    transport.sleep(1.0)
    assert transport.chip.program.instructions < 5000


UNTIL_SET, WHILE_SET = 0, 1
# register 3: RAM; 4: a register without effects, already written; 8: "A"; 9: UART 0
PREPARE = (lui(3, 0x3FC80), lui(4, 0x60004), sw(0, 4, 4), addi(8, 0, 0x41), lui(9, UART))
# stores to RAM; switches a register on and off again; reads whether a byte is there
POLL = (sw(8, 3, 0), sw(8, 4, 4), sw(0, 4, 4), lw(5, 9, 0x1C))
PAUSE = (addi(0, 0, 0),) * 200


def count(base, offset):
    """Add 1 to a register; the loop ends when it has reached register 7."""
    add = (lw(6, base, offset), addi(6, 6, 1), sw(6, base, offset))
    return loop(WHILE_SET, 6, *add, POLL[3], sltu(6, 6, 7), addi(5, 0, 0))


def wait_for_reason():
    """Read the reasons of the UART's interrupt until that in register 7 is set; the rest of a round is long."""
    return loop(UNTIL_SET, 6, lw(6, 9, 4), and_(6, 6, 7), *PAUSE, POLL[0], POLL[3])


@pytest.fixture
def compare(start, monkeypatch):
    """Runs a ROM with idle loops skipped and executed, which must be the same; returns answers and instructions."""

    def record(jumps, words, sent):
        monkeypatch.setattr(EngineProgram.__init__, "__kwdefaults__", {"jumps": jumps})
        transport = start(make_image(words))
        answers = []
        for byte in sent:
            while answer := transport.read(0.0123):
                answers.append((answer, transport.now()))
            transport.write(bytes([byte]), 1.0)
            answers.append((transport.read(0.1), transport.now()))
        program = transport.chip.program
        assert (program.jumped > 0) is jumps
        return answers, program.instructions

    def compare(words, sent=b"x"):
        answers, instructions = record(True, words, sent)
        assert answers == record(False, words, sent)[0]
        return b"".join(answer for answer, _ in answers), instructions

    return compare


def test_a_loop_that_stores_and_switches_registers_is_skipped(compare):
    words = (*PREPARE, *loop(UNTIL_SET, 5, *POLL), sw(8, 9, 0), STAY)
    answer, instructions = compare(words)
    assert answer == b"A"
    assert instructions < 20_000


@pytest.mark.parametrize(
    "body",
    [
        # the CPU's counter reaches 819,200
        (lui(7, 200), *loop(WHILE_SET, 6, *POLL[:1], *POLL[3:], csrr(6, 0x7E2), sltu(6, 6, 7))),
        (addi(7, 0, 2000), *count(4, 4)),  # a register without effects reaches 2000
        (addi(7, 0, 2000), *count(9, 0x0C)),  # the UART's enabled interrupts do
        # what was sent has left the UART, although the round ends later
        (lui(7, 4), sw(8, 9, 0), sw(8, 9, 0), *wait_for_reason()),
        # no byte has followed the last one for some time
        (addi(7, 0, 0x100), *wait_for_reason()),
    ],
    ids=["cycles", "register", "enabled", "sent", "timeout"],
)
def test_a_loop_that_waits_for_something_else_ends_in_time(compare, body):
    answer, _ = compare((*PREPARE, *body, sw(8, 9, 0), STAY))
    assert answer.endswith(b"A")


def test_interrupts_come_in_time_to_a_skipped_loop_that_switches_them(compare):
    """As the ROM of the ESP32-S3 waits: the interrupt of the UART is off for a part of each round."""
    wait = (sw(0, 9, 0x0C), lw(5, 9, 0x1C), sw(10, 9, 0x0C))
    words = (*MAIN[:-1], *loop(WHILE_SET, 10, *wait))
    answer, instructions = compare(words, b"HAL")
    assert answer == b"IBM"
    assert instructions < 20_000


@pytest.mark.parametrize("chip", ["esp32c3", "esp32h2"])
def test_the_divider_of_the_uart_has_a_fraction(start, chip):
    update = (addi(4, 0, 1), sw(4, 9, 0x98))  # the later UART takes the divider only then
    words = (lui(9, UART), lui(4, 0x800 | 69 >> 12), addi(4, 4, 69), sw(4, 9, 0x14), *update, STAY)
    transport = start(make_image(words), chip)
    transport.sleep(0.01)
    program = transport.chip.program
    assert program.baud == round(program.uart.source_hz / 69.5)


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (PRIORITIES, 0),  # the line is not enabled
        (PRIORITIES + 0x90, 2),  # its priority is below the threshold
        (21 * 4, 0),  # the source has no line
    ],
)
def test_an_interrupt_that_is_switched_off_does_not_come(start, register, value):
    switch = (addi(15, 0, value), sw(15, 5, register))
    transport = start(make_image((*MAIN[:-3], *switch, *MAIN[-3:])))
    transport.write(b"HAL", 1.0)
    assert transport.read(0.5) == b""
    assert transport.chip.program.engine.interrupts.taken == 0


def test_a_fault_enters_the_handler_with_its_cause_and_address(start):
    # loads from address 0; the handler sends mcause and the low byte of mtval plus 0x30
    send = [
        instruction
        for csr in (0x342, 0x343)
        for instruction in (csr << 20 | 2 << 12 | 14 << 7 | 0x73, addi(14, 14, 0x30), sw(14, 9, 0))
    ]
    transport = start(make_image((*MAIN[:-1], lw(3, 0, 4), STAY), (*send, STAY)))
    assert transport.read(0.1) == b"\x35\x34"


def test_a_reset_starts_the_rom_again(start):
    software_reset = (lui(3, 0x80000), lui(4, 0x60008), sw(3, 4, 0), STAY)
    transport = start(make_image((*MAIN[:-1], addi(3, 0, 0x41), sw(3, 9, 0), *software_reset)))
    transport.sleep(0.2)
    received = b""
    while data := transport.read(0.1):
        received += data
        if len(received) > 3:
            break
    assert set(received) == {0x41}
    assert transport.chip.boots > 1


def test_edges_of_a_byte():
    assert count_edges(0x55) == 10  # every bit differs from the one before
    assert count_edges(0x0F) == 4


def test_an_unknown_image_runs_with_a_warning(start):
    transport = start(make_image())
    assert "image of the ESP32-C3's ROM is unknown" in transport.info.warning
    events = []
    with pytest.raises(Exception, match=r"."):
        connect(transport, before="no-reset", report=events.append)
    assert any(getattr(event, "code", "") == "port" for event in events)


def test_a_truncated_image_is_refused(start):
    with pytest.raises(DataError, match=r"has 4,096 bytes; .* has 393,216") as caught:
        start(b"\0" * 4096)
    assert caught.value.code == "rom-truncated"


def test_a_handler_that_faults_at_once_is_a_crash(start):
    transport = start(make_image((*MAIN[:-1], lw(3, 0, 4), STAY), (lw(3, 0, 4), STAY)))
    assert b"the ROM crashed at 0x40000100: load" in transport.read(0.1)


@pytest.mark.parametrize("option", ["stub=off", "strap=2", "fault=reset@2", "fault=power:0.1"])
def test_options_of_the_model_are_refused(option, tmp_path):
    with pytest.raises(UsageError, match="no effect with rom=") as caught:
        build_chip(parse_options(f"esp32c3?rom={tmp_path}&{option}"))
    assert caught.value.code == "rom-option"


def test_a_wrong_key_suggests_the_right_one():
    with pytest.raises(UsageError, match="unknown virtual chip option rm=") as caught:
        parse_options("esp32c3?rm=esp32c3-rom.bin")
    assert caught.value.hint == "Did you mean rom=?"
    with pytest.raises(UsageError, match="package 'x' is not a number"):
        parse_options("esp32c3?package=x")


def test_a_rom_finds_the_strapping_value_of_download_mode():
    for chip, facts in load_mask_roms().items():
        if chip == "esp32s2":
            continue  # with the model's value it loses requests after a pause: which value boards have is not known
        if load_chip(chip).strapping.address == facts.strap.address:
            assert facts.strap.bits == find_boot_text(load_chip(chip)).download_strap, chip


def test_a_known_elf_file_stands_in_for_its_image(start, monkeypatch, tmp_path):
    main = (*MAIN, STAY, STAY, STAY, STAY)  # the last is at the address of ets_delay_us
    code, image = struct.pack(f"<{len(main)}I", *main), make_image(main)
    handler = struct.pack(f"<{len(ANSWER)}I", *ANSWER)
    parts = [Part(".text", 0x40000000, code), Part(".text2", 0x40000000 + HANDLER, handler)]
    elf = write_elf(Program(parts))
    known = RomImage(
        name="made",
        size=0x60000,
        sha256=hashlib.sha256(image).hexdigest(),
        elf=hashlib.sha256(elf).hexdigest(),
    )
    facts = load_mask_roms()["esp32c3"].replace(images=(known,))
    monkeypatch.setattr(mask_rom, "load_mask_roms", lambda: {"esp32c3": facts})
    transport = start(elf)
    assert not transport.info.warning
    transport.write(b"H", 1.0)
    assert transport.read(0.1) == b"I"
    (tmp_path / "rom.bin").rename(tmp_path / "rom.elf")
    assert find_images(tmp_path, facts.images).keys() == {known.sha256}
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    found = load_rom(load_chip("esp32c3"), None)
    assert (found.name, found.image) == ("made", image)


def test_no_image_and_no_folder(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(UsageError, match="no image of the ESP32-C3's ROM was named"):
        build_chip(parse_options("esp32c3?rom="))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(UsageError, match="cannot read the folder"):
        build_chip(parse_options("esp32c3?rom="))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(UsageError, match="no known image"):
        build_chip(parse_options("esp32c3?rom="))


def test_a_rom_runs_only_behind_the_uart(tmp_path):
    with pytest.raises(UsageError, match="behind the UART"):
        build_chip(parse_options(f"esp32c3?kind=usb-jtag&rom={tmp_path}"))


def test_a_chip_whose_rom_cannot_be_run(tmp_path):
    unknown = next(chip for chip in chip_ids() if chip not in load_mask_roms())
    with pytest.raises(UsageError, match="cannot be run"):
        build_chip(parse_options(f"{unknown}?rom={tmp_path}"))


def test_every_rom_has_known_images_that_its_parts_fit():
    for facts in load_mask_roms().values():
        for image in facts.images:
            assert len(bytes.fromhex(image.sha256)) == 32
            assert max(part.offset + part.size for part in facts.parts) <= image.size
        assert any(part.start <= facts.entry < part.start + part.size for part in facts.parts)
