"""Merge blobs into one file: raw with gaps filled, UF2, or Intel HEX. ``split.py`` takes such files apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from espwire.blob import Blob
from espwire.chips.registry import find_by_image_id, load_chip
from espwire.errors import ImageError, UsageError
from espwire.image.codec import parse, patch_header
from espwire.image.header import HeaderSettings
from espwire.image.hex import TOP, build_hex
from espwire.image.uf2 import build_uf2

if TYPE_CHECKING:
    from espwire.chips.model import Chip

Format = Literal["raw", "uf2", "hex"]
LIMIT = 256 * 0x100000  # twice the largest flash


class MergeOptions(NamedTuple):
    """How to merge. ``target_offset``: where in flash the file will go; ``pad_to_size``: the flash's size in bytes."""

    format: Format = "raw"
    target_offset: int = 0
    pad_to_size: int | None = None
    chunk_size: int | None = None
    md5: bool = True
    settings: HeaderSettings = HeaderSettings()


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The finished file, the blobs in it with their final headers, and warnings."""

    format: Format
    data: bytes = field(repr=False)
    target_offset: int
    blobs: tuple[Blob, ...]
    warnings: tuple[str, ...] = ()


def merge_blobs(blobs: Iterable[Blob], chip: Chip, options: MergeOptions | None = None) -> Merged:
    """Merge ``blobs``. The image at the chip's bootloader offset gets the flash settings.

    :raises UsageError: blobs overlap or are out of range, the chip does not support a flash setting or has no UF2 family
    """
    options = options or MergeOptions()
    ordered = sorted(blobs, key=lambda blob: blob.address)
    _check(ordered, chip.flash.sector_size, options)
    warnings: list[str] = []
    patched = tuple(_patch(blob, chip, options.settings, warnings) for blob in ordered)
    if options.format == "hex":
        data = build_hex(patched)
    elif options.format == "uf2":
        data = _build_uf2(patched, chip, options)
    else:
        data = _build_raw(patched, options)
    return Merged(
        format=options.format,
        data=data,
        target_offset=options.target_offset,
        blobs=patched,
        warnings=tuple(warnings),
    )


def find_merge_chip(blobs: Iterable[Blob]) -> Chip:
    """The chip that all intact images among ``blobs`` are for.

    :raises UsageError: code ``merge-chip``: no image names a chip, or they are for several
    """
    chips: set[str] = set()
    for blob in blobs:
        try:
            image = parse(blob.data)
        except ImageError:
            continue
        name = find_by_image_id(image.chip_id) if image.checksum_valid else None
        if name is not None:
            chips.add(name)
    if len(chips) == 1:
        return load_chip(chips.pop())
    text = "no image among the files names its chip"
    if chips:
        text = f"the images are for different chips: {', '.join(sorted(chips))}"
    raise UsageError(text, hint="Select the chip with --chip.", code="merge-chip")


def _check(blobs: Sequence[Blob], sector: int, options: MergeOptions) -> None:
    if not blobs:
        raise UsageError("there is nothing to merge", hint="Pass pairs of an address and a file.")
    if blobs[0].address < options.target_offset:
        raise UsageError(
            f"{blobs[0].name} at {blobs[0].address:#x} is below the target offset {options.target_offset:#x}",
            hint="Leave --target-offset out, or set it to the lowest address.",
            code="merge-before-target",
        )
    for before, after in pairwise(blobs):
        if after.address < -(-before.end // sector) * sector:
            raise UsageError(
                f"{before.name} ({before.address:#x} to {before.end:#x}) and {after.name} at {after.address:#x} "
                "overlap: they share a flash sector",
                hint=f"Move one of them: flash is erased in sectors of {sector:#x} bytes.",
                code="merge-overlap",
            )
    last = max(blobs, key=lambda blob: blob.end)
    if last.end > TOP or (options.format == "raw" and last.end - options.target_offset > LIMIT):
        raise UsageError(
            f"{last.name} at {last.address:#x} is beyond the end of any flash",
            hint="Check the address. For a high address, use --target-offset or --format hex.",
            code="merge-size",
        )


def _patch(blob: Blob, chip: Chip, settings: HeaderSettings, warnings: list[str]) -> Blob:
    """The blob with the flash settings in its header, if it is an intact image at the bootloader offset."""
    if blob.address != chip.flash.bootloader_offset or settings.keep_all or not blob.data:
        return blob
    data, obstacle = patch_header(blob.data, chip, settings)
    if obstacle:
        warnings.append(f"the header of {blob.name} is left unchanged: {obstacle}")
    return replace(blob, data=data)


def _build_raw(blobs: Sequence[Blob], options: MergeOptions) -> bytes:
    pieces, at = [], options.target_offset
    for blob in blobs:
        pieces += [b"\xff" * (blob.address - at), blob.data]
        at = blob.end
    if options.pad_to_size is not None:
        pieces.append(b"\xff" * (options.pad_to_size - at))
    return b"".join(pieces)  # the only copy


def _build_uf2(blobs: Sequence[Blob], chip: Chip, options: MergeOptions) -> bytes:
    if chip.image.uf2_family is None:
        raise UsageError(
            f"the {chip.name} has no UF2 family id",
            hint="Merge to --format hex or raw.",
            code="merge-uf2-family",
        )
    return build_uf2(blobs, chip.image.uf2_family, chunk_size=options.chunk_size, md5=options.md5)
