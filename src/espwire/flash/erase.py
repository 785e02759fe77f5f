"""Erases a range of flash, or all of it, once the safety checks pass; then checks that it is blank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.device.flash_registers import BUSY
from espwire.device.spi import SpiCommand
from espwire.errors import DeviceError, UsageError, VerifyError
from espwire.events import Finished, Note, PlanReady, Progress, Report, Warned, silent
from espwire.flash.estimate import TransportCost, estimate_erase
from espwire.flash.findings import Policy, stop_if_fatal
from espwire.flash.model import BLANK, Cancel, Erase, FlashTarget, describe_step
from espwire.flash.plan import describe_erased_behind
from espwire.flash.safety import find_erase_problems
from espwire.flash.verify import check_not_blind, has_content
from espwire.progress import track
from espwire.protocol.opcodes import (
    ERASE_BLOCK,
    ERASE_SECTOR,
    READ_STATUS,
    WITH_LONG_ADDRESS,
    WRITE_ENABLE,
)
from espwire.sizes import BLOCK, SECTOR

if TYPE_CHECKING:
    from espwire.device.device import Device

ERASE_S, ERASE_POLL_S = 10.0, 0.01  # of a block: 0.15 s on common parts, 2 s on slow ones


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
    :raises SafetyStop: a safety check fails
    :raises VerifyError: the chip reports success, and its MD5 shows that it did not erase
    """
    policy = policy or Policy()
    target = FlashTarget.of(device)
    if size is None:
        if target.real_size is None:
            raise UsageError(
                "the flash size is unknown", hint="Give the size to erase as a number."
            )
        size = target.real_size - address
    if size <= 0 or address < 0 or address % SECTOR or size % SECTOR:
        raise UsageError(
            f"{size:#x} bytes at {address:#x} are not whole sectors of {SECTOR:#x}",
            hint=f"Use multiples of {SECTOR:#x} ({SECTOR:,}) for address and size.",
            code="unaligned",
        )
    erased_end = target.limits.find_erased_end(address, size)
    findings = find_erase_problems(address, erased_end, target)
    if erased_end > address + size:
        findings += (describe_erased_behind("the area to erase", address + size, erased_end),)
    stop_if_fatal(findings, policy)
    for finding in findings:
        report(Warned(code=finding.code, text=finding.text))
    step = Erase(address, size)
    report(
        PlanReady(
            steps=(step.describe(),),
            wire_bytes=0,
            seconds=estimate_erase(
                address, size, TransportCost(), by_rom=target.limits.erases_at_begin
            ),
            actions=(describe_step(step),),
        )
    )
    check_not_blind(device, policy)
    if dry_run:
        return
    if cancel is not None:
        cancel.check()
    run_erase(device, step, report=track(report, device.transport.now))
    if policy.verify is not False and (ranges := device.backend.find_written(address, size)):
        raise VerifyError(
            f"the flash is not blank between {address:#x} and {address + size:#x} after erasing",
            ranges=ranges,
            hint="The flash may be write-protected: check it with `espwire read-flash-status`.",
            code="not-blank",
        )


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

    :param flash_size: bytes; None: by the flash's own id
    :raises UsageError: code ``flash-size-unknown``: the size is not given and cannot be read
    :raises SafetyStop, VerifyError: as ``erase_region``
    """
    size = FlashTarget.of(device, flash_size=flash_size).real_size
    if size is None:
        raise UsageError(
            "the flash size is unknown",
            hint="Give --flash-size.",
            code="flash-size-unknown",
        )
    erase_region(device, 0, size, policy=policy, dry_run=dry_run, cancel=cancel, report=report)
    return size


def run_erase(device: Device, step: Erase, *, report: Report = silent) -> None:
    """Erase whole sectors and report the progress, which only stubs make."""
    began, backend = device.transport.now(), device.backend
    name = "the whole flash" if step.whole else f"{step.address:#x}..{step.address + step.size:#x}"

    def progress(done: int) -> None:
        report(Progress(task="erase", name=name, done=done, total=step.size))

    progress(0)
    if backend.limits.erases_at_begin and _is_blank(device, step):
        report(Note(text=f"{name} is already blank: nothing to erase"))
    else:
        backend.erase(step.address, step.size, progress=progress)
    seconds = device.transport.now() - began
    report(Finished(task="erase", name=name, size=step.size, seconds=seconds))


def erase_again(device: Device, step: Erase, *, report: Report = silent) -> None:
    """Erase sectors by the flash chip's own command, also if they read blank: stubs leave out blank ones.

    :raises DeviceError: code ``flash-busy``: the flash chip does not finish
    """
    began, now = device.transport.now(), device.transport.now
    address, end = step.address, step.address + step.size
    while address < end:
        size = BLOCK if address % BLOCK == 0 and end - address >= BLOCK else SECTOR
        _erase_unit(device, address, size)
        address += size
    name = f"{step.address:#x}..{step.address + step.size:#x}"
    seconds = now() - began
    report(Finished(task="erase", name=name, size=step.size, seconds=seconds))


def _erase_unit(device: Device, address: int, size: int) -> None:
    """Erase a sector or a block of 64 KiB, and wait for the end."""
    now, long = device.transport.now, address >= 1 << 24
    opcode = ERASE_BLOCK if size == BLOCK else ERASE_SECTOR
    command = SpiCommand(
        opcode=WITH_LONG_ADDRESS[opcode] if long else opcode,
        address=address,
        address_bits=32 if long else 24,
    )
    device.backend.spi([SpiCommand(opcode=WRITE_ENABLE), command])
    limit = now() + ERASE_S
    while device.backend.spi([SpiCommand(opcode=READ_STATUS, read_bits=8)]) & BUSY:
        if now() > limit:
            raise DeviceError(
                f"the flash chip is still erasing {size // 1024} KiB at {address:#x} after {ERASE_S:g} s",
                hint="Check the supply of the board, then try again.",
                code="flash-busy",
            )
        device.transport.sleep(ERASE_POLL_S)


def _is_blank(device: Device, step: Erase) -> bool:
    """Whether all of it is blank already: then no sector of it could reveal that others are erased instead."""
    if not device.backend.limits.can_digest:
        return False
    ends = (step.address, step.address + step.size - SECTOR)
    blank = all(has_content(device, at, BLANK * SECTOR) for at in ends)
    return blank and has_content(device, step.address, BLANK * step.size)
