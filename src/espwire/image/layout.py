"""Where the pieces of a program stand in an image: joining, order, flash page alignment, fillers. Pure arithmetic.

Flash is mapped by whole pages, so a mapped segment must stand at a file offset that equals its address within a page.
The room in front of it is used for segments of RAM, which can be cut anywhere, or filled by a segment that is loaded
to address 0: the boot loader skips those. Facts: ``[layout]`` of ``chips/data/image.toml``.

What all ways of making an image share: options, header codes, segments to bytes. Decides no layout.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from espwire.errors import ElfError, UsageError
from espwire.image.header import KEEP, HeaderSettings, parse_size_name
from espwire.image.model import (
    ANY_REVISION,
    MAX_SEGMENT_SIZE,
    MAX_SEGMENTS,
    SEGMENT_HEADER,
    Segment,
    compute_checksum,
)

if TYPE_CHECKING:
    from espwire.image.elf import ElfPart
if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.image.elf import ElfPart


HEADER_BYTES = 24
MAX_TOTAL = 0x02000000
APP_DESCRIPTOR, BOOT_DESCRIPTOR = ".flash.appdesc", ".dram0.bootdesc"
APP_DESCRIPTOR_MAGIC, PAGE_LOG2_AT = 0xABCD5432, 180


@dataclass(frozen=True)
class Piece:
    """Bytes for one address, a multiple of 4 long. ``name``: of the first section in it."""

    address: int
    data: bytes | memoryview = field(repr=False)
    name: str = ""

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + len(self.data)


def pad4(data: bytes | memoryview) -> bytes | memoryview:
    """``data`` with zeros up to a multiple of 4; itself if it is one."""
    return data if len(data) % 4 == 0 else bytes(data) + bytes(-len(data) % 4)


def join_pieces(parts: Iterable[ElfPart], kind: Callable[[int], object]) -> list[Piece]:
    """Parts as pieces, each joined to the one before it if it begins where that ends and is of the same kind.

    :param kind: what an address is; compared only
    """
    joined: list[list[Piece]] = []
    for part in parts:
        piece = Piece(part.address, pad4(part.data), part.name)
        last = joined[-1][-1] if joined else None
        if (
            last is not None
            and last.end == piece.address
            and kind(last.address) == kind(piece.address)
        ):
            joined[-1].append(piece)
        else:
            joined.append([piece])
    return [
        group[0]
        if len(group) == 1
        else Piece(group[0].address, b"".join(p.data for p in group), group[0].name)
        for group in joined
    ]


def order_pieces(pieces: Iterable[Piece], *, first: str) -> list[Piece]:
    """By address, but one that begins with the section ``first`` in front."""
    ordered = sorted(pieces, key=lambda piece: piece.address)
    front = next((piece for piece in ordered if piece.name == first), None)
    return sorted(ordered, key=lambda piece: piece is not front)


def join_pages(flash: Sequence[Piece], page: int) -> list[Piece]:
    """Pieces by address, joined with zeros between them where one begins in the page that another ends in.

    A page of flash can be mapped once only, so two pieces in one page have to be one segment.
    """
    joined: list[list[bytes | memoryview]] = []
    done: list[tuple[int, int, str]] = []  # address, end, name
    for piece in sorted(flash, key=lambda piece: piece.address):
        address, end, name = done[-1] if done else (0, 0, "")
        if done and (end - 1) // page == piece.address // page:
            # the end may be padding, which what follows may overwrite
            joined[-1] += [
                bytes(max(piece.address - end, 0)),
                piece.data[max(end - piece.address, 0) :],
            ]
            done[-1] = (address, max(piece.end, end), name)
        else:
            joined.append([piece.data])
            done.append((piece.address, piece.end, piece.name))
    return [
        Piece(address, pieces[0] if len(pieces) == 1 else b"".join(pieces), name)
        for (address, _, name), pieces in zip(done, joined, strict=True)
    ]


def check_parts(parts: Sequence[ElfPart]) -> None:
    """Refuse what is no program: nothing, too much, or two things for one address.

    :raises ElfError: so it is
    """
    check_count(len(parts) and 1)
    total = sum(len(part.data) for part in parts)
    if total > MAX_TOTAL:
        raise ElfError(
            f"the program has {total} bytes to load; {MAX_TOTAL >> 20} MiB are possible",
            hint="Check that it is the ELF file of the firmware.",
            code="elf-too-large",
        )
    for part in parts:
        if part.end > 1 << 32:
            raise ElfError(
                f"{_tell(part)} goes past the 32-bit address space",
                hint="Change the linker script: nothing can be loaded there.",
                code="elf-address",
            )
    for before, after in pairwise(sorted(parts, key=lambda part: part.address)):
        if after.address < before.end:
            raise ElfError(
                f"two parts of the program are for the same addresses: {_tell(before)} and {_tell(after)}",
                hint="Change the linker script, or try --use-segments.",
                code="elf-overlap",
            )


def _tell(part: ElfPart) -> str:
    return f"{part.name or 'a segment'} at {part.address:#x} to {part.end:#x}"


def find_page_size(descriptor: ElfPart, sizes: Sequence[int], default: int) -> int:
    """The page size that an application was linked for: its descriptor says it, else the descriptor's address tells."""
    data = descriptor.data
    if (
        len(data) > PAGE_LOG2_AT
        and data[:4] == struct.pack("<I", APP_DESCRIPTOR_MAGIC)
        and data[PAGE_LOG2_AT]
    ):
        size: int = 1 << data[PAGE_LOG2_AT]
        if size not in sizes:
            raise ElfError(
                f"the application's descriptor asks for MMU pages of 2 ** {data[PAGE_LOG2_AT]} bytes,"
                f" which the chip does not have",
                hint=f"Build for the right chip; it has {', '.join(f'{size >> 10}KB' for size in sizes)}.",
                code="elf-page-size",
            )
        return size
    before = descriptor.address - HEADER_BYTES - SEGMENT_HEADER.size
    return next((size for size in sorted(sizes, reverse=True) if before % size == 0), default)


