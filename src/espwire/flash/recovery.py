"""What an interrupted write has kept: what the next one stores for that, and restores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.events import Report, Warned
from espwire.flash.findings import Policy
from espwire.flash.journal import Journal, Shared, Unfinished
from espwire.flash.model import BLANK, FlashTarget, Write
from espwire.sizes import SECTOR, align_down, align_up, subtract_ranges

if TYPE_CHECKING:
    from espwire.device.device import Device


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
