"""What plan and guards need to know of a device, in their terms. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from espwire.device.flash_id import find_flash_size, is_plausible
from espwire.errors import UsageError
from espwire.events import Report, silent
from espwire.flash.checks import can_compare
from espwire.flash.plan import FlashTarget, Part, Policy
from espwire.flash.safety import Target
from espwire.flash.verify import has_content

if TYPE_CHECKING:
    from espwire.device.device import Device


def survey_device(device: Device, *, flash_size: int | None = None) -> Target:
    """The device as a target for plans. Attaches the flash if nobody has.

    :param flash_size: bytes, as the user states it; None: as the flash itself says
    """
    info = device.flash
    if info is None or (flash_size is not None and (flash_size != info.size or info.assumed)):
        info = device.attach_flash(
            size=flash_size
        )  # the loader must know the size too: it checks addresses by it
    chip = device.chip
    survey = FlashTarget(
        dialect=device.loader.dialect,
        flash_size=info.size,
        size_assumed=info.assumed,
        secure_download=device.secure_download,
        sector_size=chip.flash.sector_size,
        long_addresses=device.loader.dialect.capabilities is not None,
        encrypted_align=chip.flash.encrypted_write_align or 16,
        part_size=find_flash_size(info.jedec)
        if info.jedec is not None and is_plausible(info.jedec)
        else None,
    )
    revision = device.revision if device.revision_known else None
    return Target(chip=chip, survey=survey, revision=revision, security=device.security)


def check_reach(target: Target, address: int, end: int, *, stated: int | None = None) -> None:
    """Refuse what lies past the end that the flash itself tells: most parts answer with their beginning there.

    :param stated: the size that the user gave; past it, loaders fail with words that say nothing of it
    :raises UsageError: code ``past-flash-end``
    """
    size = target.survey.part_size
    if stated is not None and end > stated and (size is None or end <= size):
        raise UsageError(
            f"{address:#x} to {end:#x} goes past the flash size that was given, {stated:#x}",
            hint="Give the real --flash-size, or leave it out.",
            code="past-flash-end",
        )
    if size is not None and end > size:
        raise UsageError(
            f"{address:#x} to {end:#x} goes past the end of the flash at {size:#x}",
            hint="Check address and size; the flash's own id tells its size.",
            code="past-flash-end",
        )


def survey_encryption(device: Device, target: Target) -> Target:
    """``target`` with what the eFuses tell of the chip's own encrypting. Reads up to a dozen registers."""
    return replace(target, flash_key=device.flash_key_valid, crypt_config=device.flash_crypt_config)


def survey_content(
    device: Device,
    target: Target,
    parts: Iterable[Part],
    policy: Policy,
    *,
    report: Report = silent,
) -> Target:
    """``target`` with the parts that the flash holds already; one MD5 each."""
    survey = target.survey
    present = frozenset(
        part.address
        for part in parts
        if part.data
        and can_compare(part, survey, policy)
        and has_content(device, part.address, part.data, name=part.label, report=report)
    )
    return replace(target, survey=replace(survey, present=present))
