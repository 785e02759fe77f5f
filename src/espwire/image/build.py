"""Image → bytes, and new images from segments. Computes what an image leaves open; lays out no flash pages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from espwire.errors import ImageError, UsageError
from espwire.image.flash_settings import HeaderSettings, parse_size_name
from espwire.image.model import (
    ANY_REVISION,
    DIGEST_SIZE,
    EXTENDED,
    HEADER,
    MAGIC,
    MAGIC_V2,
    MAX_SEGMENT_SIZE,
    MAX_SEGMENTS,
    SEGMENT_HEADER,
    ExtendedHeader,
    Image,
    Segment,
    compute_checksum,
)
from espwire.image.parse import compute_crc

if TYPE_CHECKING:
    from espwire.chips.lookup import AnyChip


def build(image: Image) -> bytes:
    """The image's bytes. What parsing found is written as found; with ``checksum`` None, all of the tail is computed.

    :raises ImageError: it has values that no image can hold
    """
    _check(image)
    out = bytearray()
    if image.irom is not None:
        part = image.irom
        out += HEADER.pack(MAGIC_V2, part.segment_count, part.mode_code, part.size_frequency, part.entry)
        out += _pack_segment(part.segment)
    out += HEADER.pack(MAGIC, len(image.segments), image.mode_code, image.size_frequency, image.entry)
    if image.extended is not None:
        out += _pack_extended(image.extended)
    for segment in image.segments:
        out += _pack_segment(segment)
    if image.checksum is None:
        _append_tail(out, image)
    else:
        out += image.fill + bytes([image.checksum]) + (image.digest or b"") + (image.crc or b"")
    return bytes(out + image.trailing)


def _append_tail(out: bytearray, image: Image) -> None:
    out += bytes(15 - len(out) % 16)
    out.append(compute_checksum(image.segments))
    if image.extended is not None and image.extended.hash_appended:
        out += hashlib.sha256(out).digest()
    if image.irom is not None:
        out += compute_crc(bytes(out))


def create_image(
    segments: Iterable[Segment],
    entry: int,
    *,
    chip: AnyChip,
    settings: HeaderSettings | None = None,
    min_revision: int = 0,
    max_revision: int = ANY_REVISION,
    hash_appended: bool = True,
) -> Image:
    """A new image for ``chip``; ``build()`` pads each segment to 4 bytes and computes checksum and SHA-256.

    :param settings: None: dio, the chip's default frequency, and its default flash size
    :raises UsageError: the chip has no such mode, size or frequency
    """
    settings = settings or HeaderSettings()
    mode = "dio" if settings.mode == "keep" else settings.mode
    size = f"{chip.default_flash_size >> 20}MB" if settings.size == "keep" else parse_size_name(settings.size)
    frequency = chip.flash.default_frequency if settings.frequency == "keep" else settings.frequency
    flash = chip.flash
    try:
        codes = flash.modes[mode], flash.sizes[size] | flash.frequencies[frequency]
    except KeyError as error:
        raise UsageError(
            f"the {chip.name} knows no flash setting {error.args[0]!r}",
            hint=f"Modes {', '.join(flash.modes)}; sizes {', '.join(flash.sizes)}; "
            f"frequencies {', '.join(flash.frequencies)}.",
        ) from None
    extended = None
    if chip.image.format == "esp32":
        if chip.identity.image_chip_id is None:
            raise ImageError(f"the image chip id of {chip.name} is not known", code="image-chip")
        extended = ExtendedHeader(
            chip.identity.image_chip_id,
            min_revision=min_revision,
            max_revision=max_revision,
            hash_flag=int(hash_appended),
        )
    padded = tuple(Segment(s.address, s.data + bytes(-len(s.data) % 4)) for s in segments)
    return Image(mode_code=codes[0], size_frequency=codes[1], entry=entry, segments=padded, extended=extended)


def _check(image: Image) -> None:
    parts = image.segments if image.irom is None else (image.irom.segment, *image.segments)
    wrong = None
    if not 1 <= len(image.segments) <= MAX_SEGMENTS:
        wrong = f"{len(image.segments)} segments; 1 to {MAX_SEGMENTS} are possible"
    elif any(len(s.data) > MAX_SEGMENT_SIZE or not 0 <= s.address <= 0xFFFFFFFF for s in parts):
        wrong = "a segment too large or at an impossible address"
    elif image.digest is not None and len(image.digest) != DIGEST_SIZE:
        wrong = "a SHA-256 that is not 32 bytes long"
    elif not 0 <= image.entry <= 0xFFFFFFFF or not 0 <= image.mode_code <= 0xFF:
        wrong = "an entry address or mode out of range"
    elif not 0 <= image.size_frequency <= 0xFF or not 0 <= (image.checksum or 0) <= 0xFF:
        wrong = "a header byte or checksum out of range"
    if wrong is not None:
        raise ImageError(
            f"the image cannot be built: it has {wrong}", hint="Mend the image's segments.", code="image-build"
        )


def _pack_segment(segment: Segment) -> bytes:
    return SEGMENT_HEADER.pack(segment.address, len(segment.data)) + segment.data


def _pack_extended(header: ExtendedHeader) -> bytes:
    return EXTENDED.pack(
        header.wp_pin,
        header.drive,
        header.chip_id,
        header.min_revision_legacy,
        header.min_revision,
        header.max_revision,
        header.reserved,
        header.hash_flag,
    )