class Layout:
    """An image's segments as they are put one after another.

    :param shift: where in flash the image's first byte will stand
    """

    def __init__(self, page: int, *, shift: int = 0) -> None:
        self.page, self.shift = page, shift
        self.position = HEADER_BYTES
        self.segments: list[Segment] = []

    def add(self, address: int, data: bytes | memoryview) -> None:
        """One segment, where the last one ended."""
        check_size(address, len(data))
        self.segments.append(Segment(address, data, self.position + SEGMENT_HEADER.size))  # type: ignore[arg-type]
        self.position += SEGMENT_HEADER.size + len(data)

    def add_flash(self, piece: Piece, ram: list[Piece], *, tail: int) -> None:
        """A mapped segment, after what fills the room in front of it; takes from ``ram`` what fits there.

        :param tail: bytes into a page that the segment must reach if it ends in it at all
        """
        while (room := self._room(piece.address)) is not None:
            if ram and room > SEGMENT_HEADER.size:
                head = ram[0]
                taken = min(room, len(head.data))
                self.add(head.address, head.data[:taken])
                ram[0:1] = (
                    [Piece(head.address + taken, head.data[taken:])]
                    if taken < len(head.data)
                    else []
                )
            else:
                self.add(0, bytes(room))
        self._add_mapped(piece, tail=tail)

    def add_hidden(self, piece: Piece, *, tail: int) -> None:
        """A mapped segment that the boot loader does not see; a filler stands in front of it, always."""
        here = self.position + self.shift + 2 * SEGMENT_HEADER.size
        self.add(0, bytes((piece.address - here) % self.page))
        self._add_mapped(piece, tail=tail)

    def _add_mapped(self, piece: Piece, *, tail: int) -> None:
        past = (self.position + SEGMENT_HEADER.size + len(piece.data)) % self.page
        short = max(tail - past, 0)
        self.add(piece.address, bytes(piece.data) + bytes(short) if short else piece.data)

    def _room(self, address: int) -> int | None:
        """Bytes that a filler's data must have for ``address`` to fit after it; None if it fits as it is."""
        here, wanted = self.position % self.page, address % self.page
        room = wanted - here - 2 * SEGMENT_HEADER.size
        if (room + SEGMENT_HEADER.size) % self.page == 0:
            return None
        # always into the next page, even if this one had room: so esptool does it, whose images ours equal
        room += self.page
        return room if room >= 0 else room + self.page

    def add_checksum(self) -> None:
        """Leave room for a checksum that ends a row of 16 bytes."""
        self.position += 16 - self.position % 16

    def pad_for_signature(self, after_checksum: int) -> None:
        """Fill so that what is appended after the checksum ends a page."""
        self.add(0, bytes((-self.position - SEGMENT_HEADER.size - 16 - after_checksum) % self.page))


def insert_digest(segments: Sequence[Segment], offset: int, digest: bytes) -> list[Segment]:
    """Put ``digest`` at ``offset`` of the file, which must lie in a segment and hold zeros there.

    :raises ElfError: it does not
    """
    done = list(segments)
    for number, segment in enumerate(segments):
        at = offset - segment.offset
        if at >= 0 and at + len(digest) <= len(segment.data):
            if any(segment.data[at : at + len(digest)]):
                raise ElfError(
                    f"the SHA-256 of the ELF cannot go to offset {offset:#x}: something else stands there",
                    hint="Leave 32 zero bytes there; an ESP-IDF application has them in its descriptor.",
                    code="elf-digest-place",
                )
            data = b"".join((segment.data[:at], digest, segment.data[at + len(digest) :]))
            done[number] = Segment(segment.address, data, segment.offset)
            return done
    raise ElfError(
        f"the SHA-256 of the ELF cannot go to offset {offset:#x}: no segment has 32 bytes there",
        hint="The usual place is 0xb0, in the application's descriptor.",
        code="elf-digest-place",
    )


