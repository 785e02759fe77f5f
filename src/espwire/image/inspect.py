"""What a firmware file holds and whether its checks hold, as frozen values. Pure; cli/image_text.py draws them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from espwire.blob import Blob
from espwire.chips.index import NAMES
from espwire.chips.registry import find_by_image_id, find_by_uf2_family, load_chip
from espwire.errors import ImageError, name_file
from espwire.image.codec import is_image, parse
from espwire.image.descriptors import (
    AppDescriptor,
    BootDescriptor,
    find_app_descriptor,
    find_boot_descriptor,
)
from espwire.image.model import SEGMENT_HEADER, Image, Segment, compute_checksum
from espwire.image.read_any import FormatChoice, InputFile, find_blobs, read_any
from espwire.image.scan import Found, Kind, find_contents, looks_encrypted
from espwire.image.signature import Signature, find_signatures
from espwire.sizes import SECTOR

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.image.partition_table import PartitionTable

Format = Literal["image", "merged", "hex", "srecord", "uf2"]


@dataclass(frozen=True, kw_only=True)
class SegmentInfo:
    """A segment: where it is loaded or mapped, where it stands in the file, what memory that is.

    ``hidden``: behind the checksum, where the ROM does not see it (an image built with a RAM-only header).
    """

    address: int
    size: int
    offset: int
    memory: tuple[str, ...]
    hidden: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """One image. ``chip`` is an id, None if unknown; settings are None where the header's code means nothing.

    ``*_valid`` None: the image has no such thing. ``actual_*`` are given only where what is stored is wrong.
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
class Item:
    """Something that was found in the file. ``offset`` is its address where the file gives one, else its place."""

    kind: Kind
    offset: int
    size: int
    name: str = ""
    info: ImageInfo | None = None
    table: PartitionTable | None = None
    problems: tuple[str, ...] = ()

    @property
    def intact(self) -> bool:
        """Whether all that can be checked is right."""
        return not self.problems and (self.info is None or not self.info.problems)


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """A whole file. ``intact``: every check of everything in it holds."""

    name: str
    size: int
    format: Format
    items: tuple[Item, ...]

    @property
    def intact(self) -> bool:
        """Whether every check holds."""
        return all(item.intact for item in self.items)

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not hold, each with its place."""
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
    """What ``data`` is: one image, several in a merged file or dump, Intel HEX, S-record or UF2 with any of these.

    :param chip: whose formats and memory map to use; None finds it out
    :param format: what the file is, if not to be found out
    :raises ImageError: there is no image in it, or one with a broken structure; wrong sums are ``problems``
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
    """Each range of flash content with its chip. UF2 for several chips gives those of all, if ``chip`` is None."""
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
            f"{name} holds a partition table and no image",
            hint="`espwire partitions show` tells what is in a partition table.",
            code="image-is-table",
        )
    if looks_encrypted(data):
        return ImageError(
            f"{name} looks encrypted: it begins as no image does and is as even as only encrypted or packed data are",
            hint="Inspect the file as it was before encryption.",
            code="image-encrypted",
        )
    return ImageError(
        f"{name} holds no firmware image: it "
        + (f"begins with {data[0]:#04x}, not 0xe9" if data else "is empty"),
        hint="Give the .bin file that the build made.",
        code="image-magic" if data else "image-empty",
    )


def _inspect_blob(blob: Blob, chip: Chip | None) -> Iterator[Item]:
    """The image that the blob is, or everything found in it."""
    base, data = blob.address, blob.data
    image = parse(data, chip) if is_image(data) else None
    if image is not None and len(image.trailing) < SECTOR:
        yield _inspect_single(base, data, image, chip)
        return
    found = find_contents(data, chip)
    if image is not None and (len(found) < 2 or found[0].offset):
        yield _inspect_single(base, data, image, chip)
        return
    for item in found:
        yield _inspect_found(base, data, item, chip)


def _inspect_single(base: int, data: bytes, image: Image, chip: Chip | None) -> Item:
    end = len(data) - len(image.trailing)
    signatures = find_signatures(data, end) if image.extended is not None else ()
    info = inspect_image(image, data, chip, signatures)
    kind: Kind = "app" if info.app else "bootloader" if info.bootloader else "image"
    return Item(kind=kind, offset=base, size=len(data), info=info)


