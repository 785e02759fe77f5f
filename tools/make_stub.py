"""Builds the flasher stub for every chip that has a ``[stub.own]`` table, and packs it into the package.

    make_stub.py                  build, write src/espwire/device/stubs
    make_stub.py --check          build, compare with what is there; another compiler's build is only reported
    make_stub.py --out FOLDER     write there instead; tests take it from ESPWIRE_STUBS=FOLDER
    make_stub.py --sizes          build, and print what each part costs in bytes and in upload time
    make_stub.py --host           build the same sources for this PC, with sanitizers: build/stub/host/stub-host

Each chip's header is generated from its data; nothing of it is typed again. The build is its own identity: SHA-256 over
entry and segments, with a mark where CAPABILITIES will answer the first 8 bytes of it. Where a chip's data has a
first stage (``[stub.own] first_stage``), that is built from the same sources and packed behind the stub.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import subprocess
import sys
import tomllib
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile

from espwire.chips.model import Chip, ClockStep, OwnStub, ProgramRam, RegisterValue
from espwire.chips.registry import chip_ids, load_chip
from espwire.compress import find_lzma_form
from espwire.device.stub_image import INDEX, StubImage, load_stub, stub_chips

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "stub/src"
PACKED = ROOT / "src/espwire/device/stubs"
EFUSES = ROOT / "src/espwire/chips/data/efuses"
BUILD = ROOT / "build/stub"
MARK = b"EWbuild?"
CODE_LIMIT = 16384
UART_DIVIDER_OFFSET = 0x14
TIMER_WATCHDOG_OFFSET, TIMER_PROTECT_OFFSET = 0x48, 0x64
# the flags of GET_SECURITY_INFO from bit 0 on: eFuses, by one of their names
SECURITY_FLAGS = (
    ("SECURE_BOOT_EN",),
    ("SECURE_BOOT_AGGRESSIVE_REVOKE",),
    ("ENABLE_SECURITY_DOWNLOAD",),
    ("SECURE_BOOT_KEY_REVOKE0",),
    ("SECURE_BOOT_KEY_REVOKE1",),
    ("SECURE_BOOT_KEY_REVOKE2",),
    ("SOFT_DIS_JTAG",),
    ("HARD_DIS_JTAG", "DIS_PAD_JTAG"),
    ("DIS_USB",),
    ("DIS_DOWNLOAD_DCACHE",),
    ("DIS_DOWNLOAD_ICACHE",),
)
SECURITY_FIELDS = len(SECURITY_FLAGS) + 1 + 7  # the counter and the keys
FIRST_LIMIT = 2560  # each byte costs 87 µs: it goes at 115200
NO_CHIP_ID = 0xFFFFFFFF
SHARED = (
    "main",
    "commands",
    "frames",
    "write",
    "read",
    "pack",
    "hash",
    "unpack",
    "inflate",
    "lzma",
    "branches",
    "flash",
    "md5",
    "crc",
    "memory",
    "hw_common",
    "hw_p4",
)
FIRST = ("first", "frames", "memory", "hw_common")
KEPT_OPTIONS = "KEEP(*(.options)) "  # of the linker script; the first stage has none
WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror")
FREE = ("-ffreestanding", "-fno-builtin", "-fno-common", "-nostdlib")
SMALL = (
    "-Os",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-move-loop-invariants",
    "-fno-thread-jumps",
    "-fno-jump-tables",
)
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FLAGS = (*WARNINGS, *FREE, *SMALL)
HOST_COMPILER = ("gcc", "-DON_PC", "-O1", "-g", *WARNINGS, *SANITIZERS)
LINK = "-Wl,--gc-sections,-n,--no-warn-rwx-segments,-Map=stub.map"


class Toolchain(NamedTuple):
    """Debian's cross compiler of one architecture."""

    prefix: str
    package: str
    flags: tuple[str, ...]
    start: str
    calls: tuple[str, ...] = ()


TOOLCHAINS = {
    "xtensa": Toolchain(
        "xtensa-lx106-elf-",
        "gcc-xtensa-lx106 binutils-xtensa-lx106",
        ("-mtext-section-literals",),
        "start_xtensa",
        ("call_windowed",),
    ),
    "riscv": Toolchain(
        "riscv64-unknown-elf-",
        "gcc-riscv64-unknown-elf binutils-riscv64-unknown-elf",
        ("-mabi=ilp32", "-msmall-data-limit=256"),
        "start_riscv",
    ),
}


