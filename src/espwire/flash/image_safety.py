"""Finds images in the wrong place, other files where the chip boots from, and missing signatures. Pure.

Used for parts on their way into flash, and for parts that are merged into a file for flash.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espwire.chips.lookup import find_by_image_id, load_image_chip
from espwire.errors import ImageError
from espwire.flash.plan import Finding, Part
from espwire.image.contents import TABLE_MAGIC, find_contents, looks_encrypted
from espwire.image.descriptors import find_app_descriptor, find_boot_descriptor
from espwire.image.elf import is_flash
from espwire.image.file_kind import describe_kind
from espwire.image.parse import is_image, parse
from espwire.values import dataclass

if TYPE_CHECKING:
    from espwire.chips.lookup import AnyChip, ImageChip
    from espwire.device.security import SecurityInfo
    from espwire.image.contents import Found
    from espwire.image.model import Image

SECTOR = 0x1000
TABLE_ADDRESS = 0x8000  # of the partition table, by default


@dataclass(frozen=True)
class Bootloader:
    """A bootloader in a part, or a merged file that begins with one. ``at``: its flash address there."""

    at: int
    chip: ImageChip
    merged: bool


def cut_boot_part(part: Part, chip: AnyChip) -> Part | None:
    """What a part puts where the chip boots from; None: nothing."""
    offset = chip.flash.bootloader_offset
    if not part.address <= offset < part.end:
        return None
    return part if part.address == offset else replace(part, address=offset, data=part.data[offset - part.address :])


def find_place_problems(part: Part, chip: AnyChip, security: SecurityInfo | None) -> tuple[Finding, ...]:
    """Findings for a part that is meant for another address, or not for where the chip boots from.

    :param security: of the chip, if known: one with flash encryption boots from encrypted data
    """
    return find_misplaced(part, chip) or find_boot_content_problems(part, chip, security)


def find_misplaced(part: Part, chip: AnyChip) -> tuple[Finding, ...]:
    """The finding for a bootloader or a merged file at another address than its own."""
    loader = find_bootloader(part)
    if loader is None or (loader.chip.image.format == chip.image.format == "esp8266"):
        return ()  # an ESP8266 has images at many addresses
    right = loader.chip.flash.bootloader_offset
    if loader.at == chip.flash.bootloader_offset or not (loader.merged or loader.at in _find_boot_offsets()):
        return ()  # at the chip's own offset, other checks apply
    what = "a merged file that begins with the bootloader" if loader.merged else "a bootloader"
    text = f"{part.label} at {part.address:#x} is {what} for {loader.chip.id}"
    if loader.chip.id == chip.id:
        text += f", which belongs at {right:#x}: give {part.address - loader.at + right:#x} as its address"
    else:
        text += f", not for {chip.id}; the {loader.chip.name} boots from {right:#x}"
    return (Finding("wrong-offset", text, fatal=True, consent="wrong-offset"),)


def find_bootloader(part: Part) -> Bootloader | None:
    """The bootloader at the beginning of a part, or behind blank bytes where a chip boots from."""
    for start in sorted(_find_boot_offsets()):
        if start and part.data[:start].strip(b"\xff"):
            return None
        if not is_image(part.data[start : start + 1]):
            continue
        try:
            image = parse(part.data[start:])
        except ImageError:
            return None
        chip = _find_chip(image)
        if chip is None:
            return None
        table = start + TABLE_ADDRESS - chip.flash.bootloader_offset
        merged = part.data[table : table + len(TABLE_MAGIC)] == TABLE_MAGIC
        if not (merged or _is_bootloader(image, chip)):
            return None
        return Bootloader(part.address + start, chip, merged)
    return None


def _find_boot_offsets() -> frozenset[int]:
    """Where chips boot from."""
    from espwire.chips.image_index import IMAGE_CHIPS

    return frozenset(chip.flash.bootloader_offset for chip in IMAGE_CHIPS.values())


def _find_chip(image: Image) -> ImageChip | None:
    if image.extended is None:
        return load_image_chip("esp8266") if image.checksum_valid else None
    name = find_by_image_id(image.extended.chip_id)
    return None if name is None else load_image_chip(name)


def _is_bootloader(image: Image, chip: ImageChip) -> bool:
    """An image that says so, or that has nothing in mapped flash and does not say that it is an application."""
    if find_boot_descriptor(image) is not None:
        return True
    mapped = any(segment.data and is_flash(chip, segment.address) for segment in image.segments)
    return not mapped and image.irom is None and find_app_descriptor(image) is None


def find_boot_content_problems(part: Part, chip: AnyChip, security: SecurityInfo | None = None) -> tuple[Finding, ...]:
    """Findings for a part that puts something else than an image where the chip boots from."""
    boot = cut_boot_part(part, chip)
    if boot is None or not boot.data or is_image(boot.data):
        return ()
    place = f"{chip.flash.bootloader_offset:#x}, where the {chip.name} boots from"
    if not boot.data[:SECTOR].strip(b"\xff"):
        return (Finding("boot-blank", f"{part.label} is blank at {place}: the chip cannot start from flash"),)
    encrypted_flash = security is None or not security.known or security.flash_encryption
    if encrypted_flash and not part.encrypted and looks_encrypted(boot.data):
        return ()
    verb = "is" if boot is part else "holds"
    text = f"{part.label} {verb} {describe_kind(boot.data)}, not an image, but is to be written to {place}"
    return (Finding("not-an-image", text, fatal=True, consent="not-an-image"),)


def find_unsigned(part: Part, chip: AnyChip, security: SecurityInfo | None) -> tuple[Finding, ...]:
    """Findings for images that a chip with secure boot will not start."""
    if security is None or not (security.secure_boot or security.secure_boot_v1):
        return ()
    version = 2 if security.secure_boot else 1
    found = []
    for item in find_contents(part.data, chip, start=part.address):
        if item.image is None or item.image.extended is None:
            continue
        address = part.address + item.offset
        if version == 1 and address == chip.flash.bootloader_offset:
            continue  # version 1 checks it by a digest in flash, not by a signature
        if (why := _find_signature_fault(item, version)) is not None:
            text = f"the image in {part.label} for {address:#x} {why}, but secure boot is enabled: it will not start"
            found.append(Finding("unsigned-image", text, fatal=True, consent="unsigned-image"))
    return tuple(found)


def _find_signature_fault(item: Found, version: int) -> str | None:
    signatures = [signature for signature in item.signatures if signature.version == version]
    if not signatures:
        other = f" by version {3 - version} of secure boot only" if item.signatures else ""
        return f"is signed{other}" if other else "is not signed"
    if not any(signature.intact for signature in signatures):
        return "has no signature that fits its content"
    return None
