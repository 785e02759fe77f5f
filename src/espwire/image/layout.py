"""Arrange the sections of a program as segments of an image: joining, order, alignment to flash pages, fillers.

Flash is mapped by whole pages, so the file offset of a mapped segment must equal its address within a page. The gap in
front of it is filled with segments for RAM, which can be cut anywhere, or with a segment for address 0, which the
bootloader skips. Facts: ``[layout]`` of ``chips/data/image.toml``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from espwire.errors import ElfError
from espwire.image.elf import Section
from espwire.image.model import (
    EXTENDED,
    HEADER,
    MAX_SEGMENT_SIZE,
    MAX_SEGMENTS,
    SEGMENT_HEADER,
    Segment,
)

HEADER_BYTES = HEADER.size + EXTENDED.size
MAX_TOTAL = 0x02000000
APP_DESCRIPTOR, BOOT_DESCRIPTOR = ".flash.appdesc", ".dram0.bootdesc"
APP_DESCRIPTOR_MAGIC, PAGE_LOG2_AT = 0xABCD5432, 180


def pad4(data: bytes | memoryview) -> bytes | memoryview:
    """``data`` with zeros up to a multiple of 4 bytes."""
    return data if len(data) % 4 == 0 else bytes(data) + bytes(-len(data) % 4)


def join_sections(
    sections: Iterable[Section], find_memory: Callable[[int], object]
) -> list[Section]:
    """Join each section to the previous one if they are adjacent in the same memory. Sizes become multiples of 4.

    :param find_memory: address → memory, compared only
    """
    groups: list[list[Section]] = []
    for section in sections:
        padded = Section(section.address, pad4(section.data), section.name)
        last = groups[-1][-1] if groups else None
        if (
            last is not None
            and last.end == padded.address
            and find_memory(last.address) == find_memory(padded.address)
        ):
            groups[-1].append(padded)
        else:
            groups.append([padded])
    return [
        group[0]
        if len(group) == 1
        else Section(group[0].address, b"".join(s.data for s in group), group[0].name)
        for group in groups
    ]


def sort_sections(sections: Iterable[Section], *, first: str = "") -> list[Section]:
    """By address, except that a section with the name ``first`` comes first."""
    ordered = sorted(sections, key=lambda section: section.address)
    front = next((section for section in ordered if section.name == first), None)
    return sorted(ordered, key=lambda section: section is not front)


def join_pages(flash: Sequence[Section], page: int) -> list[Section]:
    """Sections by address, joined with zeros between them if they share a page.

    A page of flash can be mapped only once, so two sections in one page must be one segment.
    """
    groups: list[list[Section]] = []
    end = 0
    for section in sorted(flash, key=lambda section: section.address):
        if groups and (end - 1) // page == section.address // page:
            # the end may be padding, which the next section may overwrite
            gap = bytes(max(section.address - end, 0))
            data = section.data[max(end - section.address, 0) :]
            groups[-1] += [Section(end, gap), Section(section.address, data)]
        else:
            groups.append([section])
            end = 0
        end = max(section.end, end)
    return [
        group[0]
        if len(group) == 1
        else Section(group[0].address, b"".join(s.data for s in group), group[0].name)
        for group in groups
    ]


def check_sections(sections: Sequence[Section]) -> None:
    """Check that an image can hold the sections.

    :raises ElfError: nothing or too much to load, or two sections for the same address
    """
    check_count(len(sections) and 1)
    total = sum(len(section.data) for section in sections)
    if total > MAX_TOTAL:
        raise ElfError(
            f"the program has {total:,} bytes to load, more than {MAX_TOTAL >> 20} MiB",
            hint="Check that it is the ELF file of the firmware.",
            code="elf-too-large",
        )
    for section in sections:
        if section.end > 1 << 32:
            raise ElfError(
                f"{_describe(section)} exceeds the 32-bit address space",
                hint="Correct the addresses in the linker script.",
                code="elf-address",
            )
    for before, after in pairwise(sorted(sections, key=lambda section: section.address)):
        if after.address < before.end:
            raise ElfError(
                f"{_describe(before)} and {_describe(after)} overlap",
                hint="Change the linker script, or try --use-segments.",
                code="elf-overlap",
            )


def _describe(section: Section) -> str:
    return f"{section.name or 'a segment'} at {section.address:#x} to {section.end:#x}"


def find_page_size(descriptor: Section, sizes: Sequence[int], default: int) -> int:
    """The page size an application was linked for, from its descriptor or else from the descriptor's address."""
    data = descriptor.data
    if (
        len(data) > PAGE_LOG2_AT
        and data[:4] == struct.pack("<I", APP_DESCRIPTOR_MAGIC)
        and data[PAGE_LOG2_AT]
    ):
        size: int = 1 << data[PAGE_LOG2_AT]
        if size not in sizes:
            raise ElfError(
                f"the application descriptor requires MMU pages of 2 ** {data[PAGE_LOG2_AT]} bytes,"
                f" which the chip does not have",
                hint=f"Build for the right chip; it has {', '.join(f'{size >> 10}KB' for size in sizes)}.",
                code="elf-page-size",
            )
        return size
    before = descriptor.address - HEADER_BYTES - SEGMENT_HEADER.size
    return next((size for size in sorted(sizes, reverse=True) if before % size == 0), default)


