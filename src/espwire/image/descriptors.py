"""Application and bootloader descriptors: what the build stored in an image about itself."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from espwire.text import escape

if TYPE_CHECKING:
    from espwire.image.model import Image

APP_MAGIC, BOOT_MAGIC = 0xABCD5432, 0x50
APP = struct.Struct("<II8s32s32s16s16s32s32sHHB3s72s")
BOOT = struct.Struct("<B2sBI32s24s16s")


class AppDescriptor(NamedTuple):
    """256 bytes at the start of an application's first segment in flash. Revisions: ``major * 100 + minor``."""

    secure_version: int
    version: str
    project: str
    time: str
    date: str
    idf_version: str
    elf_sha256: bytes
    min_efuse_block_revision: int
    max_efuse_block_revision: int
    mmu_page_size: int | None


class BootDescriptor(NamedTuple):
    """80 bytes at the start of a bootloader's first segment."""

    secure_version: int
    version: int
    idf_version: str
    date_time: str


def find_app_descriptor(image: Image) -> AppDescriptor | None:
    """The application's descriptor, if the image has one."""
    for segment in image.segments:
        if (
            len(segment.data) >= APP.size
            and int.from_bytes(segment.data[:4], "little") == APP_MAGIC
        ):
            return parse_app_descriptor(segment.data)
    return None


def parse_app_descriptor(data: bytes) -> AppDescriptor:
    """The descriptor at the start of ``data``, which must be long enough."""
    _, secure, _, version, project, time, date, idf, sha, least, most, page, _, _ = APP.unpack_from(
        data
    )
    return AppDescriptor(
        secure_version=secure,
        version=_text(version),
        project=_text(project),
        time=_text(time),
        date=_text(date),
        idf_version=_text(idf),
        elf_sha256=sha,
        min_efuse_block_revision=least,
        max_efuse_block_revision=most,
        mmu_page_size=1 << page if 0 < page < 32 else None,
    )


def find_boot_descriptor(image: Image) -> BootDescriptor | None:
    """The bootloader descriptor, if the image has one. Its magic is a single byte, so its texts are checked, too."""
    segment = image.segments[0]
    if image.extended is None or len(segment.data) < BOOT.size:
        return None
    magic, reserved, secure, version, idf, when, _ = BOOT.unpack_from(segment.data)
    if magic != BOOT_MAGIC or reserved != bytes(2):
        return None
    if not all(text.split(b"\0")[0].isascii() for text in (idf, when)):
        return None
    return BootDescriptor(
        secure_version=secure,
        version=version,
        idf_version=_text(idf),
        date_time=_text(when),
    )


def _text(raw: bytes) -> str:
    """The text up to the zero, with escapes for unprintable characters; empty for erased flash."""
    if not raw.strip(b"\xff"):
        return ""
    return escape(raw.split(b"\0", maxsplit=1)[0].decode("utf-8", "surrogateescape"))
