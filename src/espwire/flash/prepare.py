"""Prepares files for a chip: which of them it gets, without which gaps, and with which flash settings in the header."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from espwire.blob import Blob, choose_for_chip
from espwire.errors import UsageError
from espwire.events import Note, Report, Warned, silent
from espwire.flash.boot_content import ParsedImages
from espwire.flash.model import BLANK, FlashTarget
from espwire.image.codec import find_patch_obstacle, pack, patch_image
from espwire.image.header import (
    DETECT,
    KEEP,
    HeaderSettings,
    find_codes,
    find_size_name,
    parse_size,
)
from espwire.image.model import Image
from espwire.sizes import SECTOR, Ranges, align_down, align_up, format_size, join_ranges

if TYPE_CHECKING:
    from espwire.image.build_file import BuildPlan


def list_build_blobs(build: BuildPlan, *, encrypt: bool = False) -> tuple[Blob, ...]:
    """The build's files, with the chips that they are for."""
    return tuple(
        replace(
            blob,
            encrypted=encrypt and blob.encrypted,
            chips=blob.chips if blob.one_of else build.chips,
        )
        for blob in build.blobs
    )


def merge_settings(first: HeaderSettings, second: HeaderSettings) -> HeaderSettings:
    """Each setting of ``first`` that is not ``keep``, else that of ``second``."""

    def pick(one: str, other: str) -> str:
        return other if one == KEEP else one

    return HeaderSettings(
        mode=pick(first.mode, second.mode),
        size=pick(first.size, second.size),
        frequency=pick(first.frequency, second.frequency),
    )


def find_stated_size(settings: HeaderSettings) -> int | None:
    """Bytes of flash that ``settings`` name; None: they leave it to the flash.

    :raises UsageError: not a size
    """
    return None if settings.size in (KEEP, DETECT) else parse_size(settings.size)


def prepare_blobs(
    blobs: Iterable[Blob],
    target: FlashTarget,
    settings: HeaderSettings,
    images: ParsedImages | None = None,
    *,
    report: Report = silent,
) -> tuple[Blob, ...]:
    """``blobs`` for this chip, with ``settings`` in the boot image's header; ``detect`` takes the size that the flash
    has. What files for several chips hold for others is left out.

    A chip that checks signatures gets its images unchanged.

    :raises UsageError: the chip has no such setting, or the flash size is to be detected and cannot be
    :raises DataError: a file for several chips has nothing for this one
    """
    blobs = choose_for_chip(blobs, target.chip.id)
    if settings.keep_all:
        return blobs
    settings = _resolve_size(settings, target, report)
    find_codes(target.chip, settings)  # a wrong setting is an error even if no header takes it
    offset = target.chip.flash.bootloader_offset
    if target.checks_images:
        text = "the flash settings change no header: with secure boot or Secure Download Mode on, images stay as they are"
        report(Warned(code="header-kept", text=text))
        return blobs
    if all(blob.address != offset for blob in blobs):
        text = f"nothing is written to {offset:#x}, so the flash settings change no header"
        report(Note(text=text))
    images = images or ParsedImages(target.chip)
    return tuple(
        _patch_header(blob, settings, images, report) if blob.address == offset else blob
        for blob in blobs
    )


def _resolve_size(settings: HeaderSettings, target: FlashTarget, report: Report) -> HeaderSettings:
    if settings.size != DETECT:
        return settings
    size = target.real_size
    if size is None:
        raise UsageError(
            "the flash size cannot be detected",
            hint="Set it, for example --flash-size 4MB.",
            code="flash-size-unknown",
        )
    name = find_size_name(target.chip, size)
    if name is None:
        text = (
            f"an image header cannot express {format_size(size)}; its flash size is left as it is"
        )
        report(Warned(code="flash-size-unusual", text=text))
    return replace(settings, size=name or KEEP)


def _patch_header(
    blob: Blob, settings: HeaderSettings, images: ParsedImages, report: Report
) -> Blob:
    image = images.parse(blob.data)
    obstacle = find_patch_obstacle(blob.data, image)
    if obstacle or not isinstance(image, Image):
        if blob.data:
            text = f"the header of {blob.label} is left as it is: {obstacle}"
            report(Warned(code="header-kept", text=text))
        return blob
    image = patch_image(image, images.chip, settings)
    data = pack(image)
    if data != blob.data:
        report(Note(text=f"flash settings changed in the header of {blob.label}"))
    images.put(data, image)
    return replace(blob, data=data)


def cut_gaps(blobs: Iterable[Blob]) -> list[Blob]:
    """``blobs`` without the whole sectors of 0xFF in them, which are left in flash as they are (``--keep-gaps``)."""
    cut: list[Blob] = []
    for blob in blobs:
        runs = _find_runs(blob)
        for number, (low, high) in enumerate(runs, 1):
            name = blob.name if len(runs) == 1 else f"{blob.label}, part {number}"
            part = slice(low - blob.address, high - blob.address)
            previous = None if blob.previous is None else blob.previous[part]
            cut.append(
                replace(blob, address=low, data=blob.data[part], name=name, previous=previous)
            )
    return cut


def _find_runs(blob: Blob) -> Ranges:
    first, last = align_down(blob.address, SECTOR), align_up(blob.end, SECTOR)
    filled = []
    for at in range(first, last, SECTOR):
        low, high = max(at, blob.address), min(at + SECTOR, blob.end)
        if high - low < SECTOR or blob.data[low - blob.address : high - blob.address].strip(BLANK):
            filled.append((low, high))
    return join_ranges(filled)
