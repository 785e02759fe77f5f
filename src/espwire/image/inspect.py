"""Inspect a firmware file: its images, their fields and checks, and what else it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from espwire.blob import Blob
from espwire.chips.index import NAMES
from espwire.chips.registry import find_by_image_id, find_by_uf2_family, load_chip
from espwire.errors import ImageError, name_file
from espwire.image.codec import is_image, pack, parse
from espwire.image.descriptors import (
    AppDescriptor,
    BootDescriptor,
    find_app_descriptor,
    find_boot_descriptor,
)
from espwire.image.model import SEGMENT_HEADER, Image, Segment, compute_checksum
from espwire.image.read_any import FormatChoice, InputFile, find_blobs, read_any
from espwire.image.scan import Region, find_regions, looks_encrypted
from espwire.image.signature import Signature, find_signatures
from espwire.sizes import SECTOR

if TYPE_CHECKING:
    from espwire.chips.model import Chip

Format = Literal["image", "merged", "hex", "srecord", "uf2"]


class SegmentInfo(NamedTuple):
    """A segment: its load address, its offset in the file, the memory at its address.

    ``hidden``: after the checksum, where the ROM does not see it (an image built with a RAM-only header).
    """

    address: int
    size: int
    offset: int
    memory: tuple[str, ...]
    hidden: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """One image. ``chip`` is an id, None if unknown; settings are None if the header's code is invalid.

    ``actual_*``: the correct value, if the stored one is wrong.
    """

    image: Image = field(repr=False)
    chip: str | None
    flash_mode: str | None
    flash_size: str | None
    flash_frequency: str | None
    segments: tuple[SegmentInfo, ...]
    actual_checksum: int | None = None
    actual_digest: bytes | None = None
    app: AppDescriptor | None = None
    bootloader: BootDescriptor | None = None
    signatures: tuple[Signature, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Item(Region):
    """A region of the file with its checks. ``offset``: a flash address, if the file has addresses."""

    info: ImageInfo | None = None
    problems: tuple[str, ...] = ()

    @property
    def intact(self) -> bool:
        """Whether all checks pass."""
        return not self.problems and (self.info is None or not self.info.problems)


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """A whole file."""

    name: str
    size: int
    format: Format
    items: tuple[Item, ...]

    @property
    def intact(self) -> bool:
        """Whether all checks of all items pass."""
        return all(item.intact for item in self.items)

    @property
    def problems(self) -> tuple[str, ...]:
        """Failed checks, each with its offset."""
        return tuple(
            f"{item.name or item.kind} at {item.offset:#x}: {problem}"
            for item in self.items
            for problem in (*item.problems, *(item.info.problems if item.info else ()))
        )


def inspect_bytes(
    data: bytes,
    name: str = "the file",
    chip: Chip | None = None,
    *,
    format: FormatChoice = "auto",
) -> FileInfo:
    """Inspect an image, a merged file or dump, or Intel HEX, S-record or UF2 with any of these.

    :param chip: whose formats and memory map to use; default: detected
    :param format: the file's format if it is not to be recognised
    :raises ImageError: it contains no image, or one with a broken structure; wrong checksums are ``problems``
    :raises HexError: broken Intel HEX or S-record
    """
    file = read_any(data, name, format)
    kind: Format = "image"
    if file.format != "raw" and file.format != "elf":  # noqa: PLR1714  mypy understands it
        kind = file.format
    blobs = _find_blobs(file, chip)
    with name_file(name):
        items = tuple(item for blob, own in blobs for item in _inspect_blob(blob, own))
    if not any(item.info for item in items):
        raise _no_image(blobs[0][0].data if blobs else b"", name, items)
    if kind == "image" and (len(items) > 1 or items[0].offset):
        kind = "merged"
    return FileInfo(name=name, size=len(data), format=kind, items=items)


def _find_blobs(file: InputFile, chip: Chip | None) -> list[tuple[Blob, Chip | None]]:
    """The ranges of flash content, each with its chip. UF2 for several chips: those of all, if ``chip`` is None."""
    if not file.addressed:
        return [(Blob(0, file.data), chip)]
    if chip is None and file.families:
        return [
            (blob, load_chip(chips[0]) if chips else None)
            for family, blobs in file.families.items()
            for chips in [() if family is None else find_by_uf2_family(family)]
            for blob in blobs
        ]
    return [(blob, chip) for blob in find_blobs(file, None if chip is None else chip.id)]


def _no_image(data: bytes, name: str, items: tuple[Item, ...]) -> ImageError:
    if any(item.kind == "partition-table" for item in items):
        return ImageError(
            f"{name} is a partition table, not an image",
            hint="Use `espwire partitions show` to print it.",
            code="image-is-table",
        )
    if looks_encrypted(data):
        return ImageError(
            f"{name} does not look like an image; its high entropy suggests encrypted or compressed data",
            hint="Inspect the file from before encryption.",
            code="image-encrypted",
        )
    return ImageError(
        f"{name} is not a firmware image: it begins with {data[0]:#04x}, not 0xe9"
        if data
        else f"{name} is not a firmware image: it is empty",
        hint="Pass the .bin file from the build.",
        code="image-magic" if data else "image-empty",
    )


def _inspect_blob(blob: Blob, chip: Chip | None) -> Iterator[Item]:
    """The image that the blob is, or everything found in it."""
    base, data = blob.address, blob.data
    image = parse(data, chip) if is_image(data) else None
    regions = find_regions(data, chip) if image is None or len(image.trailing) >= SECTOR else ()
    if image is not None and (len(regions) < 2 or regions[0].offset):
        end = len(data) - len(image.trailing)
        signatures = find_signatures(data, end) if image.extended is not None else ()
        info = inspect_image(image, chip, signatures)
        kind = "app" if info.app else "bootloader" if info.bootloader else "image"
        yield Item(kind=kind, offset=base, size=len(data), image=image, info=info)
        return
    for region in regions:
        yield _inspect_region(region, base, chip)


def _inspect_region(region: Region, base: int, chip: Chip | None) -> Item:
    info: ImageInfo | None = None
    problems: tuple[str, ...] = ()
    if region.image is not None:
        info = inspect_image(region.image, chip, region.signatures)
    elif region.kind == "app":
        problems = (f"partition {region.name} begins with an image that is broken or truncated",)
    elif region.table is not None and region.table.md5_valid is False:
        problems = ("the MD5 of the partition table is wrong",)
    region = replace(region, offset=base + region.offset)
    return Item(**vars(region), info=info, problems=problems)


def inspect_image(
    image: Image, chip: Chip | None = None, signatures: tuple[Signature, ...] = ()
) -> ImageInfo:
    """Fields and checks of one image."""
    own = find_by_image_id(image.chip_id)
    if chip is None and own is not None:
        chip = load_chip(own)
    flash = chip.flash if chip is not None else None
    info = ImageInfo(
        image=image,
        chip=chip.id if chip is not None else None,
        flash_mode=find_code(flash.modes, image.mode_code) if flash else None,
        flash_size=find_code(flash.sizes, image.size_code) if flash else None,
        flash_frequency=find_code(flash.frequencies, image.frequency_code) if flash else None,
        segments=tuple(_segments(image, chip)),
        actual_checksum=None if image.checksum_valid else compute_checksum(image.segments),
        actual_digest=_compute_digest(image) if image.digest_valid is False else None,
        app=find_app_descriptor(image),
        bootloader=find_boot_descriptor(image),
        signatures=signatures,
    )
    return replace(info, warnings=tuple(_warnings(info, own)), problems=tuple(_problems(info)))


def _compute_digest(image: Image) -> bytes:
    return hashlib.sha256(pack(replace(image, digest=None, trailing=b""))).digest()


def find_code(codes: Mapping[str, int], code: int) -> str | None:
    """The first name of a code in a header."""
    return next((name for name, value in codes.items() if value == code), None)


def find_hidden_segments(image: Image) -> tuple[Segment, ...]:
    """The segments after the checksum of an image with a RAM-only header; empty for other images."""
    if image.extended is None or image.extended.hash_appended or not image.trailing:
        return ()
    segments: list[Segment] = []
    last = image.segments[-1]
    start = (last.offset + len(last.data)) // 16 * 16 + 16
    at = 0
    while at + SEGMENT_HEADER.size <= len(image.trailing):
        address, size = SEGMENT_HEADER.unpack_from(image.trailing, at)
        at += SEGMENT_HEADER.size
        if size % 4 or not size or at + size > len(image.trailing):
            return ()
        segments.append(Segment(address, image.trailing[at : at + size], start + at))
        at += size
    return tuple(segments) if at == len(image.trailing) else ()


def _segments(image: Image, chip: Chip | None) -> Iterator[SegmentInfo]:
    first = () if image.irom is None else (image.irom.segment,)
    hidden = find_hidden_segments(image)
    for number, segment in enumerate((*first, *image.segments, *hidden)):
        yield SegmentInfo(
            address=segment.address,
            size=len(segment.data),
            offset=segment.offset,
            memory=()
            if chip is None or (first and number == 0)
            else chip.memory.find_names(segment.address),
            hidden=number >= len(first) + len(image.segments),
        )


def _warnings(info: ImageInfo, own: str | None) -> Iterator[str]:
    image = info.image
    if info.chip is not None:
        for value, what, code in (
            (info.flash_mode, "mode", image.mode_code),
            (info.flash_size, "size", image.size_code >> 4),
            (info.flash_frequency, "frequency", image.frequency_code),
        ):
            if value is None:
                yield f"the flash {what} code {code:#x} in the header is invalid"
    if own is not None and info.chip is not None and own != info.chip:
        yield f"the header is for {NAMES[own]}, but is inspected as {NAMES[info.chip]}"
    irom = image.irom
    if irom is not None and (irom.mode_code, irom.size_frequency) != (
        image.mode_code,
        image.size_frequency,
    ):
        yield "the flash settings of the first header differ from those of the second, which are shown"


def _problems(info: ImageInfo) -> Iterator[str]:
    image = info.image
    if info.actual_checksum is not None:
        yield f"the checksum is {image.checksum or 0:#04x} and should be {info.actual_checksum:#04x}"
    if image.digest_valid is False:
        yield "the SHA-256 is wrong"
    if image.crc_valid is False:
        yield "the CRC-32 is wrong"
    if image.extended is not None and find_by_image_id(image.chip_id) is None:
        yield f"no known chip has the image chip id {image.extended.chip_id}"
    for signature in info.signatures:
        if signature.crc_valid is False:
            yield f"the CRC of signature block {signature.block} is wrong"
        elif signature.digest_valid is False:
            yield f"signature block {signature.block} does not match the image"
