"""Create the image files that the ROM boots, from an ELF file (`elf2image`) or from raw segments (`make_image`).

The ESP8266 has three image formats. Version 1 is a pair of files: one for RAM at flash address 0, and the mapped code.
Version 2 has both in one file with two headers, version 3 resembles the format of later chips.

Facts: ``chips/data/image.toml``. Where they leave a choice, images are equal to those of esptool 5.6 (tests/peers).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from espwire.blob import Blob
from espwire.chips.index import NAMES
from espwire.chips.registry import load_chip
from espwire.errors import ElfError, ImageError, UsageError, name_file
from espwire.files import check_total_size, keep_inputs, read_file, write_files
from espwire.image.codec import build, compute_crc, create_image, pack, pack_segments
from espwire.image.elf import (
    Elf,
    Section,
    find_elf_chips,
    find_named_chip,
    fits,
    parse_elf,
)
from espwire.image.header import KEEP, HeaderSettings, find_codes
from espwire.image.layout import (
    APP_DESCRIPTOR,
    BOOT_DESCRIPTOR,
    Layout,
    check_count,
    check_sections,
    find_page_size,
    insert_digest,
    join_pages,
    join_sections,
    pad4,
    sort_sections,
)
from espwire.image.model import (
    ANY_REVISION,
    HEADER,
    MAGIC_V2,
    MAX_SEGMENT_SIZE,
    MAX_SEGMENTS,
    V2_FIRST_COUNT,
    ExtendedHeader,
    Image,
    Segment,
)

if TYPE_CHECKING:
    from espwire.chips.model import Chip

# bytes after the checksum: SHA-256 and signature; SHA-256 only
SIGNATURE_V1, SIGNATURE_V2 = 112, 32
DEFAULT_PAGE = 0x10000
DIGEST_IN_DESCRIPTOR = 144  # at 0xB0 of the file
# ESP8266 version 3 counts flash sizes as later chips do
V3_SIZES = {f"{1 << code}MB": code << 4 for code in range(8)}
V3_FLASH_ABOVE, V3_RODATA, V3_RODATA_SKIP, V3_PAGE = 0x40200000, ".flash.rodata", 8, 0x10000


@dataclass(frozen=True, kw_only=True)
class ElfOptions:
    """How to convert an ELF. ``version`` is the ESP8266's image format; other chips have only one.

    ``settings``: ``keep`` means qio, 1MB, and frequency code 0. ``mmu_page_size`` None: as the program was linked.
    ``digest_offset``: file offset for the ELF's SHA-256; None: in the application descriptor. ``pad_to_size``: fill
    with 0xFF up to a multiple of it.
    """

    version: Literal[1, 2, 3] = 1
    settings: HeaderSettings = field(default_factory=HeaderSettings)
    min_revision_legacy: int = 0
    min_revision: int = 0
    max_revision: int = ANY_REVISION
    secure_pad: Literal[0, 1, 2] = 0
    digest_offset: int | None = None
    append_digest: bool = True
    use_segments: bool = False
    mmu_page_size: int | None = None
    pad_to_size: int | None = None
    ram_only_header: bool = False


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
    """Convert an ELF file to image files, and write all of them or none.

    :param chip: default: detected from the program
    :param output: default: the name of the ELF with other endings: ``app.bin``; for the ESP8266
        ``app.elf-0x00000.bin`` and ``app.elf-0x40000.bin`` (version 1, where ``output`` is the start of both names),
        ``app-0x01000.bin``
    :raises ElfError: not a usable ELF, or not for that chip
    :raises UsageError: the chip does not support an option
    :raises FileError: a file cannot be read or written
    """
    options = options or ElfOptions()
    data = read_file(path)
    with name_file(os.path.basename(os.fspath(path))):
        elf = parse_elf(data)
        target = load_chip(chip or choose_chip(elf))
        blobs = _convert(elf, data, target, options)
    files = _name_files(os.fspath(path), blobs, target, options, output)
    write_files([(file.name, file.data) for file in files])
    return ImageFiles(target.id, elf.entry, files, find_doubts(elf, target, options))


def _name_files(
    path: str,
    blobs: Sequence[Blob],
    chip: Chip,
    options: ElfOptions,
    output: str | os.PathLike[str] | None,
) -> tuple[Blob, ...]:
    output = None if output is None else os.fspath(output)
    stem = os.path.splitext(path)[0]
    if not chip.image.extended_header and options.version == 1:
        names = [(f"{path}-" if output is None else output) + blob.name for blob in blobs]
    elif not chip.image.extended_header and options.version == 2:
        names = [output or f"{stem}-0x{blobs[0].address:05x}.bin"]
    else:
        names = [output or f"{stem}.bin"]
    for name in names:
        if "\0" not in name and os.path.realpath(name) == os.path.realpath(path):
            raise UsageError(
                f"the image would overwrite the ELF file {path}",
                hint="Choose another file name with --output.",
                code="elf-output",
            )
    return tuple(replace(blob, name=name) for blob, name in zip(blobs, names, strict=True))


def choose_chip(elf: Elf) -> str:
    """The id of the chip that the program is for.

    :raises ElfError: none or several fit; the error names them
    """
    chips = find_elf_chips(elf)
    if len(chips) == 1:
        return chips[0]
    if not chips:
        raise ElfError(
            f"the ELF file ({elf.architecture}) uses addresses that none of the known chips has",
            hint="If it is for one of the known chips, select that chip with --chip.",
            code="elf-chip",
        )
    raise ElfError(
        f"the ELF file can be for {' or '.join(chips)}",
        hint="Select the chip with --chip.",
        code="elf-chip-unclear",
        candidates=list(chips),
    )


def find_doubts(elf: Elf, chip: Chip, options: ElfOptions) -> tuple[str, ...]:
    """Warnings about the conversion, as sentences."""
    doubts = []
    if options.mmu_page_size not in (None, *chip.image.mmu_page_sizes):
        doubts.append(
            f"the {chip.name} has no MMU pages of {(options.mmu_page_size or 0) >> 10} KB: the option is ignored"
        )
    named, fitting = find_named_chip(elf), fits(elf, chip)
    suitable = (named,) if named else () if fitting else find_elf_chips(elf)
    if suitable and chip.id not in suitable:
        names = " or ".join(NAMES[name] for name in suitable)
        doubts.append(
            f"the program is for the {names}, but converted for the {chip.name}: check --chip, or leave it out"
        )
    elif not fitting:
        doubts.append(f"the {chip.name} has no known memory at some addresses of the program")
    if elf.left_out and not options.use_segments:
        names = ", ".join(elf.left_out[:8]) + (" …" if len(elf.left_out) > 8 else "")
        doubts.append(f"sections left out because their type is not loaded: {names}")
    if chip.image.extended_header and options.version != 1:
        doubts.append(f"the {chip.name} has only one image format: the version is ignored")
    if options.secure_pad == 1 and not chip.image.secure_boot_v1:
        doubts.append(f"the {chip.name} has no secure boot version 1: no padding is added for it")
    return tuple(doubts)


def convert_elf(data: bytes, chip: Chip, options: ElfOptions | None = None) -> tuple[Blob, ...]:
    """The image for ``chip``; for an ESP8266 and version 1 its two files, or one if nothing is mapped.

    :raises ElfError: not a usable ELF, or for another chip
    :raises UsageError: the chip does not support an option
    """
    return _convert(parse_elf(data), data, chip, options or ElfOptions())


def _convert(elf: Elf, data: bytes, chip: Chip, options: ElfOptions) -> tuple[Blob, ...]:
    if elf.machine != chip.cpu.elf_machine:
        raise ElfError(
            f"the ELF file is for {elf.architecture}, but the {chip.name} is {chip.cpu.architecture}",
            hint="Select the chip that the program was built for, or leave --chip out.",
            code="elf-machine",
        )
    loaded = elf.segments if options.use_segments else elf.sections
    check_sections(loaded)
    if options.ram_only_header:
        loaded = tuple(sorted(loaded, key=lambda section: section.address))
    sections = join_sections(loaded, chip.memory.find_names)
    if chip.image.extended_header:
        return (Blob(0, _convert_esp32(elf, sections, chip, options, data)),)
    return _convert_esp8266(elf, sections, chip, options, data)


def _split(sections: Iterable[Section], chip: Chip) -> tuple[list[Section], list[Section]]:
    """Sections in mapped flash, and all others."""
    flash: list[Section] = []
    ram: list[Section] = []
    for section in sections:
        (flash if chip.mapped_flash.holds(section.address) else ram).append(section)
    return flash, ram


def _store_digest(
    segments: Sequence[Segment], options: ElfOptions, file: bytes, *, descriptor: int | None = None
) -> Sequence[Segment]:
    """Store the ELF's SHA-256 at the offset in the options, or in the application descriptor, if there is one."""
    offset = options.digest_offset
    if offset is None and descriptor is not None:
        offset = next(
            (s.offset + DIGEST_IN_DESCRIPTOR for s in segments if s.address == descriptor), None
        )
    if offset is None:
        return segments
    return insert_digest(segments, offset, hashlib.sha256(file).digest())


