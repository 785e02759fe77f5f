"""Erases a range of flash on request, after asking the guards; checks that it is blank where the chip can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.device.stub_commands import find_written
from espwire.errors import UsageError, VerifyError
from espwire.events import PlanReady, Report, Warned, silent
from espwire.flash import write
from espwire.flash.estimate import TransportCost, estimate_erase
from espwire.flash.plan import Erase, Policy, describe_erased_behind, describe_step, find_erased_end
from espwire.flash.safety import find_erase_problems, stop_if_fatal
from espwire.flash.survey import survey_device
from espwire.flash.verify import Cancel, check_not_blind, has_content
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp
from espwire.sizes import SECTOR

if TYPE_CHECKING:
    from espwire.device.device import Device


def erase_region(
    device: Device,
    address: int,
    size: int | None,
    *,
    policy: Policy | None = None,
    dry_run: bool = False,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> None:
    """Erase ``size`` bytes from ``address``, both multiples of a sector (4 KiB).

    :param size: None: up to the end of the flash
    :raises UsageError: not whole sectors, or the flash size is needed and not known
    :raises SafetyStop: a guard has a reason against it; see guards.py
    :raises VerifyError: the chip says that it is done, and its MD5 says that it is not
    """
    policy = policy or Policy()
    target = survey_device(device)
    sector, flash_size = target.survey.sector_size, target.survey.real_size
    if size is None:
        if flash_size is None:
            raise UsageError(
                "the flash size is not known", hint="Give the size to erase as a number."
            )
        size = flash_size - address
    if size <= 0 or address < 0 or address % sector or size % sector:
        raise UsageError(
            f"{address:#x} and {size:#x} are not whole sectors of {sector:#x}",
            hint=f"Address and size must be multiples of {sector:#x} ({sector}).",
            code="unaligned",
        )
    erased_end = find_erased_end(address, size, target.survey)
    findings = find_erase_problems(address, erased_end, target)
    if erased_end > address + size:
        findings += (describe_erased_behind("the area to erase", address + size, erased_end),)
    stop_if_fatal(findings, policy)
    for finding in findings:
        report(Warned(code=finding.code, text=finding.text))
    step = Erase(address, size)
    seconds = estimate_erase(address, size, TransportCost())
    report(
        PlanReady(
            steps=(step.describe(),), wire_bytes=0, seconds=seconds, actions=(describe_step(step),)
        )
    )
    check_not_blind(device, policy)
    if dry_run:
        return
    if cancel is not None:
        cancel.check()
    write.erase(device, address, size, report=report)
    if policy.verify is not False and device.loader.supports(StubOp.HASH):
        _check_sectors(device, address, size)
    elif policy.verify is not False and device.loader.supports(Op.SPI_FLASH_MD5):
        _check_blank(device, address, size)


def erase_flash(
    device: Device,
    *,
    flash_size: int | None = None,
    policy: Policy | None = None,
    dry_run: bool = False,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> int:
    """Erase the whole flash; returns its size in bytes. A ROM has no chip erase: it erases all sectors.

    :param flash_size: bytes; None: as the flash itself says
    :raises UsageError: code ``flash-size-unknown``: the size is not given and cannot be read
    :raises SafetyStop, VerifyError: as ``erase_region``
    """
    size = survey_device(device, flash_size=flash_size).survey.real_size
    if size is None:
        raise UsageError(
            "the flash size is not known, so its end is not",
            hint="Give --flash-size.",
            code="flash-size-unknown",
        )
    erase_region(device, 0, size, policy=policy, dry_run=dry_run, cancel=cancel, report=report)
    return size


def _check_sectors(device: Device, address: int, size: int) -> None:
    """Ask which sectors are not blank; a yes is asked for twice, for answers can be damaged."""
    if not find_written(device.loader, address, size, SECTOR):
        return
    ranges = tuple((at, at + SECTOR) for at in find_written(device.loader, address, size, SECTOR))
    if ranges:
        raise _not_blank(ranges, address, size)


def _not_blank(ranges: tuple[tuple[int, int], ...], address: int, size: int) -> VerifyError:
    return VerifyError(
        f"the flash is not blank between {address:#x} and {address + size:#x} after erasing",
        ranges=ranges,
        hint="The flash may be write-protected: read its status, or suspect the flash chip.",
        code="not-blank",
    )


def _check_blank(device: Device, address: int, size: int) -> None:
    if not has_content(device, address, b"\xff" * size):
        raise _not_blank(((address, address + size),), address, size)
