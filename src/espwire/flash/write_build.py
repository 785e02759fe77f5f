"""A build's plan of what goes where → flash, written and verified as write.py does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.events import Note, Report, silent
from espwire.flash.plan import Part, Plan, Policy
from espwire.flash.verify import Cancel
from espwire.flash.write import write_flash
from espwire.image.flash_settings import KEEP, HeaderSettings

if TYPE_CHECKING:
    from espwire.device.device import Device
    from espwire.image.build_plan import BuildPlan


def write_build(
    device: Device,
    build: BuildPlan,
    *,
    policy: Policy | None = None,
    settings: HeaderSettings | None = None,
    encrypt: bool = False,
    dry_run: bool = False,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> Plan:
    """Write what ``read_build`` found, and verify it; returns the plan that was carried out.

    :param settings: flash settings that win over the build's own
    :param encrypt: have the chip encrypt the files that the build marks so
    :raises SafetyStop: it is for another chip, or another guard has a reason against it
    :raises VerifyError: the flash does not hold what was written
    """
    for note in build.notes:
        report(Note(text=note))
    chosen = merge_settings(settings or HeaderSettings(), build.settings)
    parts = build_parts(build, encrypt=encrypt)
    return write_flash(device, parts, policy=policy, settings=chosen, dry_run=dry_run, cancel=cancel, report=report)


def build_parts(build: BuildPlan, *, encrypt: bool = False) -> tuple[Part, ...]:
    """The files as parts."""
    return tuple(
        Part(
            file.address,
            file.data,
            file.name,
            encrypted=encrypt and file.encrypted,
            made_for=file.chips if file.one_of else build.chips,
            one_of=file.one_of,
        )
        for file in build.files
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