def own_stub(chip: Chip) -> OwnStub:
    """The chip's ``[stub.own]``."""
    assert chip.stub.own is not None
    return chip.stub.own


def render_header(chip: Chip) -> str:
    """chip.h: every number that the C sources want, from the chip's data."""
    own, spi, uart = own_stub(chip), chip.spi, chip.uart.clock_divider_address - UART_DIVIDER_OFFSET
    form = find_lzma_form(chip)
    numbers: dict[str, int | str] = {
        "UART_BASE": uart,
        "UART_TX": uart if own.uart_transmit is None else own.uart_transmit,
        "UART_COUNT_MASK": (1 << own.uart_count_bits) - 1,
        "UART_DIVIDER_MASK": chip.uart.clock_divider_mask,
        "UART_HAS_FRACTION": int(own.uart_fraction),
        "SPI_COMMAND": spi.base + spi.command_offset,
        "SPI_ADDRESS": spi.base + spi.address_offset,
        "SPI_CONTROL": spi.base + own.spi_control_offset,
        "SPI_CLOCK": spi.base + own.spi_clock_offset,
        "SPI_STATUS": spi.base + spi.status_offset,
        "SPI_USER": spi.base + spi.user_offset,
        "SPI_USER1": spi.base + spi.user1_offset,
        "SPI_USER2": spi.base + spi.user2_offset,
        "SPI_DATA": spi.base + spi.data_offset,
        "SPI_STATE": own.spi_state,
        "SPI_ADDRESS_LEFT": int(spi.address_msb_aligned),
        "SPI_LENGTH_IN_USER1": int(spi.length_in_user1 is not None),
        "CPU_HZ": own.cpu_hz,
        "IMAGE_CHIP_ID": NO_CHIP_ID
        if chip.identity.image_chip_id is None
        else chip.identity.image_chip_id,
        "CAN_ENCRYPT": int(own.can_encrypt),
        "CAN_LZMA": int(own.can_lzma),
        "HAS_SECURITY_INFO": int(chip.identity.security_info_bytes > 0),
        "HAS_BRANCH_FILTER": int(form.branches),
        "LZMA_LC": form.lc,
        "LZMA_LP": form.lp,
        "LZMA_PB": form.pb,
        "WINDOWED": int(chip.cpu.architecture == "xtensa" and chip.cpu.isa != "lx106"),
        "BUILD_ID": "{" + ", ".join(map(str, MARK)) + "}",
    }
    if chip.identity.security_info_bytes:
        numbers |= _security_numbers(chip)
    if (usb := chip.peripherals.get("usb_serial_jtag")) is not None:
        numbers["USB_FIFO"] = usb
    if chip.uart.update_address is not None:
        numbers["UART_UPDATE"] = chip.uart.update_address
    if chip.soc is not None and chip.soc.software_reset is not None:
        numbers["RESET_CONTROL"] = chip.soc.software_reset.address
        numbers["RESET_BIT"] = chip.soc.software_reset.bit
    if own.flash_steps:
        numbers |= _clock_numbers(chip, own)
    if spi.mosi_length_offset is not None and spi.miso_length_offset is not None:
        numbers["SPI_OUT_LENGTH"] = spi.base + spi.mosi_length_offset
        numbers["SPI_IN_LENGTH"] = spi.base + spi.miso_length_offset
    if spi.length_in_user1 is not None:
        numbers["SPI_OUT_SHIFT"] = spi.length_in_user1.mosi_shift
        numbers["SPI_IN_SHIFT"] = spi.length_in_user1.miso_shift
    if (watchdog := chip.reset.watchdog) is not None:
        numbers |= {
            "RTC_WATCHDOG": watchdog.config0,
            "RTC_WATCHDOG_PROTECT": watchdog.write_protect,
        }
        numbers["WATCHDOG_KEY"] = watchdog.key
    if (other := chip.reset.super_watchdog) is not None:
        numbers |= {"SUPER_WATCHDOG": other.config, "SUPER_WATCHDOG_PROTECT": other.write_protect}
        numbers |= {"SUPER_WATCHDOG_KEY": other.key, "SUPER_WATCHDOG_FEED": other.auto_feed_bit}
    numbers |= {name.upper(): value for name, value in own.registers.items()}
    numbers |= {f"ROM_{_snake(name)}": chip.rom_addresses[name] for name in own.rom_functions}
    lines = [
        f"#define {name} {value if isinstance(value, str) else _literal(value)}"
        for name, value in numbers.items()
    ]
    return "\n".join(
        [
            f"/* {chip.name}. Generated by tools/make_stub.py from chips/data; do not edit. */",
            *lines,
            "",
        ]
    )