def _header_codes(
    chip: Chip, settings: HeaderSettings, sizes: Mapping[str, int], default_size: int
) -> tuple[int, int]:
    """Header bytes 2 and 3; defaults are those of esptool.

    :raises UsageError: the chip does not support a setting
    """
    mode, size, frequency = find_codes(chip, settings, sizes=sizes, error_code="flash-setting")
    mode = chip.flash.modes["qio"] if mode is None else mode
    return mode, (default_size if size is None else size) | (frequency or 0)


def _convert_esp32(
    elf: Elf, sections: Sequence[Section], chip: Chip, options: ElfOptions, file: bytes
) -> bytes:
    with_hash = options.append_digest and not options.ram_only_header
    pads = options.secure_pad == 2 or (options.secure_pad == 1 and chip.image.secure_boot_v1)
    if pads and not with_hash:
        raise UsageError(
            "padding for a signature requires the SHA-256 after the image",
            hint="Leave out --dont-append-digest and --ram-only-header, or the padding.",
            code="elf-secure-pad",
        )
    sizes = chip.flash.sizes
    mode, size_frequency = _header_codes(chip, options.settings, sizes, sizes["1MB"])
    flash, ram = _split(sections, chip)
    ram = sort_sections(ram, first=BOOT_DESCRIPTOR)
    page = _choose_page_size(elf, chip, options)
    flash = sort_sections(join_pages(flash, page), first=APP_DESCRIPTOR)
    has_descriptor = bool(flash) and flash[0].name == APP_DESCRIPTOR
    visible = len(ram) if options.ram_only_header else None
    layout = _lay_out(flash, ram, page, chip, ram_only=options.ram_only_header)
    if pads:
        layout.pad_for_signature(SIGNATURE_V1 if options.secure_pad == 1 else SIGNATURE_V2)
    descriptor = flash[0].address if has_descriptor else None
    segments = _store_digest(layout.segments, options, file, descriptor=descriptor)
    check_count(len(segments))
    image = Image(
        mode_code=mode,
        size_frequency=size_frequency,
        entry=elf.entry,
        segments=tuple(segments[:visible]),
        extended=ExtendedHeader(
            chip.identity.image_chip_id or 0,
            min_revision_legacy=options.min_revision_legacy,
            min_revision=options.min_revision,
            max_revision=options.max_revision,
            hash_flag=int(with_hash),
        ),
        trailing=b"" if visible is None else pack_segments(segments[visible:]),
    )
    data = pack(image)
    return data + b"\xff" * (-len(data) % options.pad_to_size if options.pad_to_size else 0)


