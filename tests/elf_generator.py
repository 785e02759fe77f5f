"""Programs as linkers might make them, by a seed: parts in every memory of a chip, and options for elf2image. No tests.

What is generated keeps to what esptool and espwire shall treat alike; docs/differences.md tells the rest, which has
tests of its own: no two parts in one page of flash, no application descriptor where its page or place is changed by
options, no SHA-256 of the ELF where no segment has room for it, no program without anything to load.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

from elf_writer import Part, Program
from espwire.chips.model import Chip
from espwire.image.elf2image import ElfOptions
from espwire.image.header import HeaderSettings

SKIPPED_TYPES = (7, 8)  # notes and NOBITS
LOADED_TYPES = (1, 1, 1, 14, 15, 16)
NOT_RAM = ("PADDING", "IROM", "DROM", "DPORT", "MEM_INTERNAL", "BYTE_ACCESSIBLE")
RAM_NAMES = (".iram0.text", ".dram0.data", ".dram0.bootdesc", ".rtc.text")
FLASH_NAMES = (".flash.text", ".flash.rodata", ".other")
OPTIONS = (
    *[ElfOptions()] * 3,
    ElfOptions(secure_pad=1),
    ElfOptions(secure_pad=2),
    ElfOptions(append_digest=False),
    ElfOptions(use_segments=True),
    ElfOptions(pad_to_size=0x1000),
    ElfOptions(pad_to_size=0x10000, secure_pad=2),
    ElfOptions(ram_only_header=True),
    ElfOptions(ram_only_header=True, use_segments=True),
    ElfOptions(mmu_page_size=0x2000),
    ElfOptions(mmu_page_size=0x4000, ram_only_header=True),
    ElfOptions(mmu_page_size=0x8000, secure_pad=2),
    ElfOptions(mmu_page_size=0x10000),
    ElfOptions(min_revision_legacy=3, min_revision=7, max_revision=300),
    ElfOptions(secure_pad=2, append_digest=False),
    ElfOptions(settings=HeaderSettings(mode="dio", size="4MB")),
    ElfOptions(settings=HeaderSettings(mode="dout", size="16MB")),
    ElfOptions(digest_offset=0x30),
)


def generate(chip: Chip, seed: int) -> tuple[Program, ElfOptions]:
    """A program for ``chip`` and what to make of it."""
    chance = random.Random(f"{chip.id} {seed}")
    options = chance.choice(OPTIONS)
    esp8266 = not chip.image.extended_header
    if esp8266:
        options = replace(options, version=chance.choice((1, 2, 3)), digest_offset=None)
    if options.settings.size != "keep" and chance.random() < 0.5:
        frequency = chance.choice(list(chip.flash.frequencies))
        options = replace(options, settings=replace(options.settings, frequency=frequency))
    flash = _flash_parts(chip, chance, options)
    ram = _ram_parts(chip, chance, at_least=1 if not flash else 0)
    chance.shuffle(ram)
    parts = [*flash, *ram] if chance.random() < 0.7 else [*ram, *flash]
    return Program(
        parts, machine=chip.cpu.elf_machine, entry=chance.randrange(0x40000000, 0x50000000)
    ), options


def _size(chance: random.Random, page: int) -> int:
    kind = chance.random()
    if kind < 0.4:
        return chance.randint(1, 64)
    if kind < 0.85:
        return chance.randint(64, 4000)
    return (
        page * chance.randint(0, 1) + chance.randint(1, page)
        if kind < 0.93
        else chance.randint(4000, 90000)
    )


def _data(chance: random.Random, size: int) -> bytes:
    return chance.randbytes(size) if chance.random() < 0.9 else bytes(size)


def _flash_parts(chip: Chip, chance: random.Random, options: ElfOptions) -> list[Part]:
    page = max(chip.image.mmu_page_sizes, default=0x10000)
    windows = {(chip.mapped_flash.irom_start, chip.mapped_flash.irom_end)}
    if chip.mapped_flash.drom_start is not None:
        windows.add((chip.mapped_flash.drom_start, chip.mapped_flash.drom_end or 0))
    ends = {window: window[0] for window in sorted(windows)}
    parts: list[Part] = []
    esp8266 = not chip.image.extended_header
    plain = (
        not options.ram_only_header
        and options.mmu_page_size is None
        and options.digest_offset is None
    )
    if options.digest_offset is not None:
        start = min(ends)
        parts.append(
            Part(
                ".flash.text",
                start[0] + 0x20,
                chance.randbytes(16) + bytes(32) + chance.randbytes(99),
            )
        )
        ends[start] = parts[0].address + len(parts[0].data)
    elif plain and not esp8266 and chance.random() < 0.4:
        parts.append(_descriptor(chip, chance, min(ends)[0]))
        ends[min(ends)] = parts[0].address + len(parts[0].data)
    for _ in range(chance.randint(0, 1 if esp8266 else 4)):
        window = chance.choice(list(ends))
        end = ends[window]
        if (
            parts
            and parts[-1].address + len(parts[-1].data) == end
            and chance.random() < 0.3
            and end % 4 == 0
        ):
            address = end  # right behind the last part: they are joined
        else:
            address = -(-end // page) * page + page * chance.randint(0, 1)
            address += chance.choice(
                (0x20, 0x20, 0x20, 0x24, 4, 0x1010, chance.randrange(4, page // 2, 4))
            )
        data = _data(chance, _size(chance, page))
        if address + len(data) >= window[1]:
            continue
        parts.append(
            Part(chance.choice(FLASH_NAMES), address, data, type=chance.choice(LOADED_TYPES))
        )
        ends[window] = address + len(data)
    return parts


def _descriptor(chip: Chip, chance: random.Random, start: int) -> Part:
    """An application descriptor, with the page size or without."""
    page = chance.choice(chip.image.mmu_page_sizes)
    data = bytearray(256)
    data[:4], data[16:22], data[48:53] = bytes.fromhex("3254cdab"), b"v1.2.3", b"hello"
    data[180] = chance.choice((0, int(math.log2(page)), int(math.log2(page)), 14))
    offset = 0x20 if data[180] else chance.choice((0x20, page + 0x20))
    return Part(
        ".flash.appdesc",
        start + offset,
        bytes(data) + chance.randbytes(chance.choice((0, 0, 1000))),
    )


def _ram_parts(chip: Chip, chance: random.Random, *, at_least: int) -> list[Part]:
    regions = [
        r
        for r in chip.memory.map
        if r.start and not r.name.startswith(NOT_RAM) and not chip.mapped_flash.holds(r.start)
    ]
    parts: list[Part] = []
    for _ in range(chance.randint(at_least, 6)):
        region = chance.choice(regions)
        taken = [p for p in parts if region.start <= p.address < region.end]
        if taken and chance.random() < 0.5:
            address = -(-(taken[-1].address + len(taken[-1].data)) // 4) * 4  # right behind
        else:
            address = region.start + chance.randrange(
                0, max(4, (region.end - region.start) // 2), 4
            )
        size = min(_size(chance, 0x10000), region.end - address - 4)
        if size <= 0 or any(
            p.address - 4 < address + size and address < p.address + len(p.data) for p in parts
        ):
            continue
        kind = (
            chance.choice(SKIPPED_TYPES)
            if parts and chance.random() < 0.1
            else chance.choice(LOADED_TYPES)
        )
        parts.append(Part(chance.choice(RAM_NAMES), address, _data(chance, size), type=kind))
    return parts
