"""ELF → what the ROM boots: one image, or for the ESP8266 version 1 a pair of files.

Facts: ``chips/data/image.toml``; how esptool 5.6 fills in what they leave open is held by tests/peers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.chips.index import NAMES
from espwire.errors import ElfError, UsageError, name_file
from espwire.files import read_file, write_files
from espwire.image.elf import (
    Elf,
    ElfPart,
    find_elf_chips,
    find_named_chip,
    fits,
    is_flash,
    parse_elf,
)
from espwire.image.esp8266 import convert_esp8266
from espwire.image.layout import (
    APP_DESCRIPTOR,
    BOOT_DESCRIPTOR,
    ElfOptions,
    Layout,
    Piece,
    append_checksum,
    append_segments,
    check_count,
    check_parts,
    find_page_size,
    header_codes,
    in_order,
    join_pages,
    join_pieces,
    kind_of,
    order_pieces,
    with_digest,
)
from espwire.image.model import EXTENDED, HEADER, MAGIC, WP_PIN_DISABLED

if TYPE_CHECKING:
    from espwire.chips.model import Chip

SIGNATURE_V1, SIGNATURE_V2 = (
    112,
    32,
)  # bytes after the checksum: SHA-256 and signature; SHA-256 only
DEFAULT_PAGE = 0x10000


def convert_elf(data: bytes, chip: Chip, options: ElfOptions | None = None) -> tuple[Blob, ...]:
    """The image for ``chip``; for an ESP8266 and version 1 its two files, or one if nothing is mapped.

    :raises ElfError: no usable ELF, or one for another chip
    :raises UsageError: the chip cannot have what the options say
    """
    return _convert(parse_elf(data), data, chip, options or ElfOptions())


def _convert(elf: Elf, data: bytes, chip: Chip, options: ElfOptions) -> tuple[Blob, ...]:
    check_machine(elf, chip)
    parts = elf.segments if options.use_segments else elf.sections
    check_parts(parts)
    if not chip.image.extended_header:
        return convert_esp8266(elf, parts, chip, options, data)
    return (Blob(0, _convert_esp32(elf, parts, chip, options, data)),)


def choose_chip(elf: Elf) -> str:
    """The id of the chip that the program is for.

    :raises ElfError: none or several; the error names them
    """
    found = find_elf_chips(elf)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ElfError(
            f"no known chip has {elf.architecture} and all addresses of this ELF file",
            hint="Name the chip with --chip, if it is one of those.",
            code="elf-chip",
        )
    raise ElfError(
        f"the ELF file can be for {' or '.join(found)}", hint="Name the chip with --chip.", code="elf-chip-unclear",
        candidates=list(found),
    )  # fmt: skip


def check_machine(elf: Elf, chip: Chip) -> None:
    """Refuse a program for another chip.

    :raises ElfError: wrong machine, or the program names another chip
    """
    if elf.machine != chip.cpu.elf_machine:
        raise ElfError(
            f"the ELF file is for {elf.architecture}, the {chip.name} is {chip.cpu.architecture}",
            hint="Give the chip that the program was built for, or leave --chip out.",
            code="elf-machine",
        )


def find_doubts(elf: Elf, chip: Chip, options: ElfOptions) -> tuple[str, ...]:
    """What is odd, but no error: sentences."""
    doubts = []
    sizes = chip.image.mmu_page_sizes
    if options.mmu_page_size is not None and options.mmu_page_size not in sizes:
        doubts.append(
            f"the {chip.name} has no MMU pages of {options.mmu_page_size >> 10} KiB: the option is ignored"
        )
    named, fitting = find_named_chip(elf), fits(elf, chip)
    meant = (named,) if named else () if fitting else find_elf_chips(elf)
    if meant and chip.id not in meant:
        names = " or ".join(NAMES[name] for name in meant)
        doubts.append(
            f"the program is for the {names}, but converted for the {chip.name}: is --chip right? It can be left out"
        )
    elif not fitting:
        doubts.append(
            f"some addresses of the program are nothing that the {chip.name} is known to have"
        )
    if elf.left_out and not options.use_segments:
        names = ", ".join(elf.left_out[:8]) + (" …" if len(elf.left_out) > 8 else "")
        doubts.append(f"left out, since their type is not one that is loaded: sections {names}")
    if chip.image.extended_header and options.version != 1:
        doubts.append(f"the {chip.name} has one image format: the version is ignored")
    if options.secure_pad == 1 and not chip.image.secure_boot_v1:
        doubts.append(f"the {chip.name} has no secure boot version 1: no padding for it")
    return tuple(doubts)


def _convert_esp32(
    elf: Elf, parts: Sequence[ElfPart], chip: Chip, options: ElfOptions, file: bytes
) -> bytes:
    with_hash = options.append_digest and not options.ram_only_header
    pads = options.secure_pad == 2 or (options.secure_pad == 1 and chip.image.secure_boot_v1)
    if pads and not with_hash:
        raise UsageError(
            "padding for a signature needs the SHA-256 behind the image",
            hint="Leave out --dont-append-digest and --ram-only-header, or the padding.",
            code="elf-secure-pad",
        )
    codes = header_codes(chip, options.settings, chip.flash.sizes)
    pieces = join_pieces(in_order(parts, options), lambda address: kind_of(chip, address))
    ram = order_pieces((p for p in pieces if not is_flash(chip, p.address)), first=BOOT_DESCRIPTOR)
    page = _page_size(elf, chip, options)
    mapped = [piece for piece in pieces if is_flash(chip, piece.address)]
    flash = order_pieces(join_pages(mapped, page), first=APP_DESCRIPTOR)
    make = _lay_out_ram_only if options.ram_only_header else _lay_out
    layout = make(flash, ram, page, chip)
    if pads:
        layout.pad_for_signature(SIGNATURE_V1 if options.secure_pad == 1 else SIGNATURE_V2)
    segments = with_digest(layout.segments, options, file, descriptor=_descriptor_address(flash))
    visible = len(ram) if options.ram_only_header else len(segments)
    check_count(len(segments))
    out = bytearray(HEADER.pack(MAGIC, visible, *codes, elf.entry))
    out += EXTENDED.pack(
        WP_PIN_DISABLED,
        bytes(3),
        chip.identity.image_chip_id,
        options.min_revision_legacy,
        options.min_revision,
        options.max_revision,
        bytes(4),
        int(with_hash),
    )
    append_segments(out, segments[:visible])
    append_checksum(out, segments[:visible])
    append_segments(out, segments[visible:])
    if with_hash:
        out += hashlib.sha256(out).digest()
    if options.pad_to_size:
        out += b"\xff" * (-len(out) % options.pad_to_size)
    return bytes(out)


def _descriptor_address(flash: Sequence[Piece]) -> int | None:
    return flash[0].address if flash and flash[0].name == APP_DESCRIPTOR else None


def _page_size(elf: Elf, chip: Chip, options: ElfOptions) -> int:
    """As asked for, else as the program was linked; a chip without a choice has its one size."""
    sizes, default, wanted = (
        chip.image.mmu_page_sizes,
        chip.image.default_mmu_page_size or DEFAULT_PAGE,
        options.mmu_page_size,
    )
    if len(sizes) < 2:
        return default
    if wanted is not None and wanted not in sizes:
        raise UsageError(
            f"the {chip.name} has no MMU pages of {wanted} bytes",
            hint=f"It has {', '.join(f'{size >> 10}KB' for size in sizes)}.",
            code="mmu-page-size",
        )
    descriptor = next((part for part in elf.sections if part.name == APP_DESCRIPTOR), None)
    if wanted is not None or descriptor is None:
        return wanted or default
    return find_page_size(descriptor, sizes, default)


def _lay_out(flash: Sequence[Piece], ram: Sequence[Piece], page: int, chip: Chip) -> Layout:
    layout, rest = Layout(page), list(ram)
    for piece in flash:
        layout.add_flash(piece, rest, tail=chip.image.page_tail)
    for piece in rest:
        layout.add(piece.address, piece.data)
    return layout


def _lay_out_ram_only(
    flash: Sequence[Piece], ram: Sequence[Piece], page: int, chip: Chip
) -> Layout:
    layout = Layout(page, shift=chip.flash.bootloader_offset)
    for piece in ram:
        layout.add(piece.address, piece.data)
    layout.add_checksum()
    for piece in reversed(flash):
        layout.add_hidden(piece, tail=chip.image.page_tail)
    return layout


@dataclass(frozen=True)
class ImageFiles:
    """What ``elf2image()`` and ``make_image()`` wrote.

    ``files``: named by their paths; their addresses are meaningful only if ``fixed``. ``doubts``: warnings, sentences.
    """

    chip: str
    entry: int
    files: tuple[Blob, ...]
    doubts: tuple[str, ...] = ()


def elf2image(
    path: str | os.PathLike[str],
    *,
    chip: str | None = None,
    options: ElfOptions | None = None,
    output: str | os.PathLike[str] | None = None,
) -> ImageFiles:
    """Turn an ELF file into image files, all of them or none.

    :param chip: None: found out from the program
    :param output: None: named after the ELF: ``app.bin``; for the ESP8266 ``app.elf-0x00000.bin`` and
        ``app.elf-0x40000.bin`` (version 1, where ``output`` is the beginning of both names), ``app-0x01000.bin``
    :raises ElfError: no usable ELF, or not for that chip
    :raises UsageError: the chip cannot have what the options say
    :raises FileError: a file cannot be read or written
    """
    from espwire.chips.registry import load_chip

    options = options or ElfOptions()
    data = read_file(path)
    with name_file(os.path.basename(os.fspath(path))):
        elf = parse_elf(data)
        found = load_chip(chip or choose_chip(elf))
        blobs = _convert(elf, data, found, options)
    files = _name_files(os.fspath(path), blobs, found, options, output)
    write_files([(file.name, file.data) for file in files])
    return ImageFiles(found.id, elf.entry, files, find_doubts(elf, found, options))


def _name_files(
    path: str,
    blobs: Sequence[Blob],
    chip: Chip,
    options: ElfOptions,
    output: str | os.PathLike[str] | None,
) -> tuple[Blob, ...]:
    output = None if output is None else os.fspath(output)
    stem = os.path.splitext(path)[0]
    esp8266 = not chip.image.extended_header
    if esp8266 and options.version == 1:
        names = [(f"{path}-" if output is None else output) + blob.name for blob in blobs]
    elif esp8266 and options.version == 2:
        names = [output or f"{stem}-0x{blobs[0].address:05x}.bin"]
    else:
        names = [output or f"{stem}.bin"]
    for name in names:
        if "\0" not in os.fspath(name) and os.path.realpath(name) == os.path.realpath(path):
            raise UsageError(
                f"the image would overwrite the ELF file {path}", hint="Name another file with --output.",
                code="elf-output",
            )  # fmt: skip
    return tuple(replace(blob, name=name) for blob, name in zip(blobs, names, strict=True))
