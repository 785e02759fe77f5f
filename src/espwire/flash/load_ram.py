"""Dumps memory into files, and loads programs from images into RAM and starts them."""

from __future__ import annotations

import io
import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from espwire.chips.model import NO_RAM
from espwire.chips.registry import find_by_image_id
from espwire.device.loader import LossLimit
from espwire.device.memory_access import check_range, load_segment, read_words, start_program
from espwire.errors import ImageError
from espwire.events import Finished, Progress, Report, Warned, silent
from espwire.files import open_output
from espwire.flash.findings import Finding, Policy, stop_if_fatal
from espwire.flash.model import Cancel
from espwire.image.codec import parse
from espwire.progress import track

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.device import Device
    from espwire.image.model import Image, Segment

PROGRESS_STEP = 0x400
MEM_DATA_HEAD = 24  # of the request for a block: header and four words


@dataclass(frozen=True, kw_only=True)
class MemDump:
    """The result of a dump. ``data`` is None if it was written to a file; ``trips`` are round trips to the chip."""

    address: int
    size: int
    trips: int
    path: str | None = None
    data: bytes | None = field(default=None, repr=False)


def dump_mem(
    device: Device,
    address: int,
    size: int,
    path: str | os.PathLike[str] | None = None,
    *,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> MemDump:
    """Read memory word by word, into a file (whole or absent) or, without ``path``, as bytes.

    A ROM sends one word per request, without a checksum, so each word is read twice and the two are compared. At
    115200 baud that is less than 1 KiB per second. A warning reports words that change between reads.

    :raises UsageError: codes ``unaligned``, ``memory-range``
    :raises Unsupported: code ``secure-download-mode``, before anything is sent
    :raises DeviceError: code ``memory-access``; ``ram-overwritten``: a stub was uploaded wrongly before
    :raises FileError: the file cannot be written
    """
    check_range(address, size)
    device.check_ram(address, size)
    name = f"{address:#x}" if path is None else os.path.basename(os.fspath(path))
    began, trips, done, shown = device.transport.now(), device.loader.trips, 0, 0
    losses = LossLimit(device.loader)
    report = track(report, device.transport.now)
    report(Progress(task="read", name=name, done=0, total=size))
    changing: list[int] = []
    memory = io.BytesIO()
    with nullcontext(memory) if path is None else open_output(path) as file:
        for word in read_words(device.loader, address, size, on_change=changing.append):
            losses.check()
            file.write(word)
            done += len(word)
            if done >= shown + PROGRESS_STEP or done == size:
                shown = done
                report(Progress(task="read", name=name, done=done, total=size))
                if cancel is not None:
                    cancel.check()
    report(Finished(task="read", name=name, size=size, seconds=device.transport.now() - began))
    if changing:
        text = f"{len(changing)} words change between reads, the first at {changing[0]:#010x}"
        report(Warned(code="memory-changes", text=text))
    return MemDump(
        address=address,
        size=size,
        trips=device.loader.trips - trips,
        path=None if path is None else os.fspath(path),
        data=memory.getvalue() if path is None else None,
    )


@dataclass(frozen=True, kw_only=True)
class RamLoad:
    """A program that was loaded into RAM and started: its entry, and (address, size) of each segment."""

    entry: int
    segments: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Bytes in all segments."""
        return sum(size for _, size in self.segments)


def load_ram(
    device: Device,
    data: bytes,
    *,
    name: str = "program",
    policy: Policy | None = None,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> RamLoad:
    """Load an image's segments into RAM and start it. The loader ends with that: the device no longer replies.

    :param policy: its consents may allow the RAM that the ROM uses itself (``rom-ram``)
    :raises ImageError: not an image, a damaged image, or an image for another chip or for flash
    :raises SafetyStop: a segment overlaps the ROM's own RAM (``rom-ram``), or that of our stub, which is running
        (``stub-ram``)
    :raises Unsupported: code ``secure-download-mode``, before anything is sent
    :raises NoReply, CommandFailed: a block failed too often, or the start was refused
    """
    chip, loader = device.chip, device.loader
    image = parse_program(chip, data)
    revision = device.revision if device.revision_known else None
    stop_if_fatal(find_rom_ram_problems(chip, image, revision), policy or Policy(), code="rom-ram")
    stop_if_fatal(find_stub_ram_problems(device, image), Policy(), code="stub-ram")
    segments = [segment for segment in image.segments if segment.data]
    total, began, before = sum(len(segment.data) for segment in segments), device.transport.now(), 0
    report = track(report, device.transport.now)
    report(Progress(task="write", name=name, done=0, total=total))
    for segment in segments:

        def on_block(done: int, before: int = before) -> None:
            if cancel is not None:
                cancel.check()
            report(Progress(task="write", name=name, done=before + done, total=total))

        load_segment(loader, chip, segment.address, segment.data, on_block)
        before += len(segment.data)
    start_program(loader, image.entry)
    report(Finished(task="write", name=name, size=total, seconds=device.transport.now() - began))
    return RamLoad(entry=image.entry, segments=tuple((s.address, len(s.data)) for s in segments))


def parse_program(chip: Chip, data: bytes) -> Image:
    """The image, if it is one for this chip's RAM.

    :raises ImageError: codes ``image-damaged``, ``image-wrong-chip``, ``image-not-for-ram`` and those of ``parse``
    """
    image = parse(data, chip)
    if image.extended is not None and image.extended.chip_id != chip.identity.image_chip_id:
        owner = find_by_image_id(image.extended.chip_id) or f"chip id {image.extended.chip_id}"
        raise ImageError(
            f"this is an image for {owner}, not for {chip.id}",
            hint="Build the program for this chip.",
            code="image-wrong-chip",
        )
    if not image.intact:
        raise ImageError(
            "the image is damaged: its checksum or SHA-256 is wrong", code="image-damaged"
        )
    used = [segment for segment in image.segments if segment.data]
    wrong = next((segment for segment in used if not _is_ram(chip, segment)), None)
    if image.irom is not None or wrong is not None or not used:
        what = (
            "mapped code, or nothing"
            if wrong is None
            else f"a segment for {wrong.address:#010x}, which is not RAM"
        )
        raise ImageError(
            f"the image holds {what}",
            hint="Programs for RAM are linked for RAM only; write this one into flash with write-flash.",
            code="image-not-for-ram",
        )
    return image


def find_rom_ram_problems(chip: Chip, image: Image, revision: int | None) -> tuple[Finding, ...]:
    """The findings for segments over RAM that the ROM needs while it loads them."""
    findings = []
    segments = [segment for segment in image.segments if segment.data]
    for number, segment in enumerate(segments):
        longest = max(min(len(later.data), chip.rom.ram_block) for later in segments[number:])
        for start, end in find_rom_ram(chip, revision, longest):
            if segment.address < end and segment.end > start:
                text = (
                    f"the segment for {segment.address:#010x} overlaps RAM that the ROM uses itself,"
                    f" {start:#010x} to {end:#010x}"
                )
                findings.append(Finding("rom-ram", text, fatal=True, consent="rom-ram"))
    return tuple(findings)


def find_stub_ram_problems(device: Device, image: Image) -> tuple[Finding, ...]:
    """The findings for segments over the stub that would load them."""
    return tuple(
        Finding(
            "stub-ram",
            f"the segment for {segment.address:#010x} overlaps the running stub, {start:#010x} to {end:#010x};"
            " connect without the stub (stub=False)",
            fatal=True,
        )
        for segment in image.segments
        for start, end in device.backend.limits.ram
        if segment.data and segment.address < end and segment.end > start
    )


def find_rom_ram(chip: Chip, revision: int | None, longest: int) -> tuple[tuple[int, int], ...]:
    """Half-open ranges of RAM that the ROM's loader uses, as far as the chip's data has them; aliases included.

    Each request fills the ROM's packet buffer from its start, so RAM behind the longest request stays intact. Where the
    buffer's address was not measured, all of the ROM's buffers count.

    :param revision: None: unknown, all that could be
    :param longest: bytes of data in the longest block that is sent at the same time or later
    """
    used: list[tuple[int, int]] = []
    for fact in chip.stub.rom_ram:
        least, most = fact.get("min_revision", 0), fact.get("max_revision", 1 << 16)
        start, end = fact.get("rom_buffers_start"), fact.get("ram_end", fact.get("rom_stack_start"))
        if start is None or end is None or (revision is not None and not least <= revision <= most):
            continue
        ranges = [(start, end)]
        if (packets := fact.get("packet_buffer")) is not None:
            data_and_stack = (fact["stack_sentry"], fact["rtos_end"])
            ranges = [
                (packets, packets + MEM_DATA_HEAD + longest),
                data_and_stack,
                (fact["rom_pointers_start"], end),
            ]
        offset = fact.get("instruction_alias_offset")
        used += ranges
        used += [(low + offset, high + offset) for low, high in ranges] if offset else []
    return tuple(used)


def _is_ram(chip: Chip, segment: Segment) -> bool:
    """Whether a segment may be in RAM: not in mapped flash or mask ROM. Some memory maps end early, so the unknown is RAM."""
    flash = chip.mapped_flash
    mapped = ((flash.irom_start, flash.irom_end), (flash.drom_start or 0, flash.drom_end or 0))
    if any(segment.address < end and segment.end > start for start, end in mapped):
        return False
    touched = [r.name for r in chip.memory.map if segment.address < r.end and segment.end > r.start]
    return not touched or any(not name.endswith(NO_RAM) for name in touched)