def _choose_page_size(elf: Elf, chip: Chip, options: ElfOptions) -> int:
    """From the options, or else as the program was linked; most chips have only one size."""
    sizes, requested = chip.image.mmu_page_sizes, options.mmu_page_size
    default = chip.image.default_mmu_page_size or DEFAULT_PAGE
    if len(sizes) < 2:
        return default
    if requested is not None and requested not in sizes:
        raise UsageError(
            f"the {chip.name} has no MMU pages of {requested >> 10} KB",
            hint=f"It has {', '.join(f'{size >> 10}KB' for size in sizes)}.",
            code="mmu-page-size",
        )
    descriptor = next((s for s in elf.sections if s.name == APP_DESCRIPTOR), None)
    if requested is not None or descriptor is None:
        return requested or default
    return find_page_size(descriptor, sizes, default)


def _lay_out(
    flash: list[Section], ram: list[Section], page: int, chip: Chip, *, ram_only: bool
) -> Layout:
    tail = chip.image.page_tail
    if not ram_only:
        layout, rest = Layout(page), list(ram)
        for section in flash:
            layout.add_flash(section, rest, tail=tail)
        layout.add(*rest)
        return layout
    layout = Layout(page, shift=chip.flash.bootloader_offset)
    layout.add(*ram)
    layout.add_checksum()
    for section in reversed(flash):
        layout.add_hidden(section, tail=tail)
    return layout


