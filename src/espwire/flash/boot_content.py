"""Checks of what a file puts where the chip boots from, for files that are written to flash or merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from espwire.blob import Blob
from espwire.chips.index import CHIPS
from espwire.chips.registry import find_by_image_id, load_chip
from espwire.errors import ImageError
from espwire.flash.findings import Finding, build_fatal
from espwire.image.codec import is_image, parse
from espwire.image.descriptors import find_app_descriptor, find_boot_descriptor
from espwire.image.model import ROW_MAGIC, Image
from espwire.image.signature import is_digest_file
from espwire.sizes import SECTOR

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.security import SecurityInfo

BOOT_OFFSETS = sorted({entry.bootloader_offset for entry in CHIPS})
TABLE_ADDRESS = 0x8000  # of the partition table, by default


class ParsedImages:
    """The images in the data of one plan, each parsed once, in the format of ``chip`` if it fits.

    Keyed by the bytes object that holds an image and the offset in it.
    """

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self._images: dict[tuple[int, int], tuple[bytes, Image | ImageError]] = {}
        self._foreign: dict[tuple[int, int], Image | ImageError] = {}

    def parse(self, data: bytes, start: int = 0) -> Image | ImageError:
        """The image for the chip at ``start``, or why there is none."""
        key = id(data), start
        if key not in self._images:
            image = None if self.chip.image.extended_header else self.parse_any(data, start)
            if not isinstance(image, Image) or image.extended is not None:
                image = _parse(data[start:], self.chip)
            self._images[key] = data, image  # with the data, so that its id stays valid
        return self._images[key][1]

    def parse_any(self, data: bytes, start: int = 0) -> Image | ImageError:
        """The image for any chip at ``start``, or why there is none."""
        if self.chip.image.extended_header:
            image = self.parse(data, start)
            if isinstance(image, Image) and image.checksum_valid:
                return image
        key = id(data), start
        if key not in self._foreign:
            self._foreign[key] = _parse(data[start:], None)
        return self._foreign[key]

    def put(self, data: bytes, image: Image) -> None:
        """Enter data whose image is known without parsing."""
        self._images[id(data), 0] = data, image


def _parse(data: bytes, chip: Chip | None) -> Image | ImageError:
    try:
        return parse(data, chip)
    except ImageError as error:
        return error


def find_boot_start(blob: Blob, chip: Chip) -> int | None:
    """Where in ``blob`` the data begins that the chip boots from; None: nowhere."""
    offset = chip.flash.bootloader_offset
    return offset - blob.address if blob.address <= offset < blob.end else None


class Bootloader(NamedTuple):
    """A bootloader in a blob, or a merged file that begins with one. ``at``: its flash address there."""

    at: int
    chip: Chip
    merged: bool


def find_misplaced(
    blob: Blob, chip: Chip, images: ParsedImages | None = None
) -> tuple[Finding, ...]:
    """The finding for a bootloader or a merged file at another address than its own."""
    if chip.image.secure_boot_v1 and blob.address and is_digest_file(blob.data):
        text = f"{blob.label} is a bootloader with its digest for secure boot version 1, which belongs at 0x0, not at {blob.address:#x}"
        return (build_fatal("wrong-offset", text),)
    loader = find_bootloader(blob, images or ParsedImages(chip))
    if loader is None or not (loader.chip.image.extended_header or chip.image.extended_header):
        return ()  # an ESP8266 has images at many addresses
    right = loader.chip.flash.bootloader_offset
    what = "a merged file that begins with the bootloader" if loader.merged else "a bootloader"
    text = f"{blob.label} at {blob.address:#x} is {what} for {loader.chip.id}"
    if loader.chip.id == chip.id:
        text += f", which belongs at {right:#x}: give {blob.address - loader.at + right:#x} as its address"
    else:
        text += f", not for {chip.id}; the {loader.chip.name} boots from {right:#x}"
    return (build_fatal("wrong-offset", text),)


def find_bootloader(blob: Blob, images: ParsedImages) -> Bootloader | None:
    """The bootloader at the beginning of a blob, or behind blank bytes where a chip boots from.

    None at the offset of ``images.chip``, where other checks apply, and where no chip boots, except in merged files.
    """
    for start in BOOT_OFFSETS:
        if start and blob.data[:start].strip(b"\xff"):
            return None
        if not is_image(blob.data[start : start + 1]):
            continue
        at = blob.address + start
        if at == images.chip.flash.bootloader_offset:
            return None
        if at not in BOOT_OFFSETS and not _may_be_merged(blob.data, start):
            return None  # most applications, without the time to parse them
        image = images.parse_any(blob.data, start)
        if isinstance(image, ImageError):
            return None
        chip = _find_chip(image)
        if chip is None:
            return None
        table = start + TABLE_ADDRESS - chip.flash.bootloader_offset
        merged = blob.data[table : table + len(ROW_MAGIC)] == ROW_MAGIC
        if not (merged or _is_bootloader(image, chip)):
            return None
        return Bootloader(at, chip, merged)
    return None


def _may_be_merged(data: bytes, start: int) -> bool:
    """Whether a partition table is where one follows the bootloader of any chip."""
    tables = (start + TABLE_ADDRESS - offset for offset in BOOT_OFFSETS)
    return any(data[table : table + len(ROW_MAGIC)] == ROW_MAGIC for table in tables)


def _find_chip(image: Image) -> Chip | None:
    if image.extended is None and not image.checksum_valid:
        return None
    chip_id = find_by_image_id(image.chip_id)
    return None if chip_id is None else load_chip(chip_id)


def _is_bootloader(image: Image, chip: Chip) -> bool:
    """An image whose descriptor names it, or that has nothing in mapped flash and no application descriptor."""
    if find_boot_descriptor(image) is not None:
        return True
    mapped = any(
        segment.data and chip.mapped_flash.holds(segment.address) for segment in image.segments
    )
    return not mapped and image.irom is None and find_app_descriptor(image) is None


def find_boot_content_problems(
    blob: Blob, chip: Chip, security: SecurityInfo | None = None
) -> tuple[Finding, ...]:
    """Findings for a blob that puts something else than an image where the chip boots from.

    :param security: of the chip, if known: one with flash encryption boots from encrypted data
    """
    start = find_boot_start(blob, chip)
    if start is None or not blob.data or is_image(blob.data[start : start + 1]):
        return ()
    place = f"{chip.flash.bootloader_offset:#x}, where the {chip.name} boots from"
    from espwire.image.scan import describe_kind, looks_encrypted

    if not blob.data[start : start + SECTOR].strip(b"\xff"):
        text = f"{blob.label} is blank at {place}: the chip cannot start from flash"
        return (Finding("boot-blank", text),)
    encrypted_flash = security is None or not security.known or security.flash_encryption
    if encrypted_flash and not blob.encrypted and looks_encrypted(blob.data[start:]):
        return ()
    verb = "holds" if start else "is"
    kind = describe_kind(blob.data[start:])
    text = f"{blob.label} {verb} {kind}, not an image, but would be written to {place}"
    return (build_fatal("not-an-image", text),)
