"""What plan and guards need to know of a device, in their terms. Reads nothing that the device has not read already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.flash.guards import Target
from espwire.flash.plan import FlashSurvey

if TYPE_CHECKING:
    from espwire.device.device import Device


def survey_device(device: Device, *, flash_size: int | None = None) -> Target:
    """The device as a target for plans. Attaches the flash if nobody has.

    :param flash_size: bytes, as the user states it; None: as the flash itself says
    """
    info = device.flash
    if info is None or (flash_size is not None and (flash_size != info.size or info.assumed)):
        info = device.attach_flash(size=flash_size)  # the loader must know the size too: it checks addresses by it
    chip = device.chip
    survey = FlashSurvey(
        dialect=device.loader.dialect,
        flash_size=info.size,
        size_assumed=info.assumed,
        secure_download=device.secure_download,
        sector_size=chip.flash.sector_size,
        encrypted_align=chip.flash.encrypted_write_align or 16,
    )
    revision = device.revision if device.revision_known else None
    return Target(chip=chip, survey=survey, revision=revision, security=device.security)
