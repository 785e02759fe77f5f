"""Parse, build and patch firmware images.

Parsing any bytes gives an `Image` or raises one `ImageError`. A wrong checksum or hash is a field, not an error.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from espwire.chips.registry import find_by_image_id
from espwire.errors import ImageError
from espwire.image.header import HeaderSettings, find_codes
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
from espwire.image.signature import find_signatures

if TYPE_CHECKING:
    from espwire.chips.model import Chip

CRC_SIZE = 4


def is_image(data: bytes) -> bool:
    """Whether the first byte is the magic number of an image."""
    return data[:1] in (bytes([MAGIC]), bytes([MAGIC_V2]))


def parse(data: bytes, chip: Chip | None = None) -> Image:
    """The image at the start of ``data``; building it gives ``data`` again.

    :param chip: whose format to expect; None tries both and takes the one with a correct checksum
    :raises ImageError: not an image, or its structure is broken
    """
    image, size = parse_prefix(memoryview(data), chip)
    return replace(image, trailing=data[size:])


def parse_prefix(data: memoryview, chip: Chip | None = None) -> tuple[Image, int]:
    """As ``parse``, without what follows the image; and the size of the image."""
    if not data:
        raise ImageError("the image is empty", code="image-empty")
    if data[0] not in (MAGIC, MAGIC_V2):
        raise ImageError(
            f"not a firmware image: it begins with {data[0]:#04x}, not {MAGIC:#04x}",
            hint="Pass the .bin file from the build. Raw data needs no image header.",
            code="image-magic",
        )
    if chip is not None:
        return _parse_esp32(data) if chip.image.extended_header else _parse_esp8266(data)
    if data[0] == MAGIC_V2:
        return _parse_esp8266(data)
    return _parse_unknown(data)


def _parse_unknown(data: memoryview) -> tuple[Image, int]:
    """Both formats begin alike: prefer a correct checksum, then the first format whose structure fits."""
    images: list[tuple[Image, int]] = []
    first_error: ImageError | None = None
    for attempt in (_parse_esp32, _parse_esp8266):
        try:
            images.append(attempt(data))
        except ImageError as error:
            first_error = first_error or error
        else:
            if images[-1][0].checksum_valid:
                return images[-1]
    broken = not images or (images[0][0].extended is None and _has_chip_id(data))
    if broken and first_error is not None:
        raise first_error
    return images[0]


def _has_chip_id(data: memoryview) -> bool:
    """Whether it has a plausible extended header: then it is a broken image for that chip, not for an ESP8266."""
    if len(data) < HEADER.size + EXTENDED.size:
        return False
    _, _, chip_id, _, _, _, reserved, flag = EXTENDED.unpack_from(data, HEADER.size)
    return flag in (0, 1) and reserved == bytes(4) and find_by_image_id(chip_id) is not None


class _Cursor:
    """A reading position; every short read raises the same ImageError."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, size: int, what: str) -> memoryview:
        if size > len(self.data) - self.at:
            raise ImageError(
                f"the image is truncated: {what} needs {size:,} bytes at offset {self.at:#x}, "
                f"but only {len(self.data) - self.at:,} follow",
                hint="The file was not copied or downloaded completely: get it again.",
                code="image-truncated",
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def header(self, magic: int) -> tuple[int, int, int, int]:
        first, count, mode, size_frequency, entry = HEADER.unpack(
            self.take(HEADER.size, "the header")
        )
        if first != magic:
            raise ImageError(
                f"the header at offset {self.at - HEADER.size:#x} begins with {first:#04x}, not {magic:#04x}",
                code="image-magic",
            )
        return count, mode, size_frequency, entry

    def segments(self, numbers: range, *, align: int) -> tuple[Segment, ...]:
        """Segments; data are copied only if the structure of all is valid, so that hostile files cost no time."""
        if not 1 <= len(numbers) <= MAX_SEGMENTS:
            raise ImageError(
                f"the header has a segment count of {len(numbers)}, not 1 to {MAX_SEGMENTS}",
                code="image-segment-count",
            )
        rows: list[tuple[int, memoryview, int]] = []
        for number in numbers:
            address, size = SEGMENT_HEADER.unpack(
                self.take(SEGMENT_HEADER.size, f"the header of segment {number}")
            )
            if size > MAX_SEGMENT_SIZE or size % align:
                raise ImageError(
                    f"segment {number} at offset {self.at:#x} has the impossible size {size:#x}",
                    code="image-segment",
                )
            offset = self.at
            rows.append((address, self.take(size, f"segment {number}"), offset))
        return tuple(Segment(address, bytes(view), offset) for address, view, offset in rows)

    def checksum(self) -> tuple[bytes, int]:
        """The fill and the checksum byte, which ends a 16-byte row."""
        tail = bytes(self.take(16 - self.at % 16, "the checksum"))
        return tail[:-1], tail[-1]


def _parse_esp32(data: memoryview) -> tuple[Image, int]:
    cursor = _Cursor(data)
    count, mode, size_frequency, entry = cursor.header(MAGIC)
    extended = _parse_extended(cursor.take(EXTENDED.size, "the extended header"))
    segments = cursor.segments(range(count), align=4)
    fill, checksum = cursor.checksum()
    digest, digest_valid = None, None
    if extended.hash_appended:
        body = data[: cursor.at]
        digest = bytes(cursor.take(DIGEST_SIZE, "the SHA-256"))
        digest_valid = digest == compute_sha256(body)
    image = Image(
        mode_code=mode,
        size_frequency=size_frequency,
        entry=entry,
        segments=segments,
        extended=extended,
        fill=fill,
        checksum=checksum,
        digest=digest,
        checksum_valid=checksum == compute_checksum(segments),
        digest_valid=digest_valid,
    )
    return image, cursor.at


def _parse_extended(data: memoryview) -> ExtendedHeader:
    wp_pin, drive, chip_id, legacy, least, most, reserved, flag = EXTENDED.unpack(data)
    if flag not in (0, 1):
        raise ImageError(
            f"the hash flag in the extended header is {flag:#04x}, not 0 or 1",
            hint="The image is not for this chip, or it is encrypted.",
            code="image-header",
        )
    return ExtendedHeader(chip_id, legacy, least, most, flag, wp_pin, drive, reserved)


def _parse_esp8266(data: memoryview) -> tuple[Image, int]:
    cursor = _Cursor(data)
    irom = None
    if data[0] == MAGIC_V2:
        count, mode, size_frequency, entry = cursor.header(MAGIC_V2)
        (segment,) = cursor.segments(range(1), align=1)
        irom = IromPart(mode, size_frequency, entry, segment, count)
    count, mode, size_frequency, entry = cursor.header(MAGIC)
    segments = cursor.segments(range(count), align=1)
    fill, checksum = cursor.checksum()
    body = data[: cursor.at]
    if irom is not None:
        digest, digest_valid = None, None
        crc, crc_valid = _parse_tail(data, body, CRC_SIZE, compute_crc)
    else:
        crc, crc_valid = None, None
        digest, digest_valid = _parse_tail(data, body, DIGEST_SIZE, compute_sha256)
    image = Image(
        mode_code=mode,
        size_frequency=size_frequency,
        entry=entry,
        segments=segments,
        irom=irom,
        fill=fill,
        checksum=checksum,
        digest=digest,
        crc=crc,
        checksum_valid=checksum == compute_checksum(segments),
        digest_valid=digest_valid,
        crc_valid=crc_valid,
    )
    return image, cursor.at + len(digest or crc or b"")


def _parse_tail(
    data: memoryview, body: memoryview, size: int, compute: Callable[[memoryview], bytes]
) -> tuple[bytes | None, bool | None]:
    """The SHA-256 or CRC that some ESP8266 tools append without a flag: present if correct, or if nothing follows it."""
    stored = bytes(data[len(body) : len(body) + size])
    valid = len(stored) == size and stored == compute(body)
    if valid or len(data) == len(body) + size:
        return stored, valid
    return None, None


def compute_sha256(data: bytes | bytearray | memoryview) -> bytes:
    """The SHA-256 that most images end with."""
    import hashlib  # takes 2 ms, which merging does not need

    return hashlib.sha256(data).digest()


def compute_crc(data: bytes | bytearray | memoryview) -> bytes:
    """The CRC-32 of the ESP8266 bootloader for version 2 images: inverted if bit 31 is set, else plus 1."""
    crc = zlib.crc32(data)
    crc = crc ^ 0xFFFFFFFF if crc & 0x80000000 else crc + 1
    return crc.to_bytes(CRC_SIZE, "little")


def build(image: Image) -> bytes:
    """The image's bytes; with ``checksum`` None, checksum, SHA-256 and CRC are computed.

    :raises ImageError: the image has values that the format cannot hold
    """
    _check(image)
    return pack(image)


def pack(image: Image, prefix: bytes = b"") -> bytes:
    """As ``build``, without checks. ``prefix``: bytes in front of the header, included in checksum fill and hash."""
    out = bytearray(prefix)
    if (irom := image.irom) is not None:
        out += HEADER.pack(
            MAGIC_V2, irom.segment_count, irom.mode_code, irom.size_frequency, irom.entry
        )
        out += pack_segments([irom.segment])
    out += HEADER.pack(
        MAGIC, len(image.segments), image.mode_code, image.size_frequency, image.entry
    )
    if (header := image.extended) is not None:
        out += EXTENDED.pack(
            header.wp_pin,
            header.drive,
            header.chip_id,
            header.min_revision_legacy,
            header.min_revision,
            header.max_revision,
            header.reserved,
            header.hash_flag,
        )
    out += pack_segments(image.segments)
    if image.checksum is not None:
        out += image.fill + bytes([image.checksum]) + (image.digest or b"") + (image.crc or b"")
        return bytes(out + image.trailing)
    out += bytes(15 - len(out) % 16)
    out.append(compute_checksum(image.segments))
    if header is not None and header.hash_appended:
        out += compute_sha256(out)
    if irom is not None:
        out += compute_crc(out)
    return bytes(out + image.trailing)


def pack_segments(segments: Iterable[Segment]) -> bytes:
    """Segment headers and data."""
    return b"".join(
        part
        for segment in segments
        for part in (SEGMENT_HEADER.pack(segment.address, len(segment.data)), segment.data)
    )


def _check(image: Image) -> None:
    segments = image.segments if image.irom is None else (image.irom.segment, *image.segments)
    wrong = None
    if not 1 <= len(image.segments) <= MAX_SEGMENTS:
        wrong = f"{len(image.segments)} segments, not 1 to {MAX_SEGMENTS}"
    elif any(len(s.data) > MAX_SEGMENT_SIZE or not 0 <= s.address <= 0xFFFFFFFF for s in segments):
        wrong = "a segment that is too large or at an impossible address"
    elif image.digest is not None and len(image.digest) != DIGEST_SIZE:
        wrong = "a SHA-256 that is not 32 bytes long"
    elif not 0 <= image.entry <= 0xFFFFFFFF or not 0 <= image.mode_code <= 0xFF:
        wrong = "an entry address or mode out of range"
    elif not 0 <= image.size_frequency <= 0xFF or not 0 <= (image.checksum or 0) <= 0xFF:
        wrong = "a header byte or checksum out of range"
    if wrong is not None:
        raise ImageError(
            f"the image cannot be built: it has {wrong}",
            hint="Correct the fields of the image.",
            code="image-build",
        )


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
    """A new image for ``chip``, each segment padded to 4 bytes; ``build()`` computes checksum and SHA-256.

    :param settings: default: dio, the chip's default frequency and default flash size
    :raises UsageError: the chip does not support a setting
    """
    settings = settings or HeaderSettings()
    mode, size, frequency = find_codes(chip, settings)
    flash = chip.flash
    if mode is None:
        mode = flash.modes["dio"]
    if size is None:
        size = flash.sizes[f"{chip.flash.default_size >> 20}MB"]
    if frequency is None:
        frequency = flash.frequencies[flash.default_frequency]
    extended = None
    if chip.image.extended_header:
        if chip.identity.image_chip_id is None:
            raise ImageError(f"the image chip id of {chip.name} is unknown", code="image-chip")
        extended = ExtendedHeader(
            chip.identity.image_chip_id,
            min_revision=min_revision,
            max_revision=max_revision,
            hash_flag=int(hash_appended),
        )
    padded = tuple(Segment(s.address, s.data + bytes(-len(s.data) % 4)) for s in segments)
    return Image(
        mode_code=mode,
        size_frequency=size | frequency,
        entry=entry,
        segments=padded,
        extended=extended,
    )


def patch_header(data: bytes, chip: Chip, settings: HeaderSettings) -> tuple[bytes, str]:
    """``data`` with other flash settings in its image header; a SHA-256 is updated, what follows the image is not.

    Only the header at the chip's bootloader offset is read by the ROM; the caller checks that.

    :param settings: with any size except ``detect``
    :return: the bytes, and the reason if the header was left unchanged, as the end of a sentence
    :raises UsageError: the chip does not support a setting
    """
    if settings.keep_all:
        return data, ""
    try:
        image = parse(data, chip)
    except ImageError as error:
        return data, find_patch_obstacle(data, error)
    obstacle = find_patch_obstacle(data, image)
    return (data if obstacle else pack(patch_image(image, chip, settings))), obstacle


def find_patch_obstacle(data: bytes, image: Image | ImageError) -> str:
    """Why the header of ``data`` must not be changed, as the end of a sentence; empty if it may.

    :param image: what ``parse`` made of ``data``
    """
    if len(data) < HEADER.size or data[0] != MAGIC:
        return "it is not a bootable image"
    if isinstance(image, ImageError):
        return f"{image}"
    if not image.intact:
        return "its checksum or SHA-256 is wrong"
    return "it is signed" if find_signatures(data, len(data) - len(image.trailing)) else ""


def patch_image(image: Image, chip: Chip, settings: HeaderSettings) -> Image:
    """``image`` with other flash settings, and the SHA-256 that goes with them.

    :raises UsageError: the chip does not support a setting
    """
    mode, size, frequency = find_codes(chip, settings)
    patched = replace(
        image,
        mode_code=image.mode_code if mode is None else mode,
        size_frequency=(image.size_code if size is None else size)
        | (image.frequency_code if frequency is None else frequency),
    )
    if image.digest is not None:
        body = pack(replace(patched, digest=None, trailing=b""))
        patched = replace(patched, digest=compute_sha256(body))
    return patched
