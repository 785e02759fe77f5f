"""A firmware image as a value. codec.py converts it from and to bytes.

Offsets and sizes are in bytes. Source of all layouts: ``chips/data/image.toml``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

MAGIC, MAGIC_V2 = 0xE9, 0xEA
ROW_MAGIC = b"\xaa\x50"  # of a partition table, which follows the bootloader in a merged file
HEADER = struct.Struct("<BBBBI")  # magic, segment count, SPI mode, size and frequency, entry
EXTENDED = struct.Struct("<B3sHBHH4sB")
SEGMENT_HEADER = struct.Struct("<II")
MAX_SEGMENTS = 16
MAX_SEGMENT_SIZE = 0x01000000
CHECKSUM_SEED = 0xEF
DIGEST_SIZE = 32
ANY_REVISION = 0xFFFF
WP_PIN_DISABLED = 0xEE
V2_FIRST_COUNT = 4
ELF_MAGIC = b"\x7fELF"  # of the files that images are made from
FOLD = 0x4000


@dataclass(frozen=True)
class Segment:
    """Bytes and the address they are loaded or mapped to. ``offset``: of ``data`` in the file."""

    address: int
    data: bytes = field(repr=False)
    offset: int = field(default=0, compare=False)

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + len(self.data)


class ExtendedHeader(NamedTuple):
    """The 16 bytes after the header on all chips except the ESP8266. Revisions are ``major * 100 + minor``."""

    chip_id: int
    min_revision_legacy: int = 0
    min_revision: int = 0
    max_revision: int = ANY_REVISION
    hash_flag: int = 1
    wp_pin: int = WP_PIN_DISABLED
    drive: bytes = bytes(3)
    reserved: bytes = bytes(4)

    @property
    def hash_appended(self) -> bool:
        """Whether a SHA-256 follows the checksum."""
        return self.hash_flag == 1


@dataclass(frozen=True)
class IromPart:
    """The start of an ESP8266 version 2 image: a first header and the mapped code."""

    mode_code: int
    size_frequency: int
    entry: int
    segment: Segment
    segment_count: int = V2_FIRST_COUNT


@dataclass(frozen=True, kw_only=True)
class Image:
    """One firmware image. ``fill``, ``checksum``, ``digest`` and ``crc`` have the values in the file, so that building
    it gives the same bytes.

    ``checksum`` None: compute all of these when building. ``trailing`` is whatever follows (signatures, a file system,
    a second image). ``*_valid``: the results of the checks; None if the image does not have that field.
    """

    mode_code: int
    size_frequency: int
    entry: int
    segments: tuple[Segment, ...]
    extended: ExtendedHeader | None = None
    irom: IromPart | None = None
    fill: bytes = field(default=b"", repr=False)
    checksum: int | None = None
    digest: bytes | None = None
    crc: bytes | None = None
    trailing: bytes = field(default=b"", repr=False)
    checksum_valid: bool = field(default=True, compare=False)
    digest_valid: bool | None = field(default=None, compare=False)
    crc_valid: bool | None = field(default=None, compare=False)

    @property
    def version(self) -> int:
        """1 or 2 for the formats of the ESP8266, 3 for that of all later chips."""
        if self.extended is not None:
            return 3
        return 1 if self.irom is None else 2

    @property
    def chip_id(self) -> int | None:
        """The chip id in the header; None: the ESP8266's formats do not have it."""
        return None if self.extended is None else self.extended.chip_id

    @property
    def size_code(self) -> int:
        """The flash size's code: the high nibble of header byte 3, in place."""
        return self.size_frequency & 0xF0

    @property
    def frequency_code(self) -> int:
        """The flash frequency's code."""
        return self.size_frequency & 0x0F

    @property
    def intact(self) -> bool:
        """Whether checksum, SHA-256 and CRC are correct."""
        return (
            self.checksum_valid and self.digest_valid is not False and self.crc_valid is not False
        )


def compute_checksum(segments: Iterable[Segment]) -> int:
    """XOR of all payload bytes and the seed: the byte before the next 16-byte boundary."""
    value = CHECKSUM_SEED
    for segment in segments:
        value ^= _xor(segment.data)
    return value


def _xor(data: bytes) -> int:
    """XOR of all bytes, by folding integers: far faster than a loop over bytes. In blocks, since huge integers are slow."""
    view, size, word = memoryview(data), min(len(data), FOLD), 0
    for at in range(0, len(data), FOLD):
        word ^= int.from_bytes(view[at : at + FOLD], "little")
    while size > 1:
        half = (size + 1) // 2
        word = (word >> (8 * half)) ^ (word & ((1 << (8 * half)) - 1))
        size = half
    return word