def _convert_esp8266(
    elf: Elf, sections: Sequence[Section], chip: Chip, options: ElfOptions, file: bytes
) -> tuple[Blob, ...]:
    if options.version == 3:
        return (Blob(0, _convert_v3(elf, sections, chip, options, file)),)
    sizes = chip.flash.sizes
    mode, size_frequency = codes = _header_codes(chip, options.settings, sizes, sizes["1MB"])
    mapped, ram = _split(sections, chip)
    if len(mapped) > 1:
        raise ElfError(
            f"{len(mapped)} sections are in mapped flash, at {', '.join(f'{s.address:#x}' for s in mapped)}, but this"
            " format has room for only one",
            hint="Join them in the linker script, or use --version 3.",
            code="elf-irom",
        )
    check_count(max(len(ram), 1))
    address = mapped[0].address - chip.mapped_flash.irom_start if mapped else 0
    if options.version == 2:
        data = _build_v2(elf, mapped, ram, codes, options, file)
        return (Blob(address & ~0xFFF, data, fixed=True),)
    if mapped and not address:
        raise ElfError(
            "the mapped section is at the start of flash, where the RAM sections must be",
            hint="Link it to the address in your SDK's flash layout, or use --version 2 or 3.",
            code="elf-irom",
        )
    layout = Layout(start=HEADER.size)
    layout.add(*ram)
    image = Image(
        mode_code=mode,
        size_frequency=size_frequency,
        entry=elf.entry,
        segments=tuple(_store_digest(layout.segments, options, file)),
    )
    return _pair_files(image, mapped, address)


def _pair_files(image: Image, mapped: Sequence[Section], address: int) -> tuple[Blob, ...]:
    """The files of a version 1 image: the one for RAM, and the mapped section if there is one."""
    blobs = [Blob(0, pack(image), "0x00000.bin", fixed=True)]
    blobs += [Blob(address, s.data, f"0x{address:05x}.bin", fixed=True) for s in mapped]
    return tuple(blobs)


def _build_v2(
    elf: Elf,
    mapped: Sequence[Section],
    ram: Sequence[Section],
    codes: tuple[int, int],
    options: ElfOptions,
    file: bytes,
) -> bytes:
    """Two images in one file: the mapped section under its own header, then the RAM sections, checksum and CRC."""
    layout = Layout(start=HEADER.size)
    layout.add(*(Section(0, bytes(s.data) + bytes(-len(s.data) % 16)) for s in mapped))
    layout.position += HEADER.size
    layout.add(*ram)
    segments = _store_digest(layout.segments, options, file)
    prefix = HEADER.pack(MAGIC_V2, V2_FIRST_COUNT, *codes, elf.entry)
    prefix += pack_segments(segments[: len(mapped)])
    image = Image(
        mode_code=codes[0],
        size_frequency=codes[1],
        entry=elf.entry,
        segments=tuple(segments[len(mapped) :]),
    )
    data = pack(image, prefix)
    return data + compute_crc(data)


def _convert_v3(
    elf: Elf, sections: Sequence[Section], chip: Chip, options: ElfOptions, file: bytes
) -> bytes:
    mode, size_frequency = _header_codes(chip, options.settings, V3_SIZES, V3_SIZES["1MB"])
    flash = join_pages([s for s in sections if s.address > V3_FLASH_ABOVE], V3_PAGE)
    flash = [
        Section(s.address, s.data[V3_RODATA_SKIP:]) if s.name == V3_RODATA else s for s in flash
    ]
    ram = sort_sections(s for s in sections if s.address <= V3_FLASH_ABOVE)
    layout = Layout(start=HEADER.size)
    layout.add(*flash, *ram)
    check_count(len(layout.segments))
    image = Image(
        mode_code=mode,
        size_frequency=size_frequency,
        entry=elf.entry,
        segments=tuple(_store_digest(layout.segments, options, file)),
    )
    data = pack(image)
    return data + hashlib.sha256(data).digest()