def _security_numbers(chip: Chip) -> dict[str, int | str]:
    """The fields of the security information: flags, encryption counter and key purposes."""
    fuses = tomllib.loads((EFUSES / f"{chip.id}.toml").read_text("utf-8"))
    (base,) = (block["read"] for block in fuses["blocks"] if block["id"] == 0)
    named = {}
    for field in fuses["table"][0]["fields"]:
        for name in (field["name"], *field.get("alt", ())):
            named[name] = field["start"], field["bits"]
    slots = [chip.security.flash_encryption, *chip.security.key_purpose_slots]
    fields = [
        next((named[name] for name in names if name in named), (0, 0)) for names in SECURITY_FLAGS
    ]
    fields += [((at.address - base) * 8 + at.shift, at.bits) for at in slots if at is not None]
    fields += [(chip.security.spare_purpose, 0)] * (SECURITY_FIELDS - len(fields))
    if any(start % 32 + bits > 32 for start, bits in fields):
        sys.exit(f"A security field of the {chip.name} lies in two words.")
    numbers: dict[str, int | str] = {
        "EFUSES": base,
        "SECURITY_FIELDS": "{" + ", ".join(f"{{{start}, {bits}}}" for start, bits in fields) + "}",
    }
    if chip.security.rom_eco is not None:
        numbers["ROM_ECO"] = chip.security.rom_eco.address
    return numbers


def _clock_numbers(chip: Chip, own: OwnStub) -> dict[str, int | str]:
    """What hw_later.c requires in addition: registers to change, and the clocks around them."""
    timer = chip.peripherals["timer_group0"]
    steps = [
        f"{{{_literal(step.address)}, {_literal(step.mask)}, {_literal(step.value)}}}"
        for step in (*own.flash_steps, *(_mark(step) for step in own.clock_steps))
    ]
    numbers: dict[str, int | str] = {
        "TIMER_WATCHDOG": timer + TIMER_WATCHDOG_OFFSET,
        "TIMER_WATCHDOG_PROTECT": timer + TIMER_PROTECT_OFFSET,
        "FLASH_STEPS": len(own.flash_steps),
        "REGISTER_STEPS": "{" + ", ".join(steps) + "}",
        "CRYSTAL_MHZ": chip.sample.crystal_mhz,
        "BUS_MHZ": chip.sample.crystal_mhz,
    }
    if chip.soc is not None and own.clock_steps:
        tree = chip.soc.clock
        numbers["BUS_MHZ"] = tree.bus_mhz
        if tree.down is not None:
            numbers |= {"PLL_CONTROL": tree.down.address, "PLL_DOWN": tree.down.mask}
        if tree.update is not None:
            numbers |= {"CLOCK_UPDATE": tree.update.address, "UPDATE_NOW": 1 << tree.update.bit}
    if own.uart_bus is not None:
        numbers |= {"UART_BUS": own.uart_bus.address, "UART_BUS_MASK": own.uart_bus.mask}
        numbers["UART_BUS_VALUE"] = own.uart_bus.value
    return numbers


def _mark(step: ClockStep) -> RegisterValue:
    """As hw_later.c expects it: what follows a step is in the lowest bits of its address."""
    marked = step.address | step.update | step.wait << 1
    return RegisterValue(address=marked, mask=step.mask, value=step.value)


def _literal(value: int) -> str:
    return f"{value:#x}u" if value > 0xFFFF else str(value)


def _snake(name: str) -> str:
    """``SelectSpiFunction`` like ``select_spi_function``, in capitals; IDF's prefix goes."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.removeprefix("esp_rom_")).upper()


def render_linker_script(room: OwnStub | ProgramRam, *, is_first: bool) -> str:
    """link.ld for the chip's RAM."""
    text = (SOURCES / "link.ld.in").read_text("utf-8")
    for name, value in (
        ("@CODE@", room.code_start),
        ("@CODE_SIZE@", room.code_end - room.code_start),
        ("@DATA@", room.data_start),
        ("@DATA_SIZE@", room.data_end - room.data_start),
    ):
        text = text.replace(name, hex(value))
    return text.replace(KEPT_OPTIONS, "") if is_first else text


