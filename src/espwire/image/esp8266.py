"""The ESP8266's three image formats from the parts of an ELF. Decides; writes no file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.errors import ElfError
from espwire.image.codec import compute_crc
from espwire.image.elf import Elf, ElfPart, is_flash
from espwire.image.layout import (
    ElfOptions,
    Piece,
    append_checksum,
    append_segments,
    check_count,
    header_codes,
    in_order,
    join_pages,
    join_pieces,
    kind_of,
    order_pieces,
    place,
    with_digest,
)
from espwire.image.model import HEADER, MAGIC, MAGIC_V2, SEGMENT_HEADER, V2_FIRST_COUNT

if TYPE_CHECKING:
    from espwire.chips.model import Chip

# version 3 counts flash sizes as later chips do
V3_SIZES = {f"{1 << code}MB": code << 4 for code in range(8)}
V3_FLASH_ABOVE, V3_RODATA, V3_RODATA_SKIP, V3_PAGE = 0x40200000, ".flash.rodata", 8, 0x10000


def convert_esp8266(
    elf: Elf, parts: Sequence[ElfPart], chip: Chip, options: ElfOptions, file: bytes
) -> tuple[Blob, ...]:
    """The files of one ESP8266 program: a pair for version 1 if something is mapped, else one.

    :raises ElfError: the format has no room for what the program has
    """
    if options.version == 3:
        return (Blob(0, _convert_v3(elf, parts, chip, options, file)),)
    codes = header_codes(chip, options.settings, chip.flash.sizes)
    pieces = join_pieces(in_order(parts, options), lambda address: kind_of(chip, address))
    mapped = [piece for piece in pieces if is_flash(chip, piece.address)]
    ram = [piece for piece in pieces if not is_flash(chip, piece.address)]
    if len(mapped) > 1:
        raise ElfError(
            f"{len(mapped)} parts lie in mapped flash, at {', '.join(f'{p.address:#x}' for p in mapped)}; this format"
            " has room for one",
            hint="Join them in the linker script, or use --version 3.",
            code="elf-irom",
        )
    check_count(max(len(ram), 1))
    where = mapped[0].address - chip.mapped_flash.irom_start if mapped else 0
    if options.version == 2:
        data = _build_v2(elf, mapped, ram, codes, options, file)
        return (Blob(where & ~0xFFF, data, fixed=True),)
    if mapped and not where:
        raise ElfError(
            "the mapped part begins at the start of flash, where the part for RAM must be",
            hint="Link it to where your SDK's flash layout has it, or use --version 2 or 3.",
            code="elf-irom",
        )
    segments = with_digest(place(ram, HEADER.size), options, file)
    out = bytearray(HEADER.pack(MAGIC, len(segments), *codes, elf.entry))
    append_segments(out, segments)
    append_checksum(out, segments)
    blobs = [Blob(0, bytes(out), "0x00000.bin", fixed=True)]
    blobs += [Blob(where, piece.data, f"0x{where:05x}.bin", fixed=True) for piece in mapped]
    return tuple(blobs)


def _build_v2(
    elf: Elf,
    mapped: Sequence[Piece],
    ram: Sequence[Piece],
    codes: tuple[int, int],
    options: ElfOptions,
    file: bytes,
) -> bytes:
    """Two images in one: what is mapped under a header of its own, then what goes to RAM, checksum and CRC."""
    first = [Piece(0, bytes(piece.data) + bytes(-len(piece.data) % 16)) for piece in mapped]
    start = 2 * HEADER.size + sum(SEGMENT_HEADER.size + len(piece.data) for piece in first)
    segments = with_digest([*place(first, HEADER.size), *place(ram, start)], options, file)
    shown, loaded = segments[: len(first)], segments[len(first) :]
    out = bytearray(HEADER.pack(MAGIC_V2, V2_FIRST_COUNT, *codes, elf.entry))
    append_segments(out, shown)
    out += HEADER.pack(MAGIC, len(loaded), *codes, elf.entry)
    append_segments(out, loaded)
    append_checksum(out, loaded)
    return bytes(out) + compute_crc(memoryview(out))


def _convert_v3(
    elf: Elf, parts: Sequence[ElfPart], chip: Chip, options: ElfOptions, file: bytes
) -> bytes:
    codes = header_codes(chip, options.settings, V3_SIZES)
    pieces = join_pieces(in_order(parts, options), lambda address: kind_of(chip, address))
    flash = join_pages([p for p in pieces if p.address > V3_FLASH_ABOVE], V3_PAGE)
    ram = order_pieces((p for p in pieces if p.address <= V3_FLASH_ABOVE), first="")
    skipped = [
        Piece(p.address, p.data[V3_RODATA_SKIP:]) if p.name == V3_RODATA else p for p in flash
    ]
    check_count(len(skipped) + len(ram))
    segments = with_digest(place([*skipped, *ram], HEADER.size), options, file)
    out = bytearray(HEADER.pack(MAGIC, len(segments), *codes, elf.entry))
    append_segments(out, segments)
    append_checksum(out, segments)
    return bytes(out + hashlib.sha256(out).digest())
