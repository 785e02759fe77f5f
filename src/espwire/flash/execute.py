"""Carries a plan out on a device and checks the result. Decides only how, never what: plan.py did that.

Every verified part is known to be in flash when this returns; a part that cannot be verified is warned of by name.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from espwire.device.erase_check import build_wrong_erase, erases_unchecked
from espwire.device.stream_write import write_streamed
from espwire.device.transfer import erase_range, write_deflated, write_plain
from espwire.events import Finished, Note, Overall, Progress, Report, Warned, silent, thin_out
from espwire.flash.plan import Erase, Plan, Skip, Verify, Write, find_tail
from espwire.flash.verify import (
    SECTOR,
    Cancel,
    build_verify_error,
    can_read,
    check_can_verify_device,
    check_encrypted,
    find_differences,
    has_content,
)
from espwire.wire.commands import Op
from espwire.wire.stub import StubOp

if TYPE_CHECKING:
    from espwire.device.device import Device

ERASE_STEP = 0x100000  # some seconds' work on most parts; no more, so that no wait for it is too short


def execute(plan: Plan, device: Device, *, cancel: Cancel | None = None, report: Report = silent) -> None:
    """Do every step of ``plan``.

    A part that does not verify is written again as often as the policy's ``rewrites`` says.

    :raises Unsupported: before anything is written: verification is demanded and impossible
    :raises VerifyError: a part is still wrong; ``ranges`` tell where
    :raises NoReply, CommandFailed, LinkLost, Cancelled: as the device has it; the flash is then half written
    """
    if report is not silent:
        report = Overall(report, plan.shares)
    run = _Run(plan, device, cancel, thin_out(report, device.link.now))
    if plan.policy.verify and plan.writes:
        check_can_verify_device(device)
    for step in plan.steps:
        run.check()
        if isinstance(step, Write):
            run.write(step)
        elif isinstance(step, Verify):
            run.verify(step)
        elif isinstance(step, Erase):
            erase(device, step.address, step.size, name="the whole flash" if step.whole else None, report=report)
        elif isinstance(step, Skip):
            report(Note(text=step.describe()))
    run.warn_of_unverified()


def erase(device: Device, address: int, size: int, *, name: str | None = None, report: Report = silent) -> None:
    """Erase whole sectors and report it; where a stub does it, with progress.

    :param name: in reports; None: the range
    """
    began, name = device.link.now(), name or f"{address:#x}..{address + size:#x}"
    step = ERASE_STEP if device.loader.supports(Op.ERASE_REGION) else size  # a ROM may erase more than it is asked to
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
    report(Finished(task="erase", name=name, size=size, seconds=device.link.now() - began))


def _is_blank(device: Device, address: int, size: int) -> bool:
    """Whether all of it is blank already: then no sector of it could show that others are erased instead."""
    if not device.loader.supports(Op.SPI_FLASH_MD5) or size <= 0:
        return False
    blank = b"\xff" * SECTOR
    ends = (address, address + size - SECTOR)
    return all(has_content(device, at, blank) for at in ends) and has_content(device, address, b"\xff" * size)


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
            if done > furthest:  # after a repetition the count goes back: a bar that does looks broken
                furthest = done
                self.report(Progress(task="write", name=step.name, done=done, total=total, address=step.address))

        began = self.device.link.now()
        self.report(Progress(task="write", name=step.name, done=0, total=total, address=step.address))
        send = write_plain if step.packed is None else partial(write_deflated, packed=step.packed)
        if self.device.loader.supports(StubOp.WRITE_OPEN):
            send = partial(write_streamed, packed=step.packed)
        send(self.device.loader, step.address, step.data, on_block=on_block, encrypted=step.encrypted)
        if step.encrypted and self.plan.policy.verify is not False:
            check_encrypted(self.device, step)
        seconds = self.device.link.now() - began
        self.report(Finished(task="write", name=step.name, size=total, seconds=seconds, address=step.address))

    def verify(self, step: Verify) -> None:
        """Check one part; write it again where that is allowed."""
        began = self.device.link.now()
        for rewrites_left in range(self.plan.policy.rewrites + (step.rewrite is not None), -1, -1):
            if self.holds(step) or self.holds(step):  # an answer can be garbled on its way: ask again before rewriting
                seconds = self.device.link.now() - began
                self.report(Finished(task="verify", name=step.name, size=len(step.data), seconds=seconds))
                return
            write = step.rewrite or self._find_write(step)
            if not rewrites_left or write is None:
                break
            text = f"{step.name} is not in flash as it was sent; writing it again"
            if step.rewrite is not None:
                text = f"the flash held something else than was said of {step.name}; writing all of it"
            for sent in self._find_writes(step):
                self._stop_if_misplaced(sent)
            self.report(Warned(code="rewrite", text=text))
            self.write(write)
            if step.rewrite is not None:
                step = replace(step, tail=find_tail(write, SECTOR))
        # equal now means that the flash answers differently each time: that is no success either
        ranges = find_differences(self.device, step.address, step.content)
        raise build_verify_error([step.name], ranges or ((step.address, step.address + len(step.content)),))

    def holds(self, step: Verify) -> bool:
        """Whether the flash holds what it should, as far as one answer tells."""
        return has_content(self.device, step.address, step.content, name=step.name, report=self.report)

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
        return [w for w in self.plan.writes if w.address < end and step.address < w.address + len(w.data)]

    def _find_write(self, step: Verify) -> Write | None:
        return next((w for w in self.plan.writes if w.address == step.address), None)

    def warn_of_unverified(self) -> None:
        """Say once, by name, what nobody has checked."""
        if self.unverified:
            why = "this loader can neither compute an MD5 of the flash nor read it"
            if self.device.loader.supports(Op.SPI_FLASH_MD5) or can_read(self.device):
                why = "the chip has encrypted it"
            names = ", ".join(self.unverified)
            self.report(Warned(code="unverified", text=f"{names}: written, but not verified: {why}"))