def check_size(address: int, size: int) -> None:
    """Refuse a segment that no boot loader takes.

    :raises ElfError: it is too large
    """
    if size > MAX_SEGMENT_SIZE:
        raise ElfError(
            f"the segment at {address:#x} has {size} bytes; {MAX_SEGMENT_SIZE >> 20} MiB are possible",
            hint="Check the program's sections: readelf -S tells their sizes.",
            code="elf-segment",
        )


def check_count(count: int) -> None:
    """Refuse what no boot loader takes.

    :raises ElfError: no segments, or too many
    """
    if not count:
        raise ElfError(
            "the ELF file has nothing to load: no section or segment with an address",
            hint="Give the linked program, not an object file or a file of symbols only.",
            code="elf-empty",
        )
    if count > MAX_SEGMENTS:
        raise ElfError(
            f"the image would have {count} segments; {MAX_SEGMENTS} are possible",
            hint="Join sections in the linker script, or try --use-segments.",
            code="elf-segments",
        )


DIGEST_IN_DESCRIPTOR = 144  # so that it stands at 0xB0 of the file


@dataclass(frozen=True, kw_only=True)
class ElfOptions:
    """What to make of an ELF. ``version`` is the ESP8266's image format; other chips have one only.

    ``settings``: ``keep`` means qio, 1MB, and the frequency of code 0. ``mmu_page_size`` None: as the program was
    linked. ``digest_offset``: where in the file to put the ELF's SHA-256; None: into the application's descriptor.
    ``pad_to_size``: fill with 0xFF up to a multiple of it.
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


def header_codes(chip: Chip, settings: HeaderSettings, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Header bytes 2 and 3.

    :raises UsageError: the chip has no such mode, size or frequency
    """
    flash = chip.flash
    size = "1MB" if settings.size == KEEP else parse_size_name(settings.size)
    mode = "qio" if settings.mode == KEEP else settings.mode
    for what, value, known in (
        ("mode", mode, flash.modes),
        ("size", size, sizes),
        ("frequency", settings.frequency, {KEEP: 0, **flash.frequencies}),
    ):
        if value not in known:
            raise UsageError(
                f"the {chip.name} has no flash {what} {value}",
                hint=f"It has {', '.join(name for name in known if name != KEEP)}.",
                code="flash-setting",
            )
    return flash.modes[mode], sizes[size] | flash.frequencies.get(settings.frequency, 0)


def kind_of(chip: Chip, address: int) -> tuple[str, ...]:
    """Names of all that the chip has at an address; parts are joined only within the same."""
    return tuple(region.name for region in chip.memory.map if region.start <= address < region.end)


def in_order(parts: Sequence[ElfPart], options: ElfOptions) -> Sequence[ElfPart]:
    """The file's order, in which parts are joined; by address for an image whose header shows RAM only."""
    return sorted(parts, key=lambda part: part.address) if options.ram_only_header else parts


def with_digest(
    segments: Sequence[Segment], options: ElfOptions, file: bytes, *, descriptor: int | None = None
) -> Sequence[Segment]:
    """The segments with the ELF's SHA-256 where the options say, else in the application's descriptor."""
    offset = options.digest_offset
    if offset is None and descriptor is not None:
        offset = next(
            (s.offset + DIGEST_IN_DESCRIPTOR for s in segments if s.address == descriptor), None
        )
    if offset is None:
        return segments
    return insert_digest(segments, offset, hashlib.sha256(file).digest())


def place(pieces: Sequence[Piece], start: int) -> list[Segment]:
    """Segments one after another, the first one's header at ``start``."""
    segments = []
    for piece in pieces:
        check_size(piece.address, len(piece.data))
        start += SEGMENT_HEADER.size
        segments.append(Segment(piece.address, piece.data, start))  # type: ignore[arg-type]
        start += len(piece.data)
    return segments


def append_segments(out: bytearray, segments: Sequence[Segment]) -> None:
    """Headers and data."""
    for segment in segments:
        out += SEGMENT_HEADER.pack(segment.address, len(segment.data))
        out += segment.data


def append_checksum(out: bytearray, segments: Sequence[Segment]) -> None:
    """Zeros and the checksum of ``segments``, which ends a row of 16 bytes."""
    out += bytes(15 - len(out) % 16)
    out.append(compute_checksum(tuple(segments)))
