"""Runs firmware that crashes on the virtual chips' CPU engines, and collects what its handler prints. No tests here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from elftools.elf.elffile import ELFFile

from espwire.chips.registry import load_chip
from espwire.image.elf import parse_elf
from espwire.virtual.cpu import riscv, xtensa_interrupts
from espwire.virtual.cpu.engine import Engine
from espwire.virtual.cpu.memory import CpuFault, Memory, Region
from espwire.virtual.soc.program import make_isa

FOLDER = Path(__file__).parent / "data/crash"
LIMIT = 40_000_000  # cycles
SLICE = 20_000


class NoPeripherals:
    """A bus with nothing on it."""

    def read(self, address: int) -> int:
        raise CpuFault("load from an unmapped address", address)

    def write(self, address: int, value: int) -> None:
        raise CpuFault("store to an unmapped address", address)


@cache
def run_crash(name: str, kind: int = 0) -> bytes:
    """The output of the firmware ``name`` up to the end of its crash. ``kind`` 1: it calls abort."""
    data = (FOLDER / f"{name}.elf").read_bytes()
    elf = parse_elf(data)
    chip = load_chip(name)
    starts = {
        "esp32c3": ((0x3FC90000, 0x8000), (0x40380000, 0x8000), (0x42000000, 0x10000)),
        "esp8266": ((0x3FFE8000, 0x14000), (0x40100000, 0x8000), (0x40200000, 0x10000)),
    }[name]
    regions = [Region(f"{start:#x}", start, bytearray(size)) for start, size in starts]
    memory = Memory(regions, NoPeripherals())
    for section in elf.sections:
        memory.load(section.address, bytes(section.data))
    if kind:
        memory.load(find_symbols(name)["kind"], kind.to_bytes(4, "little"))
    engine = Engine(make_isa(chip, interrupts=True), memory, entry=elf.entry)
    printed = bytearray()
    is_riscv = chip.cpu.architecture == "riscv"
    argument, back = (10, 1) if is_riscv else (2, 0)

    def transmit(engine: Engine) -> None:
        printed.append(engine.registers[argument] & 0xFF)
        engine.pc = engine.registers[back]

    engine.hooks[chip.rom_addresses["uart_tx_one_char"]] = transmit
    if is_riscv:
        riscv.Interrupts(engine)
    else:
        xtensa_interrupts.Interrupts(engine, xtensa_interrupts.LX106)
    end = b"Rebooting" if is_riscv else b"<<<stack<<<\r\n\r\n---------------"
    for limit in range(SLICE, LIMIT, SLICE):
        engine.run(limit)
        if end in printed and printed.endswith(b"\r\n"):
            return bytes(printed)
    raise AssertionError(f"the firmware did not crash: {bytes(printed)!r}")


@cache
def find_symbols(name: str) -> dict[str, int]:
    """Addresses of the functions and variables of a program."""
    with (FOLDER / f"{name}.elf").open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}
