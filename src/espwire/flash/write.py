"""Writes files' content to flash and verifies it: prepare the boot image's header, plan, safety checks, execute.

When ``write_flash`` returns, every verified blob is known to be in flash; those that cannot be verified are warned of
by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from espwire.blob import Blob, choose_for_chip
from espwire.device.backends.base import build_wrong_erase
from espwire.device.backends.stub import WriteTransfer
from espwire.errors import FileError, UsageError
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
from espwire.flash.estimate import TransportCost
from espwire.flash.findings import Finding, Policy, stop_if_fatal
from espwire.flash.journal import NOTHING, Journal, Shared, Unfinished
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
from espwire.flash.plan import can_compare, check_blobs, check_can_verify, fill_up, plan, plan_write
from espwire.flash.safety import find_problems
from espwire.flash.side_effects import (
    find_blanked,
    find_misread_data,
    find_protection,
    find_table_changes,
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
from espwire.progress import track
from espwire.protocol.stub import Codec
from espwire.sizes import (
    SECTOR,
    Ranges,
    align_down,
    align_up,
    format_size,
    join_ranges,
    subtract_ranges,
)

if TYPE_CHECKING:
    from espwire.device.device import Device
    from espwire.image.build_file import BuildPlan


TYPICAL_PACKED = 0.65  # of the size of firmware


def write_flash(
    device: Device,
    blobs: Iterable[Blob],
    *,
    policy: Policy | None = None,
    settings: HeaderSettings | None = None,
    dry_run: bool = False,
    journal: Journal | None = None,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> Plan:
    """Write ``blobs`` and verify them; returns the plan that was carried out.

    :param journal: keeps what an interruption would destroy, and restores it in the next run
    :param settings: flash settings for the header of the image at the bootloader's offset
    :param dry_run: stop when the plan is ready; nothing is written
    :raises UsageError: blobs overlap, or a setting does not exist on this chip
    :raises SafetyStop: a safety check fails; ``consents`` name what would allow it
    :raises VerifyError: the flash does not hold what was written
    """
    policy = policy or Policy()
    target, blobs, ordered, problems = check_write(
        device, blobs, policy=policy, settings=settings, report=report
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
        device.tune_line("write", _estimate_stream(ordered, found))
    planned = plan(blobs, target=target, cost=_find_cost(device), policy=policy, found=found)
    if target.limits.can_read and not target.encrypts_flash:
        problems += find_blanked(device, planned)
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
        if (slots := find_unbooted(device, target, blobs)) is not None:
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
    report: Report = silent,
) -> CheckedWrite:
    """The checks of ``write_flash`` that do not depend on what the flash holds now.

    :raises UsageError, SafetyStop: as ``write_flash``
    """
    policy, settings = policy or Policy(), settings or HeaderSettings()
    target = FlashTarget.of(device, flash_size=find_stated_size(settings))
    images = ParsedImages(target.chip)
    blobs = prepare_blobs(blobs, target, settings, images, report=report)
    if any(blob.encrypted for blob in blobs) and target.limits.can_encrypt:
        key, config = device.flash_key_valid, device.flash_crypt_config
        target = replace(target, flash_key=key, crypt_config=config)
    problems = find_problems(blobs, target, policy, images)
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
            start, data = fill_up(blob, found[blob.address])
            digests |= digest_sectors(start, data + BLANK * (-len(data) % SECTOR))
    if digests != last:
        journal.last_written.write(digests)


def write_build(
    device: Device,
    build: BuildPlan,
    *,
    policy: Policy | None = None,
    settings: HeaderSettings | None = None,
    encrypt: bool = False,
    dry_run: bool = False,
    journal: Journal | None = None,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> Plan:
    """Write what ``read_build`` found, and verify it; returns the plan that was carried out.

    :param settings: flash settings that override the build's own
    :param encrypt: have the chip encrypt the files that the build marks so
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


def _estimate_stream(blobs: Iterable[Blob], found: Mapping[int, Found]) -> int:
    """About how many bytes cross the line for what the chip's hashes can prove."""
    size = 0
    for blob in blobs:
        changed = found[blob.address].changed if blob.address in found else None
        if not blob.encrypted:
            size += len(blob.data) if changed is None else sum(high - low for low, high in changed)
    return int(size * TYPICAL_PACKED)


def _find_cost(device: Device) -> TransportCost:
    return TransportCost(baud=device.loader.baud if device.has_rate else 0)


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
                lzma=piece.lzma,
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


def can_restore(target: FlashTarget, policy: Policy) -> bool:
    """Whether what an interrupted write has kept can be compared with the flash, and belongs into it."""
    readable = target.limits.can_read and not target.encrypts_flash
    return readable and policy.keep


def leave_out_erased(unfinished: Unfinished, policy: Policy) -> Unfinished:
    """What is to be erased first need not be restored."""
    shared = (s for s in unfinished.shared if not policy.erases(s.address, s.address + SECTOR))
    return replace(unfinished, shared=tuple(shared))


def find_shared(writes: Iterable[Write]) -> tuple[Shared, ...]:
    """The sectors that are erased and that a blob does not fill: the rest of them is written again."""
    shared: dict[int, Shared] = {}
    for write in writes:
        end = align_up(write.end, SECTOR)
        for low, high in ((write.address, write.blob[0]), (write.blob[1], end)):
            sector = align_down(low, SECTOR)
            if low < high and any(piece.address <= sector < piece.end for piece in write.pieces):
                at = sector - write.address
                content = write.data[at : at + SECTOR].ljust(SECTOR, BLANK)
                kept = shared[sector].kept if sector in shared else ()
                shared[sector] = Shared(sector, content, (*kept, (low, high)))
    return tuple(shared.values())


def find_restorable(
    device: Device,
    unfinished: Unfinished,
    blobs: Iterable[Blob],
    journal: Journal,
    report: Report,
) -> tuple[Unfinished, list[Blob]]:
    """What an interrupted write has kept and the flash has lost; and as blobs, where none of ``blobs`` goes there.

    A sector that was under way belongs to that write, whatever it holds now. Others must hold some of its content and
    nothing else; if not, the journal is put aside, and a warning names it.
    """
    claimed = [(align_down(b.address, SECTOR), align_up(b.end, SECTOR)) for b in blobs]
    usable, lost, more = [], [], []
    for sector in unfinished.shared:
        span = (sector.address, sector.address + SECTOR)
        under_way = not subtract_ranges([span], unfinished.under_way)
        flash = b"".join(device.backend.read(sector.address, SECTOR))
        if under_way or sector.may_hold(flash):
            usable.append(sector)
            if subtract_ranges([span], claimed):
                more.append(Blob(sector.address, sector.content, "kept data"))
        elif any(
            flash[low - span[0] : high - span[0]] != sector.content[low - span[0] : high - span[0]]
            for low, high in sector.kept
        ):
            lost.append(sector)
    if lost:
        aside = journal.put_aside()
        places = ", ".join(f"{sector.address:#x}" for sector in lost)
        text = f"an interrupted write has kept data of the sector at {places}, where the flash now holds something else; it is left alone, and the data is in {aside}"
        report(Warned(code="journal-kept", text=text))
    return replace(unfinished, shared=tuple(usable)), more


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