def make_image(
    segments: Sequence[tuple[int, str | os.PathLike[str]]],
    output: str,
    *,
    chip: str = "esp8266",
    entry: int = 0,
    settings: HeaderSettings | None = None,
) -> ImageFiles:
    """Create an image from raw files with their load addresses, and write all its files or none.

    :param segments: address and file
    :param output: the file; for the ESP8266 the start of the names: ``app.bin`` becomes ``app.bin0x00000.bin``
    :raises ImageError: segments overlap, are too many or too large
    :raises UsageError: the chip does not support a setting
    :raises FileError: a file cannot be read or written
    """
    target = load_chip(chip)
    paths = [path for _, path in segments]
    check_total_size(paths)
    contents = [(address, read_file(path)) for address, path in segments]
    blobs = build_segments(contents, target, entry=entry, settings=settings)
    files = tuple(replace(blob, name=output + blob.name) for blob in blobs)
    for file in files:
        keep_inputs(file.name, paths)
    write_files([(file.name, file.data) for file in files])
    return ImageFiles(target.id, entry, files)


def build_segments(
    segments: Sequence[tuple[int, bytes]],
    chip: Chip,
    *,
    entry: int = 0,
    settings: HeaderSettings | None = None,
) -> tuple[Blob, ...]:
    """The image with these addresses and bytes, in this order; for an ESP8266 a second file for mapped code.

    This is what esptool's make_image did until version 4.

    :param settings: ``keep`` means code 0 for mode, size and frequency
    :raises ImageError: segments overlap, are too many or too large
    :raises UsageError: the chip does not support a setting
    """
    settings = settings or HeaderSettings()
    _check_segments(segments, entry)
    flash = chip.flash
    if chip.image.extended_header:
        names = {code: name for name, code in flash.frequencies.items()}
        settings = HeaderSettings(
            mode="qio" if settings.mode == KEEP else settings.mode,
            size="1MB" if settings.size == KEEP else settings.size,
            frequency=names.get(0, flash.default_frequency)
            if settings.frequency == KEEP
            else settings.frequency,
        )
        loaded = [Segment(*segment) for segment in segments]
        return (Blob(0, build(create_image(loaded, entry, chip=chip, settings=settings))),)
    # segments for address 0 are fillers that no bootloader loads: they are not padded
    mapped, ram = _split(
        (Section(address, pad4(data) if address else data) for address, data in segments), chip
    )
    offset = mapped[0].address - chip.mapped_flash.irom_start if mapped else 0
    if len(mapped) > 1 or (mapped and not offset):
        raise ImageError(
            f"{len(mapped)} segments are in mapped flash"
            if offset
            else f"the segment at {mapped[0].address:#x} is at the start of mapped flash",
            hint="An ESP8266 image has room for one such segment, after the file for RAM.",
            code="image-irom",
        )
    layout = Layout(start=HEADER.size)
    layout.add(*ram)
    mode, size_frequency = _header_codes(chip, settings, flash.sizes, 0)
    image = Image(
        mode_code=mode,
        size_frequency=size_frequency,
        entry=entry,
        segments=tuple(layout.segments),
    )
    return _pair_files(image, mapped, offset)


def _check_segments(segments: Sequence[tuple[int, bytes]], entry: int) -> None:
    if not 1 <= len(segments) <= MAX_SEGMENTS:
        raise ImageError(
            f"the image would have {len(segments)} segments, not 1 to {MAX_SEGMENTS}",
            hint="Join files with adjacent addresses.",
            code="image-segment-count",
        )
    for address, data in segments:
        if len(data) > MAX_SEGMENT_SIZE or address < 0 or address + len(data) > 1 << 32:
            raise ImageError(
                f"{len(data):,} bytes at {address:#x} are more than an image can hold",
                hint=f"A segment has at most {MAX_SEGMENT_SIZE >> 20} MiB and a 32-bit address.",
                code="image-segment",
            )
    if not 0 <= entry <= 0xFFFFFFFF:
        raise UsageError(f"the entry address {entry:#x} has more than 32 bits", code="image-entry")
    ordered = sorted((address, address + len(data)) for address, data in segments if address)
    for (start, end), (later, _) in pairwise(ordered):
        if later < end:
            raise ImageError(
                f"the segments at {start:#x} and {later:#x} overlap",
                hint="Check the addresses and sizes of the files.",
                code="image-overlap",
            )
