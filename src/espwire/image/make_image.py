"""Raw files for given addresses → an image, as esptool's make_image did until version 4. Lays out no flash pages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.errors import ImageError, UsageError
from espwire.files import check_total_size, keep_inputs, read_file, write_files
from espwire.image.codec import build, create_image
from espwire.image.elf import is_flash
from espwire.image.elf2image import ImageFiles
from espwire.image.header import KEEP, HeaderSettings
from espwire.image.layout import (
    Piece,
    append_checksum,
    append_segments,
    header_codes,
    pad4,
    place,
)
from espwire.image.model import HEADER, MAGIC, MAX_SEGMENT_SIZE, MAX_SEGMENTS, Segment

if TYPE_CHECKING:
    from espwire.chips.model import Chip


def build_segments(
    segments: Sequence[tuple[int, bytes]],
    chip: Chip,
    *,
    entry: int = 0,
    settings: HeaderSettings | None = None,
) -> tuple[Blob, ...]:
    """The image of these addresses and bytes, in this order; for an ESP8266 a second file with what is mapped.

    :param settings: ``keep`` means the code 0 for mode, size and frequency
    :raises ImageError: segments overlap, are too many or too large
    :raises UsageError: the chip has no such flash setting
    """
    settings = settings or HeaderSettings()
    _check(segments, entry)
    if chip.image.extended_header:
        return (Blob(0, _build_esp32(segments, chip, entry, settings)),)
    # what goes to address 0 is a filler that no boot loader loads: it is taken as it is
    pieces = [Piece(address, pad4(data) if address else data) for address, data in segments]
    mapped = [piece for piece in pieces if is_flash(chip, piece.address)]
    where = mapped[0].address - chip.mapped_flash.irom_start if mapped else 0
    if len(mapped) > 1 or (mapped and not where):
        raise ImageError(
            f"{len(mapped)} parts lie in mapped flash"
            if where
            else f"nothing can be mapped at {mapped[0].address:#x}: there the part for RAM must be",
            hint="An ESP8266 image has room for one such part, behind the part for RAM.",
            code="image-irom",
        )
    placed = place([piece for piece in pieces if not is_flash(chip, piece.address)], HEADER.size)
    codes = _esp8266_codes(chip, settings)
    out = bytearray(HEADER.pack(MAGIC, len(placed), *codes, entry))
    append_segments(out, placed)
    append_checksum(out, placed)
    blobs = [Blob(0, bytes(out), "0x00000.bin", fixed=True)]
    blobs += [Blob(where, piece.data, f"0x{where:05x}.bin", fixed=True) for piece in mapped]
    return tuple(blobs)


def _check(segments: Sequence[tuple[int, bytes]], entry: int) -> None:
    if not 1 <= len(segments) <= MAX_SEGMENTS:
        raise ImageError(
            f"the image would have {len(segments)} segments; 1 to {MAX_SEGMENTS} are possible",
            hint="Join files whose addresses follow each other.",
            code="image-segment-count",
        )
    for address, data in segments:
        if len(data) > MAX_SEGMENT_SIZE or address < 0 or address + len(data) > 1 << 32:
            raise ImageError(
                f"{len(data)} bytes at {address:#x} are more than an image can hold",
                hint=f"A segment has at most {MAX_SEGMENT_SIZE >> 20} MiB and a 32-bit address.",
                code="image-segment",
            )
    if not 0 <= entry <= 0xFFFFFFFF:
        raise UsageError(f"the entry address {entry:#x} has more than 32 bits", code="image-entry")
    ordered = sorted((address, address + len(data)) for address, data in segments if address)
    for (start, end), (later, _) in pairwise(ordered):
        if later < end:
            raise ImageError(
                f"the parts at {start:#x} and {later:#x} overlap",
                hint="Check addresses and sizes of the files.",
                code="image-overlap",
            )


def _esp8266_codes(chip: Chip, settings: HeaderSettings) -> tuple[int, int]:
    """As for any image, but that a size that is not given has the code 0, as in the tool that had this command."""
    return header_codes(chip, settings, chip.flash.sizes if settings.size != KEEP else {"1MB": 0})


def _build_esp32(
    segments: Sequence[tuple[int, bytes]], chip: Chip, entry: int, settings: HeaderSettings
) -> bytes:
    slowest = {code: name for name, code in chip.flash.frequencies.items()}.get(
        0, chip.flash.default_frequency
    )
    filled = HeaderSettings(
        mode="qio" if settings.mode == KEEP else settings.mode,
        size="1MB" if settings.size == KEEP else settings.size,
        frequency=slowest if settings.frequency == KEEP else settings.frequency,
    )
    return build(
        create_image([Segment(*segment) for segment in segments], entry, chip=chip, settings=filled)
    )


def make_image(
    parts: Sequence[tuple[int, str | os.PathLike[str]]],
    output: str,
    *,
    chip: str = "esp8266",
    entry: int = 0,
    settings: HeaderSettings | None = None,
) -> ImageFiles:
    """Make an image of files for given addresses, and write it: all files or none.

    :param parts: address and file
    :param output: the file; for the ESP8266 the beginning of the names: ``app.bin`` becomes ``app.bin0x00000.bin``
    :raises ImageError: segments overlap, are too many or too large
    :raises UsageError: the chip has no such flash setting
    :raises FileError: a file cannot be read or written
    """
    from espwire.chips.registry import load_chip

    found = load_chip(chip)
    check_total_size(path for _, path in parts)
    segments = [(address, read_file(path)) for address, path in parts]
    blobs = build_segments(segments, found, entry=entry, settings=settings)
    blobs = tuple(replace(blob, name=output + blob.name) for blob in blobs)
    for blob in blobs:
        keep_inputs(blob.name, [path for _, path in parts])
    write_files([(blob.name, blob.data) for blob in blobs])
    return ImageFiles(found.id, entry, blobs)
