"""Writes files' content to flash and verifies it: prepare the boot image's header, plan, safety checks, execute.

When ``write_flash`` returns, every verified blob is known to be in flash; those that cannot be verified are warned of
by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from espwire.blob import Blob
from espwire.device.backends.base import build_wrong_erase
from espwire.device.backends.stub import WriteTransfer
from espwire.device.reconnect import is_native_usb
from espwire.errors import FileError
from espwire.events import (
    Finished,
    Note,
    PlanReady,
    Progress,
    Report,
    Warned,
    silent,
)
from espwire.flash.boot_content import ParsedImages
from espwire.flash.erase import erase_again, run_erase
from espwire.flash.estimate import USB_BAUD, TransportCost
from espwire.flash.findings import Finding, Policy, stop_if_fatal
from espwire.flash.journal import NOTHING, Journal, Unfinished
from espwire.flash.last_written import digest_sectors
from espwire.flash.model import (
    BLANK,
    Cancel,
    Erase,
    FlashTarget,
    Found,
    Piece,
    Plan,
    Skip,
    Verify,
    Write,
)
from espwire.flash.plan import (
    can_compare,
    check_blobs,
    check_can_verify,
    estimate_stream,
    fill_sectors,
    plan,
    plan_write,
)
from espwire.flash.prepare import (
    find_stated_size,
    list_build_blobs,
    merge_settings,
    prepare_blobs,
)
from espwire.flash.read_table import read_table_if_any
from espwire.flash.recovery import can_restore, find_restorable, find_shared, leave_out_erased
from espwire.flash.safety import find_older_versions, find_problems, may_hold_application
from espwire.flash.side_effects import (
    changes_table,
    find_blanked,
    find_misread_data,
    find_protection,
    find_table_changes,
    find_table_overrun,
    find_unbooted,
)
from espwire.flash.survey import find_weak, survey
from espwire.flash.verify import (
    build_verify_error,
    check_encrypted,
    check_not_blind,
    find_differences,
    has_content,
)
from espwire.image.header import (
    HeaderSettings,
)
from espwire.progress import track
from espwire.protocol.stub import Codec
from espwire.sizes import (
    SECTOR,
    Ranges,
    align_down,
    align_up,
    join_ranges,
    subtract_ranges,
)

if TYPE_CHECKING:
    from espwire.device.device import Device
    from espwire.flash.host_key import HostKey
    from espwire.image.build_file import BuildPlan


def write_flash(
    device: Device,
    blobs: Iterable[Blob],
    *,
    policy: Policy | None = None,
    settings: HeaderSettings | None = None,
    key: HostKey | None = None,
    dry_run: bool = False,
    journal: Journal | None = None,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> Plan:
    """Write ``blobs`` and verify them; returns the plan that was carried out.

    :param key: encrypt on this computer what the chip reads as encrypted; the ciphertext in flash is verified
    :param journal: keeps what an interruption would destroy, and restores it in the next run; with ``last_written``,
        what this write leaves, so that the next one compares faster
    :param settings: flash settings for the header of the image at the bootloader's offset
    :param dry_run: stop when the plan is ready; nothing is written
    :raises UsageError: blobs overlap, or a setting does not exist on this chip
    :raises SafetyStop: a safety check fails; ``consents`` name what would allow it
    :raises VerifyError: the flash does not hold what was written
    """
    policy = policy or Policy()
    target, blobs, ordered, problems = check_write(
        device, blobs, policy=policy, settings=settings, key=key, report=report
    )
    unfinished = NOTHING if journal is None else journal.read()
    unfinished = leave_out_erased(unfinished, policy)
    if journal is not None and unfinished.shared and can_restore(target, policy):
        unfinished, kept = find_restorable(device, unfinished, ordered, journal, report)
        blobs = (*blobs, *kept)
        ordered = check_blobs(blobs, target, policy)
    last = {} if journal is None else journal.last_written.read()
    found = survey(device, ordered, target, policy, unfinished, last)
    if not dry_run and policy.verify is not False:
        device.tune_line("write", estimate_stream(ordered, found))
    planned = plan(blobs, target=target, cost=_find_cost(device), policy=policy, found=found)
    read_table = cache(partial(read_table_if_any, device))
    if target.limits.can_read and not target.encrypts_flash:
        problems += find_blanked(device, planned, read_table)
        changes = find_table_changes(device, target, planned, blobs)
        planned = replace(planned, partitions=changes)
        problems += find_misread_data(changes)
    if target.limits.can_read and not target.secure_download and planned.changes_flash:
        problems += find_protection(device.read_flash_status())
    planned = replace(planned, findings=planned.findings + problems)
    report(
        PlanReady(
            steps=planned.describe(),
            wire_bytes=planned.wire_bytes,
            seconds=round(planned.seconds, 3),
            actions=planned.actions,
            wire_estimated=planned.wire_estimated,
            partitions=planned.partitions,
        )
    )
    if planned.writes:
        check_not_blind(device, policy)
    stop_if_fatal(planned.findings, policy)
    for finding in planned.findings:
        report(Warned(code=finding.code, text=finding.text))
    if not dry_run:
        execute(
            planned, device, journal=journal, unfinished=unfinished, cancel=cancel, report=report
        )
        if journal is not None:
            _note_written(journal, last, planned, ordered, found, target)
        if changes_table(planned):
            read_table.cache_clear()
        if (slots := find_unbooted(device, target, blobs, read_table)) is not None:
            text = f"the application was written to {slots.written}, but the OTA data selects {slots.boots}, which boots; `espwire ota switch {slots.written}` changes that"
            report(Warned(code="not-booted", text=text))
            planned = replace(planned, unbooted=slots)
    return planned


class CheckedWrite(NamedTuple):
    """What ``write_flash`` would write: ``blobs`` as they will be in flash, and ``ordered`` by address."""

    target: FlashTarget
    blobs: tuple[Blob, ...]
    ordered: list[Blob]
    problems: tuple[Finding, ...]


def check_write(
    device: Device,
    blobs: Iterable[Blob],
    *,
    policy: Policy | None = None,
    settings: HeaderSettings | None = None,
    key: HostKey | None = None,
    report: Report = silent,
) -> CheckedWrite:
    """The checks of ``write_flash`` that do not depend on what the flash holds where it writes.

    :raises UsageError, SafetyStop: as ``write_flash``
    """
    policy, settings = policy or Policy(), settings or HeaderSettings()
    target = FlashTarget.of(device, flash_size=find_stated_size(settings))
    images = ParsedImages(target.chip)
    blobs = prepare_blobs(blobs, target, settings, images, report=report)
    if any(blob.encrypted for blob in blobs) and target.limits.can_encrypt:
        valid, config = device.flash_key_valid, device.flash_crypt_config
        target = replace(target, flash_key=valid, crypt_config=config)
    problems = find_problems(blobs, target, policy, images, host_key=key is not None)
    problems += find_table_overrun(device, target, blobs, images)
    if may_hold_application(blobs):
        problems += find_older_versions(blobs, target.chip, device.secure_version or 0)
    if device.security.secure_boot and not device.secure_download:
        from espwire.efuse.trust import find_refusals  # most chips do not need the eFuse tables
        from espwire.efuse.wire import DeviceStore

        problems += find_refusals(blobs, target.chip, DeviceStore(device).read())
    if key is not None:
        from espwire.flash.host_key import encrypt_for

        blobs, more = encrypt_for(device, key, blobs, report)
        problems += more
    ordered = check_blobs(blobs, target, policy)
    stop_if_fatal(problems, policy)
    return CheckedWrite(target, blobs, ordered, problems)


def _note_written(
    journal: Journal,
    last: Mapping[int, bytes],
    done: Plan,
    blobs: Iterable[Blob],
    found: Mapping[int, Found],
    target: FlashTarget,
) -> None:
    """Remember what the flash holds now, for the next write."""
    digests = {} if done.erases else dict(last)
    for blob in blobs:
        if can_compare(blob, target, done.policy):
            digests |= digest_sectors(*fill_sectors(blob, found[blob.address]))
    if digests != last:
        journal.last_written.write(digests)


def write_build(
    device: Device,
    build: BuildPlan,
    *,
    policy: Policy | None = None,
    settings: HeaderSettings | None = None,
    encrypt: bool = False,
    key: HostKey | None = None,
    dry_run: bool = False,
    journal: Journal | None = None,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> Plan:
    """Write what ``read_build`` found, and verify it; returns the plan that was carried out.

    :param settings: flash settings that override the build's own
    :param encrypt: have the chip encrypt the files that the build marks so
    :param key: as for ``write_flash``
    :raises SafetyStop: it is for another chip, or another safety check fails
    :raises VerifyError: the flash does not hold what was written
    """
    for note in build.notes:
        report(Note(text=note))
    chosen = merge_settings(settings or HeaderSettings(), build.settings)
    blobs = list_build_blobs(build, encrypt=encrypt)
    offset = device.chip.flash.bootloader_offset
    if (settings is None or settings.keep_all) and all(blob.address != offset for blob in blobs):
        chosen = HeaderSettings()  # without a boot image, the build's settings concern no file
    return write_flash(
        device,
        blobs,
        policy=policy,
        settings=chosen,
        key=key,
        dry_run=dry_run,
        journal=journal,
        cancel=cancel,
        report=report,
    )


def open_write(
    device: Device,
    address: int,
    size: int,
    *,
    stream_size: int | None = None,
    encrypted: bool = False,
    erase: bool = True,
) -> WriteTransfer:
    """Open a write of ``size`` bytes at ``address``, the start of a sector; ``send`` pieces of it, then ``finish``.

    For data that is produced as it is sent. Nothing is checked before, and nothing is verified.

    :param stream_size: the data is sent as a zlib stream of so many bytes; None: as it is
    :param encrypted: by the chip's key, where the stub can
    :param erase: the sectors of the range; False: they are known to be blank
    :raises Unsupported: our stub is not running: see ``Device.use_stub``
    :raises CommandFailed: the stub refuses
    """
    if device.flash is None:
        device.attach_flash()
    codec = Codec.RAW if stream_size is None else Codec.ZLIB
    announced = size if stream_size is None else stream_size
    return WriteTransfer(
        device.loader, address, size, announced, codec, encrypted=encrypted, erase=erase
    )


def _find_cost(device: Device) -> TransportCost:
    if device.has_rate:
        return TransportCost(baud=device.loader.baud)
    return TransportCost(baud=USB_BAUD if is_native_usb(device.transport.info) else 0)


def execute(
    plan: Plan,
    device: Device,
    *,
    journal: Journal | None = None,
    unfinished: Unfinished = NOTHING,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> None:
    """Do every step of ``plan``.

    A blob that does not verify is written again as often as the policy's ``rewrites`` allows.

    :param unfinished: an earlier write that was interrupted; what the plan does not repair of it stays in the journal
    :raises Unsupported: before anything is written: verification is required and impossible
    :raises VerifyError: a blob is still wrong; ``ranges`` shows where
    :raises NoReply, CommandFailed, TransportLost, Cancelled: from the device; the flash is then half written
    """
    report = track(report, device.transport.now, plan.tasks, timed=True)
    run = _Run(plan, device, journal, unfinished, cancel, report)
    if plan.policy.verify and plan.writes:
        check_can_verify(FlashTarget.of(device))
    for step in plan.steps:
        run.check()
        match step:
            case Write():
                run.write(step)
            case Verify():
                run.verify(step)
            case Erase(again=True):
                erase_again(device, step, report=report)
            case Erase():
                run.erase(step)
            case Skip(checked=True):
                run.skip(step)
            case Skip():
                report(Note(text=step.describe()))
    run.end()


class _Run:
    """One execution: what its steps share."""

    def __init__(
        self,
        plan: Plan,
        device: Device,
        journal: Journal | None,
        unfinished: Unfinished,
        cancel: Cancel | None,
        report: Report,
    ) -> None:
        self.plan, self.device, self.cancel, self.report = plan, device, cancel, report
        self.backend, self.journal, self.earlier = device.backend, journal, unfinished
        self.unfinished = unfinished  # with this run's sectors so far

    def check(self) -> None:
        if self.cancel is not None:
            self.cancel.check()

    def erase(self, step: Erase) -> None:
        """Erase sectors; those whose erase was interrupted also if they read blank."""
        start, end = step.address, step.address + step.size
        self._note([(start, end)], self.plan.writes)
        run_erase(self.device, step, report=self.report)
        for low, high in find_weak(self.device, self.earlier, start, end):
            erase_again(self.device, Erase(low, high - low, again=True))

    def write(self, step: Write) -> None:
        """Transfer one blob; the backend repeats what fails on the way."""
        total, furthest, before = step.size, -1, 0

        def progress(done: int) -> None:
            nonlocal furthest
            self.check()
            if before + done > furthest:  # after a repetition the count goes back; a bar must not
                furthest = before + done
                event = Progress(
                    task="write", name=step.name, done=furthest, total=total, address=step.address
                )
                self.report(event)

        began = self.device.transport.now()
        spans = ((piece.address, align_up(piece.end, SECTOR)) for piece in step.pieces)
        self._note(spans, [*self.plan.writes, step])
        progress(0)
        for piece in step.pieces:
            self.backend.write(
                piece.address,
                piece.data,
                packed=piece.packed,
                codec=piece.codec,
                encrypted=step.encrypted,
                progress=progress,
            )
            before += len(piece.data)
        if step.encrypted and self.plan.policy.verify is not False:
            check_encrypted(self.device, step)
        self.report(
            Finished(
                task="write",
                name=step.name,
                size=step.blob[1] - step.blob[0],
                seconds=self.device.transport.now() - began,
                address=step.blob[0],
                written=None if total == len(step.data) else step.changed,
            )
        )

    def skip(self, step: Skip) -> None:
        """Report what is in flash already; it is verified, unless a step does so later."""
        done = Finished(
            task="write",
            name=step.name,
            size=step.size,
            seconds=0.0,
            address=step.address,
            written=0,
        )
        self.report(done)
        if not self.plan.is_verified(step):
            self.report(Finished(task="verify", name=step.name, size=step.size, seconds=0.0))

    def verify(self, step: Verify) -> None:
        """Check one blob; write it again, whole, where that is allowed."""
        began = self.device.transport.now()
        self.report(Progress(task="verify", name=step.name, done=0, total=len(step.content)))
        write = next((w for w in self.plan.writes if w.address <= step.address < w.end), None)
        some = write is None or write.size < len(write.data)
        for rewrites_left in range(self.plan.policy.rewrites + some, -1, -1):
            # a reply can be garbled: a second one decides before anything is rewritten
            holds = partial(
                has_content,
                self.device,
                step.address,
                step.content,
                name=step.name,
                report=self.report,
            )
            if holds() or holds():
                seconds = self.device.transport.now() - began
                size = step.blob[1] - step.blob[0]
                self.report(Finished(task="verify", name=step.name, size=size, seconds=seconds))
                return
            if not rewrites_left:
                break
            for piece in write.pieces if write is not None else ():
                self._stop_if_misplaced(piece)
            self._explain_rewrite(step, some=some)
            write, some = self._plan_rewrite(step, write, some=some), False
            self.write(write)
            step = replace(step, tail=-write.end % SECTOR)
        # no difference now means that the flash answers differently each time: not a success either
        ranges = find_differences(self.device, step.address, step.content)
        whole = ((step.address, step.address + len(step.content)),)
        raise build_verify_error([step.name], ranges or whole)

    def _explain_rewrite(self, step: Verify, *, some: bool) -> None:
        text = f"the flash does not match {step.name}; writing it again"
        if some:
            text = f"the flash does not match {step.name} after writing what had changed; writing what differs"
        self.report(Warned(code="rewrite", text=text))

    def _plan_rewrite(self, step: Verify, write: Write | None, *, some: bool) -> Write:
        """All of it in one piece; after a write of some sectors: those that differ now."""
        if write is not None and write.size == len(write.data):
            return write
        start = write.address if write is not None else align_down(step.address, SECTOR)
        data = write.data if write is not None else BLANK * (step.address - start) + step.data
        blob, end = Blob(start, data, step.name), start + len(data)
        runs: Ranges = ((start, end),)
        if some and (differ := find_differences(self.device, start, data)):
            runs = join_ranges(
                (align_down(a, SECTOR), min(align_up(b, SECTOR), end)) for a, b in differ
            )
        target, cost = FlashTarget.of(self.device), _find_cost(self.device)
        again = plan_write(blob, start, data, runs, target, cost, self.plan.policy)
        return replace(again, blob=step.blob)

    def _note(self, spans: Iterable[tuple[int, int]], writes: Iterable[Write]) -> None:
        """Store what is about to be erased, and what the sectors are to hold that files share with other data."""
        if self.journal is None:
            return
        under_way = join_ranges((*self.unfinished.under_way, *spans))
        shared = {sector.address: sector for sector in self.unfinished.shared}
        shared |= {sector.address: sector for sector in find_shared(writes)}
        self.unfinished = Unfinished(under_way, tuple(shared.values()))
        self.journal.last_written.forget()
        try:
            self.journal.write(self.unfinished)
        except FileError as error:
            if any(sector.keeps_data for sector in shared.values()):
                raise
            text = f"an interruption of this write cannot be recorded: {error}"
            self.report(Warned(code="no-journal", text=text))
            self.journal = None

    def end(self) -> None:
        """Everything is done: clear the journal, except for what an earlier run left elsewhere; warn of what was not verified."""
        if self.journal is not None:
            done = self._find_done()
            left = Unfinished(
                subtract_ranges(self.earlier.under_way, done),
                tuple(
                    sector
                    for sector in self.earlier.shared
                    if subtract_ranges([(sector.address, sector.address + SECTOR)], done)
                ),
            )
            if left != NOTHING:
                self.journal.write(left)
            else:
                self.journal.clear()
        self.warn_of_unverified()

    def _find_done(self) -> Ranges:
        """The sectors of all blobs, and those that were to be erased."""
        return join_ranges(
            (step.address, step.address + step.size)
            if isinstance(step, Erase)
            else (align_down(step.address, SECTOR), align_up(step.end, SECTOR))
            for step in self.plan.steps
        )

    def warn_of_unverified(self) -> None:
        """Warn once, by name, of what nothing has checked."""
        names = self.plan.unverified
        if not names or self.plan.policy.verify is False:
            return
        why = "this loader can neither compute an MD5 of the flash nor read it"
        if self.backend.limits.can_verify:
            why = "the chip has encrypted it"
        text = f"{', '.join(names)}: written, but not verified: {why}"
        self.report(Warned(code="unverified", text=text))

    def _stop_if_misplaced(self, piece: Piece) -> None:
        """Stop if nothing has arrived where all of it was sent: then it overwrote something else.

        A ROM takes the address from a request without a checksum, and its erase check fails only if the sectors were
        not blank before.

        :raises VerifyError: code ``wrong-erase``
        """
        limits = self.backend.limits
        if not limits.erases_at_begin or not limits.can_digest:
            return
        for start in range(piece.address, piece.end, SECTOR):
            data = piece.data[start - piece.address :][:SECTOR]
            blank = BLANK * len(data)
            if data != blank:
                if has_content(self.device, start, blank):
                    raise build_wrong_erase(piece.address, piece.end, [start])
                return
