"""Bytes → Image. Any bytes end in an Image or in one ImageError; a wrong checksum or hash is a field, not an error.

Image → bytes, and new images from segments. Computes what an image leaves open; lays out no flash pages.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from espwire.chips.registry import find_by_image_id
from espwire.errors import ImageError, UsageError
from espwire.image.header import HeaderSettings, parse_size_name
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
    IromPart,
    Segment,
    compute_checksum,
)

if TYPE_CHECKING:
    from espwire.chips.model import Chip


CRC_SIZE = 4


def is_image(data: bytes) -> bool:
    """Whether the first byte is that of an image; says nothing about the rest."""
    return data[:1] in (bytes([MAGIC]), bytes([MAGIC_V2]))


def parse(data: bytes, chip: Chip | None = None) -> Image:
    """The image in ``data``; ``build()`` of it gives ``data`` back.

    :param chip: whose format to expect; None tries both and takes the one that checks out
    :raises ImageError: no image, or one whose structure is broken
    """
    if not data:
        raise ImageError("the image is empty", code="image-empty")
    if not is_image(data):
        raise ImageError(
            f"this is no firmware image: it begins with {data[0]:#04x}, not {MAGIC:#04x}",
            hint="Give the .bin file that the build made; raw data needs no image header.",
            code="image-magic",
        )
    if chip is not None:
        return _parse_esp32(data) if chip.image.extended_header else _parse_esp8266(data)
    if data[0] == MAGIC_V2:
        return _parse_esp8266(data)
    return _parse_unknown(data)


def _parse_unknown(data: bytes) -> Image:
    """Both formats begin alike: take the one whose checksum is right, else the first that has the structure."""
    found: list[Image] = []
    complaint: ImageError | None = None
    for attempt in (_parse_esp32, _parse_esp8266):
        try:
            image = attempt(data)
        except ImageError as error:
            complaint = complaint or error
            continue
        if image.checksum_valid:
            return image
        found.append(image)
    broken = not found or (found[0].extended is None and _names_a_chip(data))
    if broken and complaint is not None:
        raise complaint
    return found[0]


def _names_a_chip(data: bytes) -> bool:
    """Whether there is an extended header that makes sense: a broken image of such a chip is no ESP8266's."""
    if len(data) < HEADER.size + EXTENDED.size:
        return False
    _, _, chip_id, _, _, _, reserved, flag = EXTENDED.unpack_from(data, HEADER.size)
    return flag in (0, 1) and reserved == bytes(4) and find_by_image_id(chip_id) is not None