class Layout:
    """The segments of an image, added one after another.

    :param page: size of an MMU page; 1: no alignment
    :param start: file offset of the first segment
    :param shift: flash address of the image
    """

    def __init__(self, page: int = 1, *, start: int = HEADER_BYTES, shift: int = 0) -> None:
        self.page, self.position, self.shift = page, start, shift
        self.segments: list[Segment] = []

    def add(self, *sections: Section) -> None:
        """Segments directly after the last one.

        :raises ElfError: a section is too large
        """
        for section in sections:
            size = len(section.data)
            if size > MAX_SEGMENT_SIZE:
                raise ElfError(
                    f"the segment at {section.address:#x} has {size:,} bytes, more than {MAX_SEGMENT_SIZE >> 20} MiB",
                    hint="Check the sizes of the program's sections with readelf -S.",
                    code="elf-segment",
                )
            offset = self.position + SEGMENT_HEADER.size
            self.segments.append(Segment(section.address, bytes(section.data), offset))
            self.position = offset + size

    def add_flash(self, section: Section, ram: list[Section], *, tail: int) -> None:
        """A mapped segment after the fillers it needs, for which sections are taken from ``ram``.

        :param tail: a segment that ends in a page must reach at least this many bytes into it
        """
        while (room := self._room(section.address)) is not None:
            if ram and room > SEGMENT_HEADER.size:
                head, size = ram[0], min(room, len(ram[0].data))
                self.add(Section(head.address, head.data[:size]))
                rest = Section(head.address + size, head.data[size:])
                ram[0:1] = [rest] if rest.data else []
            else:
                self.add(Section(0, bytes(room)))
        self._add_mapped(section, tail=tail)

    def add_hidden(self, section: Section, *, tail: int) -> None:
        """A mapped segment that the bootloader does not see, always with a filler in front of it."""
        here = self.position + self.shift + 2 * SEGMENT_HEADER.size
        self.add(Section(0, bytes((section.address - here) % self.page)))
        self._add_mapped(section, tail=tail)

    def _add_mapped(self, section: Section, *, tail: int) -> None:
        past = (self.position + SEGMENT_HEADER.size + len(section.data)) % self.page
        if past < tail:
            padded = bytes(section.data) + bytes(tail - past)
            section = Section(section.address, padded, section.name)
        self.add(section)

    def _room(self, address: int) -> int | None:
        """Size of the filler's data so that ``address`` fits after it; None if it fits without a filler."""
        room = address % self.page - self.position % self.page - 2 * SEGMENT_HEADER.size
        if (room + SEGMENT_HEADER.size) % self.page == 0:
            return None
        # always up to the next page, even if this page had room: esptool does the same, and images must be equal
        room += self.page
        return room if room >= 0 else room + self.page

    def add_checksum(self) -> None:
        """Leave room for a checksum that ends a row of 16 bytes."""
        self.position += 16 - self.position % 16

    def pad_for_signature(self, after_checksum: int) -> None:
        """Add a filler so that ``after_checksum`` bytes after the checksum end a page."""
        size = (-self.position - SEGMENT_HEADER.size - 16 - after_checksum) % self.page
        self.add(Section(0, bytes(size)))


def insert_digest(segments: Sequence[Segment], offset: int, digest: bytes) -> list[Segment]:
    """Put ``digest`` at ``offset`` of the file, which must be zeros inside a segment.

    :raises ElfError: it is not
    """
    done = list(segments)
    for number, segment in enumerate(segments):
        at = offset - segment.offset
        if at >= 0 and at + len(digest) <= len(segment.data):
            if any(segment.data[at : at + len(digest)]):
                raise ElfError(
                    f"cannot store the SHA-256 of the ELF at offset {offset:#x}: the bytes there are in use",
                    hint="Reserve 32 zero bytes there; an ESP-IDF application has them in its descriptor.",
                    code="elf-digest-place",
                )
            data = b"".join((segment.data[:at], digest, segment.data[at + len(digest) :]))
            done[number] = Segment(segment.address, data, segment.offset)
            return done
    raise ElfError(
        f"cannot store the SHA-256 of the ELF at offset {offset:#x}: no segment has 32 bytes there",
        hint="The usual offset is 0xb0, in the application descriptor.",
        code="elf-digest-place",
    )


def check_count(count: int) -> None:
    """Check the number of segments.

    :raises ElfError: no segments, or too many
    """
    if not count:
        raise ElfError(
            "the ELF file has nothing to load: no section or segment with an address",
            hint="Pass the linked program, not an object file or a file with symbols only.",
            code="elf-empty",
        )
    if count > MAX_SEGMENTS:
        raise ElfError(
            f"the image would have {count} segments, more than {MAX_SEGMENTS}",
            hint="Join sections in the linker script, or try --use-segments.",
            code="elf-segments",
        )