def _inspect_found(base: int, data: bytes, found: Found, chip: Chip | None) -> Item:
    info: ImageInfo | None = None
    problems: tuple[str, ...] = ()
    if found.image is not None:
        content = data[found.offset : found.end]
        info = inspect_image(found.image, content, chip, found.signatures)
    elif found.kind == "app":
        problems = (f"partition {found.name} begins with an image that is broken or cut short",)
    table = found.table
    if table is not None and table.md5_valid is False:
        problems = ("the MD5 of the partition table is wrong",)
    return Item(
        kind=found.kind,
        offset=base + found.offset,
        size=found.size,
        name=found.name,
        info=info,
        table=table,
        problems=problems,
    )


def inspect_image(
    image: Image,
    data: bytes,
    chip: Chip | None = None,
    signatures: tuple[Signature, ...] = (),
) -> ImageInfo:
    """All there is to tell of one image that was parsed from the beginning of ``data``."""
    own = find_by_image_id(image.chip_id)
    if chip is None and own is not None:
        chip = load_chip(own)
    flash = chip.flash if chip is not None else None
    mode = find_code(flash.modes, image.mode_code) if flash else None
    size = find_code(flash.sizes, image.size_code) if flash else None
    frequency = find_code(flash.frequencies, image.frequency_code) if flash else None
    info = ImageInfo(
        image=image,
        chip=chip.id if chip is not None else None,
        flash_mode=mode,
        flash_size=size,
        flash_frequency=frequency,
        segments=tuple(_segments(image, chip)),
        actual_checksum=None if image.checksum_valid else compute_checksum(image.segments),
        actual_digest=_actual_digest(image, data),
        app=find_app_descriptor(image),
        bootloader=find_boot_descriptor(image),
        signatures=signatures,
    )
    return replace(info, warnings=tuple(_warnings(info, own)), problems=tuple(_problems(info)))


def find_code(codes: Mapping[str, int], code: int) -> str | None:
    """The first name of a header's code."""
    return next((name for name, value in codes.items() if value == code), None)


def find_memory(chip: Chip, address: int) -> tuple[str, ...]:
    """Names of the memories that have ``address``, as the chip's memory map has them."""
    names = (region.name for region in chip.memory.map if region.start <= address < region.end)
    return tuple(dict.fromkeys(names))


def find_hidden_segments(image: Image) -> tuple[Segment, ...]:
    """The segments behind the checksum of an image with a RAM-only header; none if it is no such image."""
    if image.extended is None or image.extended.hash_appended or not image.trailing:
        return ()
    found: list[Segment] = []
    last = image.segments[-1]
    start = (last.offset + len(last.data)) // 16 * 16 + 16
    at = 0
    while at + SEGMENT_HEADER.size <= len(image.trailing):
        address, size = SEGMENT_HEADER.unpack_from(image.trailing, at)
        at += SEGMENT_HEADER.size
        if size % 4 or not size or at + size > len(image.trailing):
            return ()
        found.append(Segment(address, image.trailing[at : at + size], start + at))
        at += size
    return tuple(found) if at == len(image.trailing) else ()


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
            else find_memory(chip, segment.address),
            hidden=number >= len(first) + len(image.segments),
        )


def _actual_digest(image: Image, data: bytes) -> bytes | None:
    if image.digest is None or image.digest_valid is not False:
        return None
    end = len(data) - len(image.trailing) - len(image.digest)
    return hashlib.sha256(memoryview(data)[:end]).digest()


def _warnings(info: ImageInfo, own: str | None) -> Iterator[str]:
    image = info.image
    if info.chip is not None:
        for value, what, code in (
            (info.flash_mode, "mode", image.mode_code),
            (info.flash_size, "size", image.size_code >> 4),
            (info.flash_frequency, "frequency", image.frequency_code),
        ):
            if value is None:
                yield f"the header's flash {what} code {code:#x} means nothing"
    if own is not None and info.chip is not None and own != info.chip:
        yield f"the header says {NAMES[own]}, looked at as {NAMES[info.chip]}"
    part = image.irom
    if part is not None and (part.mode_code, part.size_frequency) != (
        image.mode_code,
        image.size_frequency,
    ):
        yield "the first header's flash settings differ from the second's, which are shown"


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
            yield f"signature block {signature.block} was made for other bytes than these"