def compile_stub(
    chip: Chip, folder: Path, room: OwnStub | ProgramRam, *, is_first: bool = False
) -> Path:
    """The ELF file, in ``folder``: of the stub, or of its first stage.

    :raises SystemExit: there is no compiler, or it complains
    """
    own, tools = own_stub(chip), TOOLCHAINS[chip.cpu.architecture]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chip.h").write_text(render_header(chip), "utf-8")
    (folder / "link.ld").write_text(render_linker_script(room, is_first=is_first), "utf-8")
    shared, calls = (FIRST, ()) if is_first else (SHARED, tools.calls)
    sources = [f"{name}.c" for name in (*shared, f"hw_{own.platform}")] + [
        f"{n}.S" for n in (tools.start, *calls)
    ]
    elf = folder / "stub.elf"
    arch = [f"-march={chip.cpu.isa}_zicsr"] if chip.cpu.architecture == "riscv" else []
    stage = ["-DFIRST_STAGE"] if is_first else []
    command = [
        f"{tools.prefix}gcc",
        *FLAGS,
        *tools.flags,
        *arch,
        *stage,
        f"-I{SOURCES}",
        f"-I{folder}",
    ]
    objects = [f"{Path(name).stem}.o" for name in sources]
    transport = [LINK, "-T", "link.ld", "-o", elf.name, *objects]
    try:
        subprocess.run(
            [*command, "-c", *(str(SOURCES / name) for name in sources)], check=True, cwd=folder
        )
        subprocess.run([*command, *transport], check=True, cwd=folder)
    except FileNotFoundError:
        sys.exit(f"There is no {tools.prefix}gcc here. On Debian: apt install {tools.package}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"The stub for {chip.name} did not compile (exit code {error.returncode}).")
    return elf


def build_host() -> Path:
    """The stub as a program of this PC: what it reads and writes is its wire. Built when a source is newer.

    :raises SystemExit: gcc is missing, or complains
    """
    names = [SOURCES / f"{name}.c" for name in SHARED if not name.startswith("hw_")]
    sources = [SOURCES.parent / "host/host.c", *names]
    headers = [*SOURCES.glob("*.h"), SOURCES.parent / "host/chip.h"]
    program = BUILD / "host/stub-host"
    newest = max(path.stat().st_mtime for path in (*sources, *headers))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    made = program.with_name(f"{program.name}.{os.getpid()}")  # others may be building, too
    include = [f"-I{SOURCES.parent / 'host'}", f"-I{SOURCES}"]
    try:
        subprocess.run([*HOST_COMPILER, *include, "-o", str(made), *map(str, sources)], check=True)
    except FileNotFoundError:
        sys.exit("There is no gcc here.")
    except subprocess.CalledProcessError as error:
        sys.exit(f"The stub did not compile for this PC (exit code {error.returncode}).")
    made.replace(program)
    return program


def compiler_version(architecture: str) -> str:
    """``xtensa-lx106-elf-gcc 12.2.0``, and what Debian calls it.

    :raises SystemExit: there is none
    """
    program = f"{TOOLCHAINS[architecture].prefix}gcc"
    try:
        told = subprocess.run(
            [program, "--version"], check=True, capture_output=True, text=True
        ).stdout
    except FileNotFoundError:
        sys.exit(
            f"There is no {program} here. On Debian: apt install {TOOLCHAINS[architecture].package}"
        )
    return told.splitlines()[0].strip()


def build_images(chip: Chip, folder: Path) -> StubImage:
    """The stub, with its first stage and that for earlier revisions where the chip has them."""
    own = own_stub(chip)
    image = build_image(chip, folder, own)
    if own.first_stage is not None:
        first = build_first(chip, folder / "first", own.first_stage, image)
        image = replace(image, first=first)
    if own.older is not None:
        older = build_image(chip, folder / "older", own.older)
        image = replace(image, older=older, older_revision=own.older_revision)
    return image


def build_image(chip: Chip, folder: Path, room: OwnStub | ProgramRam) -> StubImage:
    """Compile and turn the ELF file into what is uploaded."""
    elf = compile_stub(chip, folder, room)
    segments, entry = read_elf(elf, room.code_start)
    options, constants = read_symbols(elf, "options", "_constants_start")
    content = b"".join(data for _, data in segments)
    if content.count(MARK) != 1:
        sys.exit(
            f"The stub for {chip.name} holds the mark of its build {content.count(MARK)} times."
        )
    build = identify(entry, segments)
    named = tuple((address, data.replace(MARK, build)) for address, data in segments)
    compiler = compiler_version(chip.cpu.architecture)
    return StubImage(entry, named, options, build, compiler, constants=constants)


def build_first(chip: Chip, folder: Path, room: ProgramRam, image: StubImage) -> StubImage:
    """The first stage: small, one segment, and nowhere in the way of the stub that it takes."""
    segments, entry = read_elf(compile_stub(chip, folder, room, is_first=True), room.code_start)
    if len(segments) != 1 or len(segments[0][1]) > FIRST_LIMIT:
        sys.exit(
            f"The first stage for {chip.name} is no small piece, but {[len(data) for _, data in segments]} bytes."
        )
    places = ((room.code_start, room.code_end), (room.data_start, room.data_end))
    for address, data in image.segments:
        if any(address < end and start < address + len(data) for start, end in places):
            sys.exit(f"The first stage for {chip.name} lies where the stub's {address:#x} goes.")
    return StubImage(
        entry, tuple(segments), build=identify(entry, segments), compiler=image.compiler
    )


def read_elf(path: Path, first: int) -> tuple[list[tuple[int, bytes]], int]:
    """Segments, that at ``first`` before the others, and entry."""
    with ELFFile(io.BytesIO(path.read_bytes())) as elf:
        found = [
            part for part in elf.iter_segments() if part["p_type"] == "PT_LOAD" and part["p_filesz"]
        ]
        segments = [(int(part["p_vaddr"]), part.data()) for part in found]
        segments.sort(key=lambda segment: segment[0] != first)  # code first
        return segments, int(elf["e_entry"])


def read_symbols(path: Path, *names: str) -> tuple[int, ...]:
    """The addresses of symbols."""
    with ELFFile(io.BytesIO(path.read_bytes())) as elf:
        table = elf.get_section_by_name(".symtab")
        return tuple(int(table.get_symbol_by_name(name)[0]["st_value"]) for name in names)


def identify(entry: int, segments: Sequence[tuple[int, bytes]]) -> bytes:
    """The name of a build."""
    told = entry.to_bytes(4, "little") + b"".join(
        address.to_bytes(4, "little") + len(data).to_bytes(4, "little") + data
        for address, data in segments
    )
    return hashlib.sha256(told).digest()[: len(MARK)]


def render_index(images: dict[str, StubImage]) -> str:
    """index.toml: all of an image but its bytes."""
    lines = ["# The flasher stubs of this folder. Written by tools/make_stub.py; do not edit.", ""]
    for chip, image in images.items():
        lines += [f"[{chip}]", *_places(image), *_rows(image)]
        if image.first is not None:
            lines += [f"[{chip}.first]", *_rows(image.first)]
        if (older := image.older) is not None:
            lines += [f"[{chip}.older]", f"max_revision = {image.older_revision}"]
            lines += [*_places(older), *_rows(older)]
    return "\n".join(lines)


def _places(image: StubImage) -> list[str]:
    return [f"options = {image.options_address:#x}", f"constants = {image.constants:#x}"]


def _rows(image: StubImage) -> list[str]:
    rows = ", ".join(
        f"{{ address = {address:#x}, size = {len(data)} }}" for address, data in image.segments
    )
    told = f'build = "{image.build.hex()}"', f'compiler = "{image.compiler}"', ""
    return [f"entry = {image.entry:#x}", f"segments = [{rows}]", *told]


def write_images(images: dict[str, StubImage], folder: Path) -> None:
    """Index and one deflated file per chip: the stub's segments, its first stage's, those for earlier revisions."""
    folder.mkdir(parents=True, exist_ok=True)
    for chip, image in images.items():
        others = [other for other in (image.first, image.older) if other is not None]
        parts = [segment for one in (image, *others) for segment in one.segments]
        (folder / f"{chip}.z").write_bytes(zlib.compress(b"".join(data for _, data in parts), 9))
    (folder / INDEX).write_text(render_index(images), "utf-8", newline="\n")


def check_images(images: dict[str, StubImage]) -> int:
    """0 where each is what is packed, or comes from another compiler; 1 where sources and package differ."""
    stale = 0
    if set(images) != set(stub_chips()):
        print(
            f"packed are {', '.join(stub_chips())}; there should be {', '.join(images)}; run `make stub`"
        )
        return 1
    for chip, image in images.items():
        packed = load_stub(chip)
        if image == packed:
            print(f"{chip}: the same bytes, build {image.build.hex()}")
        elif image.compiler != packed.compiler:
            print(
                f"{chip}: NOT COMPARED. Packed is what {packed.compiler} made, here is {image.compiler}; "
                "`make stub-suite` runs the tests on the new build."
            )
        else:
            print(
                f"{chip}: the package holds build {packed.build.hex()}, the sources give {image.build.hex()}"
            )
            stale = 1
    if stale:
        print("run `make stub`")
    return stale


def print_sizes(images: dict[str, StubImage]) -> None:
    """A table in Markdown: bytes per source file and chip, then what the upload takes."""
    table = {chip: sizes_of(BUILD / chip / "stub.map") for chip in images}
    print(f"| Part | {' | '.join(load_chip(chip).name for chip in images)} |")
    print("| --- |" + " ---: |" * len(images))
    for part in sorted({part for sizes in table.values() for part in sizes}):
        print(
            f"| `{part}` | {' | '.join(str(sizes.get(part, 0) or '-') for sizes in table.values())} |"
        )
    codes = [len(image.segments[0][1]) for image in images.values()]
    sums = [image.size for image in images.values()]
    print(f"| **code** | {' | '.join(map(str, codes))} |")
    print(f"| **code and data, uploaded** | {' | '.join(map(str, sums))} |")
    for baud in (115200, 921600):
        times = [f"{upload_seconds(image, baud):.2f} s" for image in images.values()]
        print(f"| upload at {baud} | {' | '.join(times)} |")


def upload_seconds(image: StubImage, baud: int) -> float:
    """Of the frames' bits alone, both ways, escapes counted; the ROM's own time and the port's latency come on top."""
    block, head, reply = 0x1800, 8 + 16 + 2, 14
    escaped = sum(data.count(b"\xc0") + data.count(b"\xdb") for _, data in image.segments)
    blocks = sum(-(-len(data) // block) for _, data in image.segments)
    begins = len(image.segments) + 1
    return (image.size + escaped + blocks * (head + reply) + begins * (head + reply)) * 10 / baud


def sizes_of(linker_map: Path) -> dict[str, int]:
    """Bytes of code and data per source file, as the linker tells."""
    found: dict[str, int] = defaultdict(int)
    text = linker_map.read_text("utf-8").split("Linker script and memory map", 1)[1]
    for section, size, file in re.findall(
        r"^ (\.\S+)\s+0x[0-9a-f]+\s+(0x[0-9a-f]+) (\S+)$", text, re.MULTILINE
    ):
        if section.startswith(
            (".text", ".literal", ".entry", ".data", ".rodata", ".options", ".srodata")
        ):
            found[Path(file).stem] += int(size, 16)
    return {part: size for part, size in found.items() if size}


def main() -> int:
    """The command line of this file."""
    parser = argparse.ArgumentParser(description="Build the flasher stubs.")
    parser.add_argument(
        "--check", action="store_true", help="compare with the package instead of writing"
    )
    parser.add_argument("--out", type=Path, default=PACKED, help="write there")
    parser.add_argument(
        "--sizes", action="store_true", help="print bytes per part and upload times"
    )
    parser.add_argument("--host", action="store_true", help="build for this PC instead")
    options = parser.parse_args()
    if options.host:
        print(build_host())
        return 0
    images = {}
    for chip_id in chip_ids():
        chip = load_chip(chip_id)
        if chip.stub.own is None:
            continue
        image = images[chip_id] = build_images(chip, BUILD / chip_id)
        code = len(image.segments[0][1])
        if code > CODE_LIMIT:
            sys.exit(f"{chip_id}: {code} bytes of code, more than {CODE_LIMIT}.")
        if not options.sizes:
            first = "" if image.first is None else f", first stage {image.first.size}"
            print(
                f"{chip_id}: {code} bytes of code, {image.size - code} of data{first}, build {image.build.hex()}"
            )
    if options.sizes:
        print_sizes(images)
        return 0
    if options.check:
        return check_images(images)
    write_images(images, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
