"""Command lines for two programs: chips, files and words, drawn from a seed. Runs nothing.

A line is what stands after the connection options, so that both programs get the same words. Its ``files`` are made
once by ``line_files.py``; flash is filled before by ``preset`` (pairs of address and file).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping

from espwire.chips.registry import load_chip

SECTOR = 0x1000
SIZES = {"1MB": 0x100000, "2MB": 0x200000, "4MB": 0x400000}
# chip → its boot image among the files, and the virtual chip that may run it
BOOT = {
    "esp8266": ("esp8266-boot.bin", ""),
    "esp32": ("esp32-boot.bin", "revision=3.1"),
    "esp32s2": ("esp32s2-boot.bin", ""),
    "esp32c3": ("esp32c3-boot.bin", "revision=0.4"),
    "esp32c5": ("esp32c5-boot.bin", ""),
    "esp32c6": ("esp32c6-boot.bin", ""),
    "esp32s3": ("esp32s3-boot.bin", ""),
    "esp32h2": ("esp32h2-boot.bin", ""),
}
RAM = {  # free RAM of the chip
    "esp8266": 0x3FFE9000,
    "esp32": 0x3FFB8000,
    "esp32s2": 0x3FFC0000,
    "esp32c3": 0x3FC90000,
    "esp32c5": 0x40810000,
    "esp32c6": 0x40810000,
    "esp32s3": 0x3FC98000,
    "esp32h2": 0x40810000,
}
RAW = (
    "odd1.bin",
    "odd5.bin",
    "odd4095.bin",
    "odd4097.bin",
    "page.bin",
    "five.bin",
    "blank.bin",
    "zeros.bin",
)
OLDER = {"large.bin": "large-old.bin", "gap.bin": "large.bin"}
MODES = ("keep", "qio", "qout", "dio", "dout")
FREQUENCIES = ("keep", "80m", "40m", "26m", "20m", "60m", "15m", "48m")
FLASH_SIZES = ("keep", "detect", "256KB", "512KB", "1MB", "2MB", "4MB", "16MB", "128MB", "2MB-c1")


@dataclasses.dataclass(frozen=True)
class Line:
    """One case: words for both programs, on a chip of this kind."""

    chip: str
    words: tuple[str, ...]
    options: str = ""  # of the virtual chip
    size: str = "2MB"
    named: bool = True  # whether --chip is given
    preset: tuple[tuple[int, str], ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    then: tuple[str, ...] = ()  # a second line on the same chip
    argfile: str = ""  # the text of lines.txt
    stub: bool = False  # each program uploads its own

    def __str__(self) -> str:
        told = f"{self.chip}?size={self.size}&{self.options}" + ("" if self.named else " (auto)")
        told += " with a stub" if self.stub else ""
        more = f" @lines.txt holds {self.argfile!r}" if self.argfile else ""
        more += f" then {' '.join(self.then)}" if self.then else ""
        more += f" env {dict(self.environment)}" if self.environment else ""
        more += f" preset {self.preset}" if self.preset else ""
        return f"{told}: {' '.join(self.words)}{more}"


class Drawer:
    """Draws lines. One instance, one seed: the first n lines are the same however many are drawn."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.number = 0

    def draw(self) -> Line:
        """The next line; each kind gets its turn, so that few lines hold all kinds."""
        kinds = KINDS
        kind = kinds[self.number % len(kinds)]
        self.number += 1
        return kind(self)

    def pick(self, *choices: str) -> str:
        return self.rng.choice(choices)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def chip(self, *, but: str = "") -> str:
        return self.rng.choice([chip for chip in BOOT if chip != but])

    def number_word(self, value: int) -> str:
        """A number in one of the ways to write one."""
        ways = [
            hex(value),
            str(value),
            f"0x{value:08X}",
            bin(value) if value < 99999 else hex(value),
        ]
        return self.rng.choice(ways if value >= 0 else [str(value)])

    def address(self, size: str) -> int:
        limit = SIZES[size]
        aligned = self.rng.randrange(limit // SECTOR - 16) * SECTOR
        return self.rng.choice([aligned, aligned, aligned, 0x9000, 0x10000, 0x20000])

    def header(self) -> list[str]:
        """Some header options, in a spelling of some version."""
        words: list[str] = []
        for names, values in (
            (("-fm", "--flash-mode", "--flash_mode"), MODES),
            (("-ff", "--flash-freq", "--flash_freq"), FREQUENCIES),
            (("-fs", "--flash-size", "--flash_size"), FLASH_SIZES),
        ):
            if self.chance(0.5):
                words += [
                    self.rng.choice(names),
                    self.rng.choice(values[:5] if self.chance(0.7) else values),
                ]
        return words

    def write_name(self) -> str:
        return self.pick("write-flash", "write-flash", "write_flash")

    def packing(self) -> list[str]:
        return [self.pick("-u", "-z", "--no-compress", "--compress")] if self.chance(0.5) else []


def _write_raw(draw: Drawer) -> Line:
    """One to three raw files; the addresses now and then unaligned."""
    chip, size = draw.chip(), draw.pick(*SIZES)
    words = [draw.write_name(), *draw.packing()]
    at = draw.address(size)
    for _ in range(draw.rng.choice([1, 1, 2, 3])):
        shift = draw.rng.choice([0, 0, 0, 4, 0x234, 0xFFC])
        words += [draw.number_word(at + shift), draw.pick(*RAW)]
        at = (at + 0x8000) % (SIZES[size] - 0x8000)
    preset = ((at, "five.bin"),) if draw.chance(0.3) else ()
    return Line(chip, tuple(words), size=size, preset=preset, named=draw.chance(0.5))


def _write_boot(draw: Drawer) -> Line:
    """A boot image at its place, its header changed."""
    chip = draw.chip()
    name, options = BOOT[chip]
    place = load_chip(chip).flash.bootloader_offset
    words = [draw.write_name(), *draw.header(), *draw.packing(), draw.number_word(place), name]
    if draw.chance(0.4):
        words += ["0x10000", draw.pick(*RAW)]
    environment = (
        {"ESPTOOL_FM": "dout", "ESPTOOL_FF": "40m", "ESPTOOL_FS": "4MB"} if draw.chance(0.2) else {}
    )
    return Line(
        chip, tuple(words), options=options, size=draw.pick("2MB", "4MB"), environment=environment
    )


def _write_foreign(draw: Drawer) -> Line:
    """An image for another chip, or a damaged one, or one that begins nowhere special."""
    chip = draw.pick("esp32", "esp32c3", "esp32c5", "esp32s2", "esp32c6")
    place = load_chip(chip).flash.bootloader_offset
    other = BOOT[draw.chip(but=chip)][0]
    name = draw.pick(other, other, "esp32c3-broken.bin", "esp32-torn.bin", "page.bin")
    words = ["write-flash", *(["--force"] if draw.chance(0.4) else []), *draw.header()]
    at = place if draw.chance(0.7) else 0x40000
    return Line(chip, (*words, hex(at), name), options=BOOT[chip][1])


def _write_hex(draw: Drawer) -> Line:
    chip = draw.chip()
    name = draw.pick("one.hex", "two.hex", "two.hex", "far.hex", "bad.hex", "after.hex")
    words = [
        draw.write_name(),
        *draw.packing(),
        draw.number_word(draw.rng.choice([0, 0x1000, 0x50000])),
        name,
    ]
    if draw.chance(0.3):
        words += [draw.pick("0x10000", "0x60000", "0x21000"), "odd5.bin"]
    return Line(chip, tuple(words), named=draw.chance(0.5))


def _write_wrong(draw: Drawer) -> Line:
    """Lines that should be refused, most of them: ends, overlaps, missing or odd files, bad numbers."""
    chip, size = draw.chip(), draw.pick(*SIZES)
    end = SIZES[size]
    pairs = draw.rng.choice(
        [
            [hex(end - 0x1000), "five.bin"],
            [hex(end), "odd5.bin"],
            [hex(end - 0x1000), "page.bin"],
            ["0x10000", "five.bin", "0x12000", "odd5.bin"],
            ["0x10000", "odd5.bin", "0x10800", "odd5.bin"],
            ["0x10000", "empty.bin"],
            ["0x10000", "empty.bin", "0x20000", "odd5.bin"],
            ["0x10000", "nothing.bin"],
            ["0x10000", "folder"],
            ["0x10000"],
            ["five.bin"],
            ["zehn", "odd5.bin"],
            ["-0x1000", "odd5.bin"],
            ["0x100000000", "odd5.bin"],
            ["0x1000g", "odd5.bin"],
            ["64k", "odd5.bin"],
            ["010", "odd5.bin"],
            ["0x10_000", "odd5.bin"],
            ["0x10001", "odd5.bin"],
            ["0x10000", "odd4097.bin", "0x10000", "odd4097.bin"],
        ]
    )
    force = ["--force"] if draw.chance(0.2) else []
    return Line(chip, (draw.write_name(), *force, *pairs), size=size)


def _write_options(draw: Drawer) -> Line:
    """Misspelt, doubled and contradicting options; argument files."""
    chip = draw.chip()
    tail = ["0x10000", draw.pick(*RAW)]
    head = draw.rng.choice(
        [
            ["write-flash", "-z", "-u"],
            ["write-flash", "--flash-mod", "dio"],
            ["write-flash", "-fm", "qiox"],
            ["write-flash", "-fs", "3MB"],
            ["write-flash", "-fs", "all"],
            ["write-flash", "-ff", "41m"],
            ["write-flash", "--erase-al"],
            ["write-flahs"],
            ["write-flash", "-p"],
            ["write-flash", "--no-progress"],
            ["write-flash", "-fm", "dio", "-fm", "qio"],
            ["write_flash", "--flash_mode", "DIO"],
            ["write-flash", "-fs=4MB"],
            ["write-flash", "--flash-size=detect"],
            ["write-flash", "-e"],
            ["@lines.txt"],
            ["@nothing.txt"],
        ]
    )
    text = draw.pick(
        "write-flash --flash-mode dio\n--flash-freq 40m\n", "write-flash\n", "write-flash 'open\n"
    )
    return Line(chip, (*head, *tail), argfile=text, preset=((0x30000, "five.bin"),))


def _erase_region(draw: Drawer) -> Line:
    chip, size = draw.chip(), draw.pick(*SIZES)
    at = draw.address(size)
    address = draw.rng.choice([hex(at), hex(at), str(at), hex(at + 4), "-1", hex(SIZES[size]), "x"])
    count = draw.rng.choice(
        ["0x1000", "4096", "8k", "0x3000", "0x10000", "ALL", "all", "100", "0", "-0x1000", "1M"]
    )
    name = draw.pick("erase-region", "erase-region", "erase_region")
    return Line(
        chip, (name, address, count), size=size, preset=((at, "five.bin"), (0x8000, "page.bin"))
    )


def _read_flash(draw: Drawer) -> Line:
    chip, size = draw.chip(but="esp8266" if draw.chance(0.8) else ""), draw.pick(*SIZES)
    at = draw.address(size)
    address = draw.rng.choice(
        [hex(at), str(at), hex(at + 1), hex(at + 0x123), hex(SIZES[size] - 0x40), "-4", "y"]
    )
    count = draw.rng.choice(["1", "0x40", "100", "0x101", "4k", "0x1fff", "0", "-5", "12x"])
    name, target = draw.pick("read-flash", "read-flash", "read_flash"), "out.bin"
    if draw.chance(0.15):
        target = draw.pick("missing/out.bin", "folder")
    return Line(chip, (name, address, count, target), size=size, preset=((at, "five.bin"),))


def _verify(draw: Drawer) -> Line:
    chip, size = draw.chip(but="esp8266" if draw.chance(0.8) else ""), "2MB"
    name = draw.pick(*RAW, "esp32-boot.bin")
    at = draw.address(size)
    there = name if draw.chance(0.6) else draw.pick(*RAW)
    words = [draw.pick("verify-flash", "verify_flash"), *draw.header()]
    words += draw.rng.choice([[], [], ["--diff"], ["-d"]])
    words += [draw.number_word(at + draw.rng.choice([0, 0, 0, 1])), name]
    if draw.chance(0.3):
        words += ["0x1c0000", "odd5.bin"]
    return Line(chip, tuple(words), preset=((at, there), (0x1C0000, "odd5.bin")))


def _verify_boot(draw: Drawer) -> Line:
    """The boot image with header options: what was written with them verifies with them."""
    chip = draw.chip(but="esp8266")
    name, options = BOOT[chip]
    place = hex(load_chip(chip).flash.bootloader_offset)
    header = draw.header()
    other = header if draw.chance(0.6) else draw.header()
    return Line(
        chip,
        ("write-flash", *header, place, name),
        options=options,
        then=("verify-flash", *other, place, name),
    )


def _memory(draw: Drawer) -> Line:
    chip = draw.chip()
    base = RAM[chip]
    value = draw.number_word(draw.rng.choice([0, 5, 0xDEADBEEF, 0xFFFFFFFF, 0x12345678]))
    mask = draw.rng.choice([[], [], ["0xff"], ["0xFFFF0000"], ["0"]])
    if draw.chance(0.5):
        words = [draw.pick("write-mem", "write_mem"), hex(base + 4), value, *mask]
        return Line(chip, tuple(words), then=("dump-mem", hex(base), "0x20", "out.bin"))
    words = draw.rng.choice(
        [
            ["read-mem", hex(base)],
            ["read_mem", str(base)],
            ["read-mem", hex(base + 2)],
            ["read-mem", "-4"],
            ["read-mem", "0x100000000"],
            ["read-mem"],
            ["write-mem", hex(base)],
            ["write-mem", hex(base), "0x100000000"],
            ["write-mem", hex(base), "-1"],
            ["dump-mem", hex(base), "16", "out.bin"],
            ["dump_mem", hex(base), "18", "out.bin"],
            ["dump-mem", hex(base), "0", "out.bin"],
            ["dump-mem", hex(base), "-8", "out.bin"],
            ["dump-mem", hex(base), "16", "missing/out.bin"],
            ["dump-mem", hex(base + 1), "16", "out.bin"],
        ]
    )
    return Line(chip, tuple(words))


def _look(draw: Drawer) -> Line:
    chip = draw.chip()
    words = draw.rng.choice(
        [
            ["read-mac"],
            ["read_mac"],
            ["flash-id"],
            ["flash_id"],
            ["chip-id"],
            ["read-flash-status", "--bytes", "1"],
            ["read-flash-status", "--bytes=2"],
            ["read_flash_status", "--bytes", "3"],
            ["read-flash-status", "--bytes", "4"],
            ["read-flash-sfdp", "0", "4"],
            ["read-flash-sfdp", "0x10", "5"],
            ["get-security-info"],
            ["read-mca"],
            ["read-mac", "now"],
            ["flash-id", "--byte", "1"],
            [],
        ]
    )
    return Line(chip, tuple(words), size=draw.pick(*SIZES), named=draw.chance(0.3))


def _secured(draw: Drawer) -> Line:
    """Chips with secure boot, flash encryption, Secure Download Mode."""
    chip = draw.pick("esp32", "esp32s2", "esp32c3", "esp32c6", "esp32s3")
    security = draw.pick(
        "secure-boot=1",
        "flash-encryption=1",
        "secure-download=1",
        "secure-boot=1&flash-encryption=1",
    )
    if chip == "esp32" and "download" in security:
        security = "secure-boot=1"
    place = load_chip(chip).flash.bootloader_offset
    force = ["--force"] if draw.chance(0.4) else []
    words = draw.rng.choice(
        [
            ["write-flash", *force, hex(place), BOOT[chip][0]],
            ["write-flash", *force, "0x10000", "five.bin"],
            ["write-flash", *force, "0x8000", "page.bin"],
            ["erase-region", *force, "0x10000", "0x2000"],
            ["erase-region", *force, "0x0", "0x2000"],
            ["read-mac"],
            ["read-flash", "0", "16", "out.bin"],
            ["verify-flash", "0x10000", "five.bin"],
            ["read-mem", hex(RAM[chip])],
            ["get-security-info"],
        ]
    )
    options = "&".join(filter(None, (BOOT[chip][1], security)))
    return Line(
        chip, tuple(words), options=options, preset=((0x10000, "five.bin"), (0, "zeros.bin"))
    )


def _environment(draw: Drawer) -> Line:
    environment = draw.rng.choice(
        [
            {"ESPTOOL_CHIP": "esp32c3"},
            {"ESPTOOL_CHIP": "esp99"},
            {"ESPTOOL_BAUD": "460800"},
            {"ESPTOOL_BAUD": "fast"},
            {"ESPTOOL_FM": "dio", "ESPTOOL_FS": "detect"},
            {"ESPTOOL_FM": "wrong"},
            {"ESPTOOL_FS": "wrong"},
            {"ESPTOOL_FF": "80m"},
            {"ESPTOOL_FM": ""},
        ]
    )
    words = draw.rng.choice(
        [["write-flash", "0x0", "esp32c3-boot.bin"], ["write-flash", "0x40000", "odd5.bin"]]
    )
    return Line(
        "esp32c3", tuple(words), options="revision=0.4", named=False, environment=environment
    )


def write_over(draw: Drawer) -> Line:
    """Files over what flash holds already: the same, an older version of it, something else, or nothing."""
    chip, size = draw.chip(), draw.pick(*SIZES)
    words, preset, previous = list[str](), list[tuple[int, str]](), list[str]()
    at = draw.rng.randrange(4, 64) * SECTOR
    how = draw.pick("", "", "", "-e", "--erase-all", "--force", "-s", "--diff-with")
    stub = draw.chance(0.7)
    aligned = how == "--diff-with" or (how == "-s" and not stub)  # see docs/differences.md
    shifts = [0] if aligned else [0, 0, 0, 4, 0x234, 0xFFC]
    for _ in range(draw.rng.choice([1, 1, 2, 3])):
        name = draw.pick("five.bin", "large.bin", "large.bin", "gap.bin", *RAW)
        start = at + draw.rng.choice(shifts)
        words += [hex(start), name]
        older = OLDER.get(name, name)
        held = draw.pick(name, older, older, "five.bin", "")
        if held:
            preset.append((start, held))
        if draw.chance(0.3):  # what shares the first sector
            preset.append((at & -SECTOR, "odd5.bin"))
        previous.append(draw.pick(older, held or "skip", "skip"))
        at += draw.rng.choice([0x8000, 0x8000, 0x8000, 0x10000, 0x1000])
    options = [how, *(previous if how == "--diff-with" else [])] if how else []
    return Line(
        chip,
        (draw.write_name(), *draw.packing(), *words, *options),
        size=size,
        preset=tuple(preset),
        stub=stub,
    )


KINDS: tuple[Callable[[Drawer], Line], ...] = (
    _write_raw,
    _write_boot,
    _write_foreign,
    _write_hex,
    _write_raw,
    _write_wrong,
    _erase_region,
    _verify,
    _write_options,
    _read_flash,
    _write_boot,
    _memory,
    _write_raw,
    _look,
    _secured,
    _verify_boot,
    _write_hex,
    _environment,
    _read_flash,
    _verify,
    _write_raw,
    _verify_boot,
    _write_raw,
)
