"""Writing files' content to flash, from the device in hand to the verified result. The steps themselves live elsewhere:
patch the boot image's header, survey, plan, guards, execute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from espwire.bits import format_size
from espwire.errors import UsageError
from espwire.events import Note, PlanReady, Report, Warned, silent
from espwire.flash.checks import check_parts
from espwire.flash.cost import LinkCost
from espwire.flash.execute import execute
from espwire.flash.guards import Target, find_problems, stop_if_fatal
from espwire.flash.plan import Part, Plan, Policy, plan
from espwire.flash.survey import survey_content, survey_device, survey_encryption
from espwire.flash.verify import Cancel, check_not_blind
from espwire.image.flash_settings import DETECT, KEEP, HeaderSettings, find_size_name, parse_size
from espwire.image.inputs import choose_for_chip
from espwire.image.patch import find_codes, find_patch_obstacle, patch_header

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.device import Device


def write_flash(
    device: Device,
    parts: Iterable[Part],
    *,
    policy: Policy | None = None,
    settings: HeaderSettings | None = None,
    dry_run: bool = False,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> Plan:
    """Write ``parts`` and verify them; returns the plan that was carried out.

    :param settings: flash settings for the header of the image at the boot loader's offset
    :param dry_run: stop when the plan is ready; nothing is written
    :raises UsageError: parts overlap, or a setting does not exist on this chip
    :raises SafetyStop: a guard has a reason against it; ``consents`` name what would allow it
    :raises VerifyError: the flash does not hold what was written
    """
    policy, settings = policy or Policy(), settings or HeaderSettings()
    target = survey_target(device, settings)
    parts = prepare_parts(parts, target, settings, report=report)
    if any(part.encrypted for part in parts) and device.loader.dialect.encrypted_write:
        target = survey_encryption(device, target)
    if policy.skip_flashed:
        check_parts(parts, target.survey, policy)
        stop_if_fatal(find_problems(parts, target, policy), policy)
        target = survey_content(device, target, parts, policy, report=report)
    made = plan(parts, survey=target.survey, cost=_cost(device), policy=policy)
    made = replace(made, findings=made.findings + find_problems(parts, target, policy))
    seconds = round(made.seconds, 3)
    report(PlanReady(steps=made.describe(), wire_bytes=made.wire_bytes, seconds=seconds, actions=made.actions))
    stop_if_fatal(made.findings, policy)
    for finding in made.findings:
        report(Warned(code=finding.code, text=finding.text))
    if made.writes:
        check_not_blind(device, policy)
    if not dry_run:
        execute(made, device, cancel=cancel, report=report)
    return made


def survey_target(device: Device, settings: HeaderSettings) -> Target:
    """The device as a target; a flash size named in ``settings`` counts as the real one.

    :raises UsageError: no such size
    """
    return survey_device(device, flash_size=find_stated_size(settings))


def find_stated_size(settings: HeaderSettings) -> int | None:
    """Bytes of flash that ``settings`` name; None: they leave it to the flash.

    :raises UsageError: no such size
    """
    return None if settings.size in (KEEP, DETECT) else parse_size(settings.size)


def prepare_parts(
    parts: Iterable[Part], target: Target, settings: HeaderSettings, *, report: Report = silent
) -> tuple[Part, ...]:
    """``parts`` for this chip, with the boot image's header as ``settings`` want it; ``detect`` takes the size that
    the flash has. What files for several chips hold for others is left out.

    A chip that checks signatures gets its images unchanged.

    :raises UsageError: the chip has no such setting, or the flash size is to be detected and cannot be
    :raises DataError: a file for several chips has nothing for this one
    """
    parts = choose_for_chip(parts, target.chip.id)
    if settings.keep_all:
        return parts
    settings = _resolve_size(settings, target, report)
    find_codes(target.chip, settings)  # a setting that does not exist is an error even if no header takes it
    if target.checks_images:
        text = (
            "the flash settings change no header: with secure boot or Secure Download Mode on, images stay as they are"
        )
        report(Warned(code="header-kept", text=text))
        return parts
    if all(part.address != target.chip.flash.bootloader_offset for part in parts):
        text = f"nothing goes to {target.chip.flash.bootloader_offset:#x}, so the flash settings change no header"
        report(Note(text=text))
    return tuple(_prepare(part, target.chip, settings, report) for part in parts)


def _resolve_size(settings: HeaderSettings, target: Target, report: Report) -> HeaderSettings:
    if settings.size != DETECT:
        return settings
    size = target.survey.real_size
    if size is None:
        raise UsageError(
            "the flash size cannot be detected", hint="Name it, as in --flash-size 4MB.", code="flash-size-unknown"
        )
    name = find_size_name(target.chip, size)
    if name is None:
        text = f"an image header cannot say {format_size(size)}; its flash size is left as it is"
        report(Warned(code="flash-size-unusual", text=text))
    return replace(settings, size=name or KEEP)


def _prepare(part: Part, chip: Chip, settings: HeaderSettings, report: Report) -> Part:
    if part.address != chip.flash.bootloader_offset:
        return part
    patched = patch_header(part.data, chip, mode=settings.mode, size=settings.size, frequency=settings.frequency)
    obstacle = find_patch_obstacle(part.data, chip)
    if obstacle is not None and part.data:
        report(Warned(code="header-kept", text=f"the header of {part.label} is left as it is: {obstacle}"))
    elif patched != part.data:
        report(Note(text=f"flash settings changed in the header of {part.label}"))
    return replace(part, data=patched)


def _cost(device: Device) -> LinkCost:
    return LinkCost(baud=device.loader.baud)
