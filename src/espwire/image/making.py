"""What all ways of making an image share: options, header codes, segments to bytes. Decides no layout."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Literal

from espwire.errors import UsageError
from espwire.image.flash_settings import KEEP, HeaderSettings, parse_size_name
from espwire.image.layout import Piece, check_size, insert_digest
from espwire.image.model import ANY_REVISION, SEGMENT_HEADER, Segment, compute_checksum
from espwire.values import dataclass

if TYPE_CHECKING:
    from espwire.chips.lookup import AnyChip
    from espwire.image.elf import ElfPart

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


@dataclass(frozen=True)
class FlashFile:
    """One output file: where in flash it goes, if that is known, and how its name ends when there are several."""

    address: int | None
    data: bytes = field(repr=False)
    suffix: str = ".bin"


def header_codes(chip: AnyChip, settings: HeaderSettings, sizes: Mapping[str, int]) -> tuple[int, int]:
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


def kind_of(chip: AnyChip, address: int) -> tuple[str, ...]:
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
        offset = next((s.offset + DIGEST_IN_DESCRIPTOR for s in segments if s.address == descriptor), None)
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