class _Cursor:
    """A reading position; every short read is the same ImageError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int, what: str) -> bytes:
        if size > len(self.data) - self.at:
            raise ImageError(
                f"the image is cut short: {what} needs {size} bytes at offset {self.at:#x}, "
                f"{len(self.data) - self.at} are there",
                hint="The file was not copied or downloaded whole: get it again.",
                code="image-truncated",
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def header(self, magic: int) -> tuple[int, int, int, int]:
        found, count, mode, size_frequency, entry = HEADER.unpack(
            self.take(HEADER.size, "the header")
        )
        if found != magic:
            raise ImageError(
                f"the header at offset {self.at - HEADER.size:#x} begins with {found:#04x}, not {magic:#04x}",
                code="image-magic",
            )
        return count, mode, size_frequency, entry

    def segment(self, number: int, *, align: int) -> Segment:
        address, size = SEGMENT_HEADER.unpack(
            self.take(SEGMENT_HEADER.size, f"the header of segment {number}")
        )
        if size > MAX_SEGMENT_SIZE or size % align:
            raise ImageError(
                f"segment {number} at offset {self.at:#x} has the impossible size {size:#x}",
                code="image-segment",
            )
        offset = self.at
        return Segment(address, self.take(size, f"segment {number}"), offset)

    def segments(self, count: int, *, align: int) -> tuple[Segment, ...]:
        if not 1 <= count <= MAX_SEGMENTS:
            raise ImageError(
                f"the image claims {count} segments; 1 to {MAX_SEGMENTS} are possible",
                code="image-segment-count",
            )
        return tuple(self.segment(number, align=align) for number in range(count))

    def checksum(self) -> tuple[bytes, int]:
        """The fill and the checksum byte, which ends a 16-byte row."""
        tail = self.take(16 - self.at % 16, "the checksum")
        return tail[:-1], tail[-1]


def _parse_esp32(data: bytes) -> Image:
    import hashlib

    cursor = _Cursor(data)
    count, mode, size_frequency, entry = cursor.header(MAGIC)
    extended = _parse_extended(cursor.take(EXTENDED.size, "the extended header"))
    segments = cursor.segments(count, align=4)
    fill, checksum = cursor.checksum()
    digest, digest_valid = None, None
    if extended.hash_appended:
        actual = hashlib.sha256(memoryview(data)[: cursor.at]).digest()
        digest = cursor.take(DIGEST_SIZE, "the SHA-256")
        digest_valid = digest == actual
    return Image(
        mode_code=mode,
        size_frequency=size_frequency,
        entry=entry,
        segments=segments,
        extended=extended,
        fill=fill,
        checksum=checksum,
        digest=digest,
        trailing=data[cursor.at :],
        checksum_valid=checksum == compute_checksum(segments),
        digest_valid=digest_valid,
    )


def _parse_extended(data: bytes) -> ExtendedHeader:
    wp_pin, drive, chip_id, legacy, least, most, reserved, flag = EXTENDED.unpack(data)
    if flag not in (0, 1):
        raise ImageError(
            f"the extended header says {flag:#04x} where only 0 or 1 (SHA-256 appended) is possible",
            hint="It is no image for this chip, or it is encrypted.",
            code="image-header",
        )
    return ExtendedHeader(chip_id, legacy, least, most, flag, wp_pin, drive, reserved)


def _parse_esp8266(data: bytes) -> Image:
    cursor = _Cursor(data)
    irom = None
    if data[0] == MAGIC_V2:
        count, mode, size_frequency, entry = cursor.header(MAGIC_V2)
        irom = IromPart(mode, size_frequency, entry, cursor.segment(0, align=1), count)
    count, mode, size_frequency, entry = cursor.header(MAGIC)
    segments = cursor.segments(count, align=1)
    fill, checksum = cursor.checksum()
    crc, crc_valid = _parse_crc(data, cursor.at) if irom else (None, None)
    digest, digest_valid = (None, None) if irom else _parse_loose_digest(data, cursor.at)
    return Image(
        mode_code=mode,
        size_frequency=size_frequency,
        entry=entry,
        segments=segments,
        irom=irom,
        fill=fill,
        checksum=checksum,
        digest=digest,
        crc=crc,
        trailing=data[cursor.at + len(digest or crc or b"") :],
        checksum_valid=checksum == compute_checksum(segments),
        digest_valid=digest_valid,
        crc_valid=crc_valid,
    )


def _parse_loose_digest(data: bytes, end: int) -> tuple[bytes | None, bool | None]:
    """The SHA-256 that newer ESP8266 tools append unannounced: there if it is right, or if it alone follows."""
    import hashlib

    stored = data[end : end + DIGEST_SIZE]
    if len(stored) == DIGEST_SIZE:
        valid = stored == hashlib.sha256(memoryview(data)[:end]).digest()
        if valid or len(data) == end + DIGEST_SIZE:
            return stored, valid
    return None, None


def _parse_crc(data: bytes, end: int) -> tuple[bytes | None, bool | None]:
    """The CRC after a version 2 image: there if it is right, or if it alone follows."""
    stored = data[end : end + CRC_SIZE]
    if len(stored) == CRC_SIZE:
        valid = stored == compute_crc(memoryview(data)[:end])
        if valid or len(data) == end + CRC_SIZE:
            return stored, valid
    return None, None


def compute_crc(data: bytes | memoryview) -> bytes:
    """The ESP8266 boot loader's CRC-32 of a version 2 image: inverted if bit 31 is set, else plus 1."""
    crc = zlib.crc32(data)
    crc = crc ^ 0xFFFFFFFF if crc & 0x80000000 else crc + 1
    return crc.to_bytes(CRC_SIZE, "little")


def build(image: Image) -> bytes:
    """The image's bytes. What parsing found is written as found; with ``checksum`` None, all of the tail is computed.

    :raises ImageError: it has values that no image can hold
    """
    _check(image)
    out = bytearray()
    if image.irom is not None:
        part = image.irom
        out += HEADER.pack(
            MAGIC_V2, part.segment_count, part.mode_code, part.size_frequency, part.entry
        )
        out += _pack_segment(part.segment)
    out += HEADER.pack(
        MAGIC, len(image.segments), image.mode_code, image.size_frequency, image.entry
    )
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
    chip: Chip,
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
    size = (
        f"{chip.default_flash_size >> 20}MB"
        if settings.size == "keep"
        else parse_size_name(settings.size)
    )
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
    if chip.image.extended_header:
        if chip.identity.image_chip_id is None:
            raise ImageError(f"the image chip id of {chip.name} is not known", code="image-chip")
        extended = ExtendedHeader(
            chip.identity.image_chip_id,
            min_revision=min_revision,
            max_revision=max_revision,
            hash_flag=int(hash_appended),
        )
    padded = tuple(Segment(s.address, s.data + bytes(-len(s.data) % 4)) for s in segments)
    return Image(
        mode_code=codes[0], size_frequency=codes[1], entry=entry, segments=padded, extended=extended
    )


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
            f"the image cannot be built: it has {wrong}",
            hint="Mend the image's segments.",
            code="image-build",
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
