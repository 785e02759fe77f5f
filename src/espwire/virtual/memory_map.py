"""What lies where in a chip's address space, by its facts: memory, mask ROM, RAM for programs, reserved ranges.

The map among a chip's facts sorts image segments and is loose; ``memory.measured`` gives the true limits. Reserved
ranges that answer (``answers``) read 0 and ignore writes; anywhere else, an access to nothing faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from espwire.chips.model import Chip, ClockTree, RamBank, Region, Soc

NO_MEMORY = (
    "PADDING",
    "BYTE_ACCESSIBLE",
)  # of the map: what images are filled with, and a property of other entries
MASK_ROM_SIZE = (
    0x10000  # of a chip whose map of image regions leaves its ROM out: the ESP8266 has 64 KiB
)
READ_ONLY = ("MASK", "DROM", "IROM", "PADDING")


class Span(NamedTuple):
    """A half-open range of addresses; ``writable`` False: ROM or mapped flash."""

    start: int
    end: int
    writable: bool


def find_memory(chip: Chip) -> tuple[Span, ...]:
    """RAM, ROM and mapped flash. A read-only span wins over a writable one that overlaps it."""
    found = [Span(r.start, r.end, not r.name.endswith(READ_ONLY)) for r in _true_regions(chip)]
    address = chip.identity.magic_address
    if chip.identity.detect == "magic" and not any(s.start <= address < s.end for s in found):
        start = address & ~(MASK_ROM_SIZE - 1)  # the map is of images, which never go there
        found.append(Span(start, start + MASK_ROM_SIZE, writable=False))
    return tuple(sorted(found, key=lambda span: span.writable))


def find_reserved(chip: Chip) -> tuple[Span, ...]:
    """Ranges where nothing is, and an access does not fault."""
    return tuple(
        Span(start, end, writable=False) for start, end in chip.memory.measured.get("answers", ())
    )


def find_soc(chip: Chip) -> Soc | None:
    """What a program in RAM sees of the chip; for RISC-V chips without such facts memory, UART and ROM functions.

    None where no engine runs the chip's programs: Xtensa with register windows.
    """
    if chip.soc is not None or chip.cpu.architecture != "riscv":
        return chip.soc
    ram = tuple(_find_banks(chip))
    rom = tuple(
        Region(name="ROM", start=s.start, end=s.end)
        for s in find_memory(chip)
        if not s.writable and _is_rom(chip, s)
    )
    return Soc(ram=ram, rom=rom, clock=ClockTree(), software_reset=None)


def require_soc(chip: Chip) -> Soc:
    """The same, for a chip whose programs an engine runs."""
    soc = find_soc(chip)
    assert soc is not None
    return soc


def _is_rom(chip: Chip, span: Span) -> bool:
    flash = chip.mapped_flash
    windows = ((flash.irom_start, flash.irom_end), (flash.drom_start or 0, flash.drom_end or 0))
    return not any(span.start < end and span.end > start for start, end in windows)


def _find_banks(chip: Chip) -> Iterator[RamBank]:
    """The data RAM first. One memory on two buses is one bank with an alias, or one that holds code as well."""
    regions = {region.name: region for region in _true_regions(chip)}
    data, code = regions["DRAM"], regions["IRAM"]
    offsets = [
        fact["instruction_alias_offset"]
        for fact in chip.stub.rom_ram
        if "instruction_alias_offset" in fact
    ]
    alias = data.start + offsets[0] if offsets else None
    yield RamBank(
        name="data RAM", start=data.start, end=data.end, code=alias is None, code_alias=alias
    )
    code_end = alias if alias is not None else data.start
    if code.start < code_end:
        yield RamBank(
            name="instruction RAM",
            start=code.start,
            end=code_end,
            words_only=alias is not None,
            code=True,
        )
    if (low_power := regions.get("RTC_IRAM")) is not None:
        yield RamBank(name="low-power RAM", start=low_power.start, end=low_power.end, code=True)


def _true_regions(chip: Chip) -> Iterator[Region]:
    """The regions of the map that are memory, with their measured limits."""
    measured = chip.memory.measured
    windows = {
        "MASK": [measured["mask_rom"]] if "mask_rom" in measured else None,
        "DROM": _windows(measured, "data_flash"),
        "IROM": _windows(measured, "instruction_flash"),
        "RTC_IRAM": [measured["lp_ram"]] if "lp_ram" in measured else None,
    }
    windows["RTC_DRAM"] = windows["RTC_IRAM"]
    data = next(r for r in chip.memory.map if r.name == "DRAM")
    for region in chip.memory.map:
        key = "MASK" if region.name.endswith("MASK") else region.name
        true = windows.get(key)
        if region.name in NO_MEMORY:
            continue
        if true is not None:
            yield from (Region(name=region.name, start=w[0], end=w[1]) for w in true if w)
        elif "dram_end" in measured and region.start == data.start:
            yield Region(name=region.name, start=region.start, end=measured["dram_end"])
        else:
            yield region


def _windows(measured: Mapping[str, Any], name: str) -> list[list[int]] | None:
    """Where mapped flash is seen, with external RAM behind the same cache; None: the map is right."""
    window = measured.get(name, measured.get("flash_window"))
    if window is None:
        return None
    external = measured.get("external_ram")
    return [window, external] if external is not None and name not in measured else [window]
