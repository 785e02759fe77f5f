"""Writing files' content to flash, from the device in hand to the verified result. The steps themselves live elsewhere:
patch the boot image's header, survey, plan, guards, execute.

Carries a plan out on a device and checks the result. Decides only how, never what: plan.py did that.

Every verified part is known to be in flash when this returns; a part that cannot be verified is warned of by name.

A build's plan of what goes where → flash, written and verified as write.py does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from espwire.blob import choose_for_chip
from espwire.device.erase_check import build_wrong_erase, erases_unchecked
from espwire.device.stream_write import write_streamed
from espwire.device.transfer import erase_range, write_deflated, write_plain
from espwire.errors import UsageError
from espwire.events import (
    Finished,
    Note,
    Overall,
    PlanReady,
    Progress,
    Report,
    Warned,
    silent,
    thin_out,
)
from espwire.flash.checks import check_parts
from espwire.flash.estimate import TransportCost
from espwire.flash.plan import Erase, Part, Plan, Policy, Skip, Verify, Write, find_tail, plan
from espwire.flash.safety import Target, find_problems, stop_if_fatal
from espwire.flash.survey import survey_content, survey_device, survey_encryption
from espwire.flash.verify import (
    Cancel,
    build_verify_error,
    can_read,
    check_can_verify_device,
    check_encrypted,
    check_not_blind,
    find_differences,
    has_content,
)
from espwire.image.header import DETECT, KEEP, HeaderSettings, find_size_name, parse_size
from espwire.image.patch_header import find_codes, find_patch_obstacle, patch_header
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp
from espwire.sizes import SECTOR, format_size

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.device import Device
if TYPE_CHECKING:
    from espwire.device.device import Device
if TYPE_CHECKING:
    from espwire.device.device import Device
    from espwire.image.build_file import BuildPlan


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
    report(
        PlanReady(
            steps=made.describe(), wire_bytes=made.wire_bytes, seconds=seconds, actions=made.actions
        )
    )
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
    find_codes(
        target.chip, settings
    )  # a setting that does not exist is an error even if no header takes it
    if target.checks_images:
        text = "the flash settings change no header: with secure boot or Secure Download Mode on, images stay as they are"
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
            "the flash size cannot be detected",
            hint="Name it, as in --flash-size 4MB.",
            code="flash-size-unknown",
        )
    name = find_size_name(target.chip, size)
    if name is None:
        text = f"an image header cannot say {format_size(size)}; its flash size is left as it is"
        report(Warned(code="flash-size-unusual", text=text))
    return replace(settings, size=name or KEEP)


def _prepare(part: Part, chip: Chip, settings: HeaderSettings, report: Report) -> Part:
    if part.address != chip.flash.bootloader_offset:
        return part
    patched = patch_header(
        part.data, chip, mode=settings.mode, size=settings.size, frequency=settings.frequency
    )
    obstacle = find_patch_obstacle(part.data, chip)
    if obstacle is not None and part.data:
        report(
            Warned(
                code="header-kept", text=f"the header of {part.label} is left as it is: {obstacle}"
            )
        )
    elif patched != part.data:
        report(Note(text=f"flash settings changed in the header of {part.label}"))
    return replace(part, data=patched)


def _cost(device: Device) -> TransportCost:
    return TransportCost(baud=device.loader.baud)


ERASE_STEP = (
    0x100000  # some seconds' work on most parts; no more, so that no wait for it is too short
)


def execute(
    plan: Plan, device: Device, *, cancel: Cancel | None = None, report: Report = silent
) -> None:
    """Do every step of ``plan``.

    A part that does not verify is written again as often as the policy's ``rewrites`` says.

    :raises Unsupported: before anything is written: verification is demanded and impossible
    :raises VerifyError: a part is still wrong; ``ranges`` tell where
    :raises NoReply, CommandFailed, TransportLost, Cancelled: as the device has it; the flash is then half written
    """
    if report is not silent:
        report = Overall(report, plan.shares)
    run = _Run(plan, device, cancel, thin_out(report, device.transport.now))
    if plan.policy.verify and plan.writes:
        check_can_verify_device(device)
    for step in plan.steps:
        run.check()
        if isinstance(step, Write):
            run.write(step)
        elif isinstance(step, Verify):
            run.verify(step)
        elif isinstance(step, Erase):
            erase(
                device,
                step.address,
                step.size,
                name="the whole flash" if step.whole else None,
                report=report,
            )
        elif isinstance(step, Skip):
            report(Note(text=step.describe()))
    run.warn_of_unverified()


def erase(
    device: Device, address: int, size: int, *, name: str | None = None, report: Report = silent
) -> None:
    """Erase whole sectors and report it; where a stub does it, with progress.

    :param name: in reports; None: the range
    """
    began, name = device.transport.now(), name or f"{address:#x}..{address + size:#x}"
    step = (
        ERASE_STEP if device.loader.supports(Op.ERASE_REGION) else size
    )  # a ROM may erase more than it is asked to
    done = 0
    report(Progress(task="erase", name=name, done=0, total=size))
    if erases_unchecked(device.loader) and _is_blank(device, address, size):
        report(Note(text=f"{name} is blank already: nothing to erase"))
        done = size
    while done < size:
        piece = min(step - (address + done) % step, size - done) if step < size else size
        erase_range(device.loader, address + done, piece)
        done += piece
        report(Progress(task="erase", name=name, done=done, total=size))
    report(Finished(task="erase", name=name, size=size, seconds=device.transport.now() - began))


def _is_blank(device: Device, address: int, size: int) -> bool:
    """Whether all of it is blank already: then no sector of it could show that others are erased instead."""
    if not device.loader.supports(Op.SPI_FLASH_MD5) or size <= 0:
        return False
    blank = b"\xff" * SECTOR
    ends = (address, address + size - SECTOR)
    return all(has_content(device, at, blank) for at in ends) and has_content(
        device, address, b"\xff" * size
    )


class _Run:
    """One execution: what its steps share."""

    def __init__(self, plan: Plan, device: Device, cancel: Cancel | None, report: Report) -> None:
        self.plan, self.device, self.cancel, self.report = plan, device, cancel, report
        self.unverified = plan.unverified if plan.policy.verify is not False else ()

    def check(self) -> None:
        if self.cancel is not None:
            self.cancel.check()

    def write(self, step: Write) -> None:
        """Transfer one part; repetitions within the transfer are transfer.py's."""
        total, furthest = len(step.data), 0

        def on_block(done: int) -> None:
            nonlocal furthest
            self.check()
            if (
                done > furthest
            ):  # after a repetition the count goes back: a bar that does looks broken
                furthest = done
                self.report(
                    Progress(
                        task="write", name=step.name, done=done, total=total, address=step.address
                    )
                )

        began = self.device.transport.now()
        self.report(
            Progress(task="write", name=step.name, done=0, total=total, address=step.address)
        )
        send = write_plain if step.packed is None else partial(write_deflated, packed=step.packed)
        if self.device.loader.supports(StubOp.WRITE_OPEN):
            send = partial(write_streamed, packed=step.packed)
        send(
            self.device.loader, step.address, step.data, on_block=on_block, encrypted=step.encrypted
        )
        if step.encrypted and self.plan.policy.verify is not False:
            check_encrypted(self.device, step)
        seconds = self.device.transport.now() - began
        self.report(
            Finished(
                task="write", name=step.name, size=total, seconds=seconds, address=step.address
            )
        )

    def verify(self, step: Verify) -> None:
        """Check one part; write it again where that is allowed."""
        began = self.device.transport.now()
        for rewrites_left in range(self.plan.policy.rewrites + (step.rewrite is not None), -1, -1):
            if self.holds(step) or self.holds(
                step
            ):  # an answer can be garbled on its way: ask again before rewriting
                seconds = self.device.transport.now() - began
                self.report(
                    Finished(task="verify", name=step.name, size=len(step.data), seconds=seconds)
                )
                return
            write = step.rewrite or self._find_write(step)
            if not rewrites_left or write is None:
                break
            text = f"{step.name} is not in flash as it was sent; writing it again"
            if step.rewrite is not None:
                text = (
                    f"the flash held something else than was said of {step.name}; writing all of it"
                )
            for sent in self._find_writes(step):
                self._stop_if_misplaced(sent)
            self.report(Warned(code="rewrite", text=text))
            self.write(write)
            if step.rewrite is not None:
                step = replace(step, tail=find_tail(write, SECTOR))
        # equal now means that the flash answers differently each time: that is no success either
        ranges = find_differences(self.device, step.address, step.content)
        raise build_verify_error(
            [step.name], ranges or ((step.address, step.address + len(step.content)),)
        )

    def holds(self, step: Verify) -> bool:
        """Whether the flash holds what it should, as far as one answer tells."""
        return has_content(
            self.device, step.address, step.content, name=step.name, report=self.report
        )

    def _stop_if_misplaced(self, write: Write) -> None:
        """Stop if nothing has arrived where all of it was sent: then it lies elsewhere, over something else.

        A ROM takes the address from a request without a checksum, and erased sectors show where only if they were not
        blank before; see erase_check.py.

        :raises VerifyError: code ``wrong-erase``
        """
        loader = self.device.loader
        if not erases_unchecked(loader) or not loader.supports(Op.SPI_FLASH_MD5):
            return
        end = write.address + len(write.data)
        for start in range(write.address, end, SECTOR):
            piece = write.data[start - write.address :][: SECTOR - start % SECTOR]
            blank = b"\xff" * len(piece)
            if piece != blank:
                if has_content(self.device, start, blank):
                    raise build_wrong_erase(write.address, end, [start])
                return

    def _find_writes(self, step: Verify) -> list[Write]:
        """What was sent of a part: all of it, or only the sectors that were believed to differ."""
        end = step.address + len(step.data)
        return [
            w
            for w in self.plan.writes
            if w.address < end and step.address < w.address + len(w.data)
        ]

    def _find_write(self, step: Verify) -> Write | None:
        return next((w for w in self.plan.writes if w.address == step.address), None)

    def warn_of_unverified(self) -> None:
        """Say once, by name, what nobody has checked."""
        if self.unverified:
            why = "this loader can neither compute an MD5 of the flash nor read it"
            if self.device.loader.supports(Op.SPI_FLASH_MD5) or can_read(self.device):
                why = "the chip has encrypted it"
            names = ", ".join(self.unverified)
            self.report(
                Warned(code="unverified", text=f"{names}: written, but not verified: {why}")
            )


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
    return write_flash(
        device, parts, policy=policy, settings=chosen, dry_run=dry_run, cancel=cancel, report=report
    )


def build_parts(build: BuildPlan, *, encrypt: bool = False) -> tuple[Part, ...]:
    """The files as parts."""
    return tuple(
        Part(
            file.address,
            file.data,
            file.name,
            encrypted=encrypt and file.encrypted,
            chips=file.chips if file.one_of else build.chips,
            one_of=file.one_of,
        )
        for file in build.blobs
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
